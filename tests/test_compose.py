"""The compose file on a real engine, as an operator uses it. `make test-compose` runs it; it takes some minutes.

`COMPOSE` names the command: `docker compose`, which is the default, or `docker-compose` of version 1.29.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import httpx
import pytest

from tests.support.command import environment
from tests.support.servers import free_ports

ROOT = Path(__file__).parents[1]
COMPOSE = os.environ.get("COMPOSE", "docker compose")
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
READY_SECONDS = 120
STOP_SECONDS = 15

pytestmark = pytest.mark.skipif("TEST_COMPOSE" not in os.environ, reason="make test-compose needs a container engine")


@dataclass(frozen=True)
class Deployment:
    """A copy of the repository that is deployed as a project of its own."""

    folder: Path
    url: str

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its commands, with nothing of an operator's settings."""
        engine = {name: value for name, value in os.environ.items() if name.startswith("DOCKER_")}
        project = {"COMPOSE": COMPOSE, "COMPOSE_PROJECT_NAME": self.folder.name, "TAG": "test"}
        return environment(self.folder, {**engine, **project, "LISTEN": self.url.removeprefix("http://")})

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Runs lines of the documentation in the folder."""
        return subprocess.run(
            ["/bin/sh", "-euc", script.replace("docker compose", COMPOSE)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def sh(self, script: str) -> str:
        """Runs lines that must succeed; returns their output."""
        done = self.run(script)
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def containers(self) -> dict[str, dict[str, object]]:
        """Returns the states of all containers by the names of their services."""
        listed = self.sh(f"docker ps --all --quiet --filter label=com.docker.compose.project={self.folder.name}")
        containers = json.loads(self.sh(f"docker inspect {listed.replace(chr(10), ' ')}"))
        return {each["Config"]["Labels"]["com.docker.compose.service"]: each["State"] for each in containers}

    def client(self, key: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}", "X-Purpose": "test"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=90)

    def until_ready(self) -> None:
        """Waits until the API answers through the proxy."""
        end = time.monotonic() + READY_SECONDS
        while not self._is_ready():
            assert time.monotonic() < end, "the deployment does not become ready"
            time.sleep(0.5)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False


@contextmanager
def deployed(folder: Path) -> Iterator[Deployment]:
    """Copies the repository to a new folder, and removes the containers and their data at the end."""
    listed = subprocess.run(
        ["/usr/bin/env", "git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    deployment = Deployment(folder, f"http://127.0.0.1:{free_ports(['proxy'])['proxy']}")
    try:
        yield deployment
    finally:
        deployment.sh("docker compose --profile demo down -v")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Deployment, str]]:
    """Runs the demo in the foreground until its last line, then stops it; yields the deployment and the output."""
    folder = tmp_path_factory.mktemp(f"faceid{os.getpid()}")
    with deployed(folder) as deployment:
        deployment.sh("docker build --network host --tag faceid-results:test .")
        with (folder / "up.log").open("wb") as log:
            command = [*COMPOSE.split(), "--profile", "demo", "up"]
            up = subprocess.Popen(
                ["/usr/bin/env", *command], cwd=folder, env=deployment.environment, stdout=log, stderr=log
            )
            end = time.monotonic() + 2 * READY_SECONDS
            while "Press Ctrl-C" not in (folder / "up.log").read_text() and time.monotonic() < end:
                time.sleep(0.5)
            # Another service could still write below the last line.
            time.sleep(3)
            output = (folder / "up.log").read_text()
            up.send_signal(signal.SIGINT)
            up.wait()
        yield deployment, output


@pytest.fixture(scope="module")
def key(demo: tuple[Deployment, str]) -> str:
    (found,) = re.findall(r"API key: (frk_\S+)", demo[1])
    return str(found)


@pytest.fixture
def running(demo: tuple[Deployment, str]) -> Deployment:
    deployment, _ = demo
    deployment.sh("docker compose --profile demo up --detach")
    # The walk starts again and adds verifications until its end.
    deployment.sh("docker wait $(docker compose --profile demo ps -q demo)")
    deployment.until_ready()
    return deployment


def test_demo_ends_with_the_results_the_address_the_key_and_how_to_stop(demo: tuple[Deployment, str]) -> None:
    deployment, output = demo
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in output.splitlines()]
    of_objects = [line for line in lines if line.startswith("objects")]
    last = [line.partition("| ")[2] for line in lines if line.startswith("demo")]
    after = lines[max(index for index, line in enumerate(lines) if "Press Ctrl-C" in line) + 1 :]

    assert len(of_objects) < 10
    assert [line[:12] for line in after if line and "exited with code 0" not in line] == []
    assert [line for line in last if "state " in line][-1].endswith("state expired, outcome none; calls: 1")
    assert last[-6].startswith(f"The service runs on {deployment.url} ")
    assert last[-5].startswith("API key: frk_")
    assert last[-1].startswith("Press Ctrl-C to stop.")


def test_doctor_finds_nothing_wrong(running: Deployment) -> None:
    checks = {
        name: json.loads(running.sh(f"docker compose run --rm -T --no-deps {name} doctor --json {option}"))["checks"]
        for name, option in (("worker", ""), ("api", "--no-worker"))
    }
    found = {name: {(check["check"], check["status"]) for check in each} for name, each in checks.items()}

    # The demo's key is valid for a day.
    assert {check for check, status in found["worker"] if status != "ok"} == {"API keys"}
    assert {check for check, status in found["api"] if status not in {"ok", "skipped"}} == {"API keys"}
    assert {check for check, status in found["api"] if status == "skipped"} >= {"clock", "credentials"}


def test_key_ring_tool_leaves_the_keys_of_the_demo_alone(running: Deployment, key: str) -> None:
    rotated = running.sh("docker compose run --rm -T keyring keyring rotate")
    running.sh("docker compose restart worker")

    assert "Copy /run/keyring/keyring.json again" in rotated
    assert retrieve(running, key, "passed-after-rotation")["state"] == "retrieved"


def test_update_fails_no_request_and_keeps_the_scale(running: Deployment, key: str) -> None:
    running.sh("docker compose --profile demo up --detach --scale api=2")
    time.sleep(10)
    before = set(running.sh("docker compose ps -q api worker").split())
    stop = Event()
    with ThreadPoolExecutor() as pool:
        loops = [pool.submit(send_until, stop, running, key, kind) for kind in ("list", "callback", "wait")]
        running.sh("sh deploy/update.sh")
        stop.set()
        seen = sum((loop.result() for loop in loops), Counter[int]())
    after = set(running.sh("docker compose ps -q api worker").split())

    assert seen.keys() == {200, 202}
    assert (len(before), len(after), before & after) == (3, 3, set())


def test_stop_answers_callers_and_ends_everything_in_order(running: Deployment, key: str) -> None:
    with running.client(key) as api, ThreadPoolExecutor() as pool:
        api.post("/v1/callbacks", json={"BizToken": "unfinished-stop", "RuleId": "1"}).raise_for_status()
        waiting: Future[httpx.Response] = pool.submit(api.get, "/v1/verifications/unfinished-stop", params={"wait": 60})
        time.sleep(2)
        # A container that runs longer is killed, and its exit code is 137.
        running.sh(f"docker compose --profile demo stop --timeout {STOP_SECONDS}")

    states = running.containers()
    ended = {name: str(state["FinishedAt"]) for name, state in states.items()}
    assert (waiting.result().status_code, waiting.result().json()["state"]) == (200, "pending")
    assert {name: state["ExitCode"] for name, state in states.items() if state["ExitCode"]} == {}
    assert max(ended["api"], ended["worker"], ended["proxy"]) < min(ended["postgres"], ended["objects"])


def test_backup_is_restored_on_an_empty_machine(running: Deployment, key: str, tmp_path: Path) -> None:
    backup, restore, revoke = BLOCK.findall((ROOT / "docs" / "backup.md").read_text())
    before = view_of(running, key)
    create = "docker compose run --rm -T --no-deps api keys create late --scope results:read --json"
    revoked = json.loads(running.sh(create))
    running.sh(backup)
    running.sh(f"docker compose run --rm -T --no-deps api keys revoke {revoked['id']}")
    log = logged_revocation(running, revoked["id"])
    running.sh("docker compose --profile demo stop")

    with deployed(tmp_path / f"restored{os.getpid()}") as restored:
        shutil.move(running.folder / "backup", restored.folder / "backup")
        # By mistake the services start without the key ring first, and create another one.
        restored.sh("docker compose up --detach postgres")
        (restored.folder / "deploy" / "secrets" / "keyring.json").write_text("a copy of the lost key ring")
        too_late = restored.run("docker compose up --detach secrets && docker compose up --detach postgres")
        reason = restored.sh("docker compose logs --no-color secrets")
        aside = re.findall(r"docker compose run .* mv .*", reason)[-1]
        restored.sh(aside)
        restored.sh(restore)
        restored.until_ready()
        after = view_of(restored, key)
        (restored.folder / "service.log").write_text(log)
        with restored.client(revoked["key"]) as late:
            restored_key = late.get("/v1/me").status_code
            restored.sh(revoke)
            # Every process rejects it within 5 s.
            time.sleep(5)
            revoked_again = late.get("/v1/me").status_code

    assert too_late.returncode != 0
    assert "deploy/secrets/keyring.json is not the key ring in use" in reason
    assert len(before[0]) > 4
    assert after == before
    assert (restored_key, revoked_again) == (200, 401)


def logged_revocation(deployment: Deployment, key_id: str) -> str:
    """Returns the log of the workers once it names a revoked key, which takes up to a minute."""
    end = time.monotonic() + READY_SECONDS
    while True:
        log = deployment.sh("docker compose logs --no-color worker")
        if any("key_revoked" in line and key_id in line for line in log.splitlines()):
            return log
        assert time.monotonic() < end, "the log does not name the revoked key"
        time.sleep(1)


def retrieve(deployment: Deployment, key: str, biz_token: str) -> dict[str, object]:
    with deployment.client(key) as api:
        api.post("/v1/callbacks", json={"BizToken": biz_token, "RuleId": "1"}).raise_for_status()
        view: dict[str, object] = api.get(f"/v1/verifications/{biz_token}", params={"wait": 60}).json()
    return view


def send_until(stop: Event, deployment: Deployment, key: str, kind: str) -> Counter[int]:
    """Sends requests of a kind one after the other; returns how often each status was answered."""
    seen = Counter[int]()
    with deployment.client(key) as api:
        while not stop.is_set():
            if kind == "callback":
                body = {"BizToken": f"unfinished-{time.time_ns()}", "RuleId": "1"}
                answer = api.post("/v1/callbacks", json=body)
            elif kind == "wait":
                answer = api.get("/v1/verifications", params={"limit": 1, "state": "pending"})
                for item in answer.json()["items"]:
                    answer = api.get(f"/v1/verifications/{item['biz_token']}", params={"wait": 20})
            else:
                answer = api.get("/v1/verifications", params={"limit": 2})
            seen[answer.status_code] += 1
            time.sleep(0.02)
    return seen


def view_of(deployment: Deployment, key: str) -> tuple[list[dict[str, object]], list[int]]:
    """Returns all results that passed, and the sizes of their videos."""
    with deployment.client(key) as api:
        items = api.get("/v1/verifications", params={"outcome": "passed", "limit": 100}).json()["items"]
        videos = [api.get(f"/v1/verifications/{item['biz_token']}/media/liveness_video") for item in items]
    return items, [len(video.raise_for_status().content) for video in videos]
