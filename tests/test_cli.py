"""The command line as shells and service managers use it: the real command, real signals, real sockets."""

import asyncio
import getpass
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from typer.main import get_group
from typer.testing import CliRunner

from app.cli import app
from app.cli.runtime import operator, run_until_stopped
from app.cli.server import listen, serving
from app.cli.token_files import BATCH_LINES
from app.console.visits import COOKIE
from app.domain.api_key import OPERATOR
from app.domain.verification import BIZ_TOKEN_PATTERN
from app.errors import ConfigurationError
from app.routers.schemas import PATTERN_WORDS
from simulator.options import DEMO_CREDENTIALS
from tests.support.command import BOUND_SECONDS, POLL_SECONDS, Done, Running, environment, run, started
from tests.support.servers import free_ports
from tests.support.service import DOCTOR_CHECKS
from tests.support.simulator import LiveSimulator

COMMAND = str(Path(sys.executable).with_name("faceid-results"))
COMMANDS = [
    *(["demo"], ["serve"], ["worker"], ["simulate"], ["fetch"], ["backfill"], ["migrate"], ["doctor"]),
    *(["events"], ["export"], ["stats"]),
    *(["keys", "create"], ["keys", "list"], ["keys", "revoke"]),
    *(["sessions", "list"], ["sessions", "end"]),
    *(["keyring", "new"], ["keyring", "status"], ["keyring", "rotate"], ["audit", "verify"]),
    *(["webhooks", verb] for verb in ("create", "list", "show", "test", "rotate", "replay", "delete")),
    *(["media", "adopt"], ["media", "sweep"], ["retention", "status"], ["retention", "run"]),
]


@dataclass(frozen=True)
class Installation:
    """A working directory, and settings that point to the simulator."""

    folder: Path
    settings: Mapping[str, str]

    def run(self, *arguments: str, stdin: str = "", **overrides: str) -> Done:
        return run(*arguments, folder=self.folder, stdin=stdin, **{**self.settings, **overrides})

    def json(self, *arguments: str, stdin: str = "") -> dict[str, Any]:
        view: dict[str, Any] = json.loads(self.run(*arguments, "--json", stdin=stdin).out)
        return view

    @contextmanager
    def started(self, *arguments: str, stdin: Path | None = None) -> Iterator[Running]:
        with started(*arguments, folder=self.folder, stdin=stdin, **self.settings) as running:
            yield running

    @contextmanager
    def serving(self, *scopes: str) -> Iterator[tuple[Running, httpx.Client]]:
        """Runs the service on a free port; yields it and a client whose key has these scopes."""
        options = [option for scope in scopes for option in ("--scope", scope)]
        key = self.json("keys", "create", "shop", *options)["key"]
        with self.started("serve", "--port", "0") as running:
            (url,) = re.findall(r"Serving on (\S+),", running.until("/docs"))
            with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as api:
                yield running, api

    def await_rows(self, number: int) -> None:
        """Waits until so many verifications are committed."""
        end, rows = time.monotonic() + BOUND_SECONDS, 0
        while rows < number:
            assert time.monotonic() < end
            time.sleep(POLL_SECONDS)
            with (
                suppress(sqlite3.OperationalError),
                closing(sqlite3.connect(self.folder / "data/faceid-results.db")) as db,
            ):
                (rows,) = db.execute("SELECT count(*) FROM verification").fetchone()


@pytest.fixture
def here(tmp_path: Path, faceid: LiveSimulator, sqlite_template: Path) -> Installation:
    """An installation with a migrated database. A first start takes half a second; other modules test it."""
    (tmp_path / "data").mkdir(mode=0o700)
    shutil.copy(sqlite_template, tmp_path / "data/faceid-results.db")
    return Installation(
        tmp_path,
        {
            "FACEID_ENDPOINT": faceid.url,
            "FACEID_RULE_ID": "1",
            "TENCENTCLOUD_SECRET_ID": DEMO_CREDENTIALS.secret_id,
            "TENCENTCLOUD_SECRET_KEY": DEMO_CREDENTIALS.secret_key,
        },
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_every_command_has_examples(command: Sequence[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "80"})

    assert result.exit_code == 0
    assert f"faceid-results {' '.join(command)}" in result.output.partition("Examples:")[2]


def test_version_is_printed(here: Installation) -> None:
    done = here.run("--version")

    assert (done.code, done.out, done.err) == (0, f"faceid-results {version('faceid-results')}\n", "")


def test_commands_are_the_documented_ones() -> None:
    assert set(get_group(app).commands) == {command[0] for command in COMMANDS}


@pytest.mark.parametrize(
    ("arguments", "settings", "sentence"),
    [
        (["nonsense"], {}, "No such command 'nonsense'. Try `--help`."),
        (["fetch"], {}, "Missing argument 'BIZ_TOKEN'. Try `--help`."),
        (["fetch", "no token"], {}, f"biz_token {PATTERN_WORDS[BIZ_TOKEN_PATTERN]}."),
        (
            ["fetch", "passed-1"],
            {"FACEID_RULE_ID": ""},
            "rule_id is required, because no default is set for this client.",
        ),
        (
            ["fetch", "passed-1", "--rule-id", "made-up"],
            {"FACEID_RULE_ID": "1"},
            "This client may not use the RuleId: the operator must name it in [rules] or set ACCEPT_UNKNOWN_RULES.",
        ),
        (["keys", "revoke", "nobody"], {}, "There is no active API key with id nobody."),
        (
            ["keys", "create", "a", "--scope", "admin", "--expires", "3w"],
            {},
            "--expires must be a number of days, like 90d.",
        ),
        *(
            (
                ["keys", "create", "a", "--scope", "admin", "--network", "10.0.0.0/8", "--network", network],
                {},
                "--network must be a network like 10.0.0.0/8 or 2001:db8::/32.",
            )
            for network in ("10.0.0.1/8", "10.0.0.0/33", "localhost", "")
        ),
        (
            ["keys", "list"],
            {"DATA_DIR": "/dev/null/data"},
            "DATA_DIR cannot be created: /dev/null/data: Not a directory.",
        ),
        (
            ["keys", "list"],
            {"LOG_LEVEL": "s3cret"},
            "LOG_LEVEL is not valid: Input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'.",
        ),
        (
            ["migrate"],
            {"DATABASE_URL": "postgresql+asyncpg://u:s3cret@127.0.0.1:1/x"},
            "Postgres at 127.0.0.1:1 refuses the connection. Start it, or correct the host and port of DATABASE_URL.",
        ),
        (
            ["serve"],
            {"TENCENTCLOUD_SECRET_KEY": ""},
            "TENCENTCLOUD_SECRET_KEY is not set. It is required for calls to Tencent.",
        ),
        (["backfill", "no-such-file"], {}, "no-such-file: No such file or directory."),
        (
            ["simulate", "--scenario", "nope"],
            {},
            "Unknown scenario. Try passed, failed-2016, unfinished-2 or throttled-3.",
        ),
    ],
)
def test_expected_error_is_one_sentence_with_exit_code_2(
    here: Installation, arguments: Sequence[str], settings: dict[str, str], sentence: str
) -> None:
    done = here.run(*arguments, **settings)

    assert (done.code, done.out, done.err) == (2, "", f"faceid-results: {sentence}\n")


@pytest.mark.parametrize("command", ["serve", "simulate"])
def test_port_in_use_is_reported_in_one_sentence(here: Installation, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = here.run(command, "--port", str(port))

    sentence = f"Cannot listen on port {port} of 127.0.0.1: Address already in use. Try another --port."
    assert (done.code, done.out, done.err) == (2, "", f"faceid-results: {sentence}\n")


async def test_application_that_cannot_start_is_reported_in_one_sentence() -> None:
    async def fail(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})

    with listen("127.0.0.1", 0) as listener, pytest.raises(ConfigurationError, match="The service did not start"):
        async with serving(fail, listener):
            pytest.fail("it is not served")


def test_closed_output_pipe_prints_no_traceback(here: Installation) -> None:
    script = f"{COMMAND} keys list --json | true"
    done = subprocess.run(
        ["/bin/bash", "-c", script],
        cwd=here.folder,
        env=environment(here.folder, here.settings),
        capture_output=True,
        check=True,
    )

    assert done.stderr == b""


def test_serve_answers_over_a_socket_and_ends_on_sigterm(here: Installation) -> None:
    with here.serving("callbacks:write", "results:read") as (serving, api):
        accepted = api.post("/v1/callbacks", json={"BizToken": "passed-serve"})
        view = api.get("/v1/verifications/passed-serve", params={"wait": 20}).json()
        done = serving.end(signal.SIGTERM)

    assert accepted.status_code == 202
    assert (view["state"], view["outcome"]) == ("retrieved", "passed")
    assert done.code == 0
    assert json.loads(done.err.splitlines()[-1])["event"] == "worker_stopped"


def test_idle_connection_is_kept_for_the_configured_seconds(here: Installation) -> None:
    patient = replace(here, settings={**here.settings, "HTTP_KEEPALIVE_SECONDS": "1"})
    # The default is 75 s.
    with (
        patient.serving("results:read") as (_, api),
        socket.create_connection((api.base_url.host, api.base_url.port or 80)) as idle,
    ):
        idle.settimeout(BOUND_SECONDS)
        idle.sendall(b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n")
        received = b"".join(iter(lambda: idle.recv(1000), b""))

    assert received.startswith(b"HTTP/1.1 200")


def test_waiting_client_gets_the_current_state_when_the_service_stops(here: Installation) -> None:
    with here.serving("callbacks:write", "results:read") as (serving, api), ThreadPoolExecutor() as pool:
        api.post("/v1/callbacks", json={"BizToken": "unfinished-wait"})
        waiting = pool.submit(api.get, "/v1/verifications/unfinished-wait", params={"wait": 60})
        serving.until('"step": "PollAgain"', "err")
        done = serving.end(signal.SIGTERM)
        answer = waiting.result()

    assert (answer.status_code, answer.json()["state"]) == (200, "pending")
    assert done.code == 0


def test_installed_command_ends_on_sigterm_without_warnings(here: Installation) -> None:
    with subprocess.Popen(
        [COMMAND, "serve", "--port", "0"],
        cwd=here.folder,
        env=environment(here.folder, {**here.settings, "PYTHONWARNINGS": "error", "LOG_LEVEL": "ERROR"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        first_line = process.stdout.readline()
        process.terminate()
        _, errors = process.communicate(timeout=BOUND_SECONDS)

    assert first_line.startswith(b"Serving on http://127.0.0.1:")
    assert (process.returncode, errors) == (0, b"")


def test_without_a_worker_nothing_is_retrieved_until_one_starts(here: Installation) -> None:
    here.run("backfill", "-", stdin="passed-alone\n")
    with here.started("serve", "--port", "0", "--no-worker") as serving:
        url = serving.until("/docs").split()[2].rstrip(",")
        # Waits until the server is up.
        httpx.get(f"{url}/livez", trust_env=False, timeout=30)
        served = serving.end(signal.SIGINT)
    port = str(free_ports(["metrics"])["metrics"])
    with here.started("worker", "--metrics-port", port) as worker:
        worker.until('"step": "Store"', "err")
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        worked = worker.end(signal.SIGTERM)

    assert (served.code, served.err) == (130, "")
    assert (worked.code, worked.out) == (0, "")
    assert 'faceid_retrieval_steps_total{step="Store"} 1.0' in metrics


def test_ctrl_c_ends_a_worker_with_exit_code_130(here: Installation) -> None:
    with here.started("worker") as worker:
        worker.until("worker_started", "err")
        done = worker.end(signal.SIGINT)

    assert done.code == 130
    assert json.loads(done.err.splitlines()[-1])["event"] == "worker_stopped"


def test_second_sigterm_does_not_interrupt_the_cleanup() -> None:
    ends: list[str] = []

    async def work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(BOUND_SECONDS)
        finally:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0.05)
            ends.append("clean")

    assert run_until_stopped(work) == 0
    assert ends == ["clean"]


def test_operator_of_a_user_id_without_a_name_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(getpass, "getuser", fail)

    assert operator().caller.name == OPERATOR.name


def test_simulate_prints_the_settings_that_select_it(here: Installation) -> None:
    options = ["--port", "0", "--latency-ms", "1", "--video-bytes", "800000", "--requests-per-second", "0"]
    with here.started("simulate", *options) as simulator:
        settings = dict(line.split("=", 1) for line in simulator.until("SECRET_KEY").split())
        view = Installation(here.folder, {**settings, "FACEID_RULE_ID": "1"}).json("fetch", "passed-simulated")
        done = simulator.end(signal.SIGTERM)

    assert settings["TENCENTCLOUD_SECRET_ID"] == DEMO_CREDENTIALS.secret_id
    assert {item["kind"]: item["size_bytes"] for item in view["media"]}["liveness_video"] == 800_000
    assert (done.code, done.err) == (0, "")


def test_keys_are_created_listed_and_revoked(here: Installation) -> None:
    key = here.json("keys", "create", "shop", "--scope", "results:read", "--scope", "media:read")
    here.run("keys", "revoke", key["id"])
    (listed,) = json.loads(here.run("keys", "list", "--json").out)

    assert re.fullmatch(f"frk_{key['id']}_[0-9a-f]{{56}}", key.pop("key"))
    assert key == listed | {"revoked_at": None}
    assert (key["name"], key["client"], key["scopes"]) == ("shop", "default", ["media:read", "results:read"])
    assert listed["revoked_at"] is not None
    assert "revoked" in here.run("keys", "list").out


def test_sessions_are_listed_and_ended(here: Installation) -> None:
    nobody = here.run("sessions", "list")
    with here.serving("results:read") as (_, api):
        key = api.headers["Authorization"].removeprefix("Bearer ")
        signed_in = api.post("/admin/login", headers={"Sec-Fetch-Site": "same-origin"}, data={"key": key})
        cookies = {"Cookie": f"{COOKIE}={signed_in.cookies[COOKIE]}"}
        before = api.get("/admin", headers=cookies).status_code
        (listed,) = json.loads(here.run("sessions", "list", "--json").out)
        table = here.run("sessions", "list").out
        ended = here.run("sessions", "end", listed["holder"])
        after = api.get("/admin", headers=cookies).status_code
    again = here.run("sessions", "end", listed["holder"])

    assert (nobody.code, nobody.err) == (0, "faceid-results: No session is open.\n")
    assert (listed["name"], listed["client"], listed["holder"] in table) == ("shop", "default", True)
    assert (ended.code, ended.out) == (0, "1 sessions ended.\n")
    assert (before, after) == (200, 303)
    assert (again.code, again.err) == (2, "faceid-results: There are no sessions of this API key or person.\n")


def test_webhook_endpoints_are_created_tested_rotated_and_deleted(here: Installation) -> None:
    allowed = {"WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8"}
    refused = here.run("webhooks", "create", "http://127.0.0.1:1/hook")
    created = json.loads(here.run("webhooks", "create", "http://127.0.0.1:1/hook", "--json", **allowed).out)
    listed = json.loads(here.run("webhooks", "list", "--json").out)
    tested = here.run("webhooks", "test", created["id"], "--json", **allowed)
    rotated = here.run("webhooks", "rotate", created["id"], "--keep-for", "8d")
    shown = here.run("webhooks", "show", created["id"])
    replayed = here.run("webhooks", "replay", created["id"], "--which", "all", "--from", "2026-01-01", "--json")
    deleted = here.run("webhooks", "delete", created["id"])

    assert (refused.code, refused.err.count("WEBHOOK_ALLOWED_NETWORKS")) == (2, 1)
    assert listed == [{name: value for name, value in created.items() if name != "secret"} | {"url": None}]
    assert (tested.code, json.loads(tested.out)["error"]) == (1, "connect")
    assert (rotated.code, rotated.err) == (2, "faceid-results: --keep-for must be a span like 24h, at most 7d.\n")
    assert "http://127.0.0.1:1/hook" in shown.out
    assert (replayed.code, json.loads(replayed.out)["count"]) == (0, 0)
    assert (deleted.code, here.run("webhooks", "show", created["id"]).code) == (0, 2)


def test_key_with_networks_is_valid_there_and_only_proxies_are_trusted(here: Installation) -> None:
    networks = ["203.0.113.0/24", "2001:db8::/32"]
    key = here.json(
        "keys", "create", "far", "--scope", "results:read", *(part for each in networks for part in ("--network", each))
    )
    proxied = {"X-Forwarded-For": "203.0.113.7", "Authorization": f"Bearer {key['key']}"}
    statuses = {}
    for trusted in ("127.0.0.1", "192.0.2.1"):
        with replace(here, settings={**here.settings, "FORWARDED_ALLOW_IPS": trusted}).serving("admin") as (_, api):
            statuses[trusted] = [
                api.get("/v1/verifications", headers=headers).status_code
                for headers in (
                    proxied,
                    proxied | {"X-Forwarded-For": "198.51.100.7"},
                    proxied | {"X-Forwarded-For": ""},
                )
            ]

    assert statuses == {"127.0.0.1": [200, 401, 401], "192.0.2.1": [401, 401, 401]}
    assert key["networks"] == networks
    listing = here.run("keys", "list").out
    assert all(f"from {network}" in listing for network in networks)


def test_events_are_printed_once_and_followed(here: Installation) -> None:
    with here.serving("callbacks:write", "results:read", "results:erase") as (_, api):
        api.put("/v1/verifications/followed", json={"subject_ref": "loan-4711"})
        api.delete("/v1/verifications/followed")
        (event,) = api.get("/v1/events", params={"wait": BOUND_SECONDS}).json()["items"]
        printed, typed, behind = (
            here.run("events", *options).out
            for options in (["--json"], ["--types", "verification.failed, test"], ["--after", "1"])
        )
        with here.started("events", "--follow") as following:
            following.until("verification.erased")
            api.put("/v1/verifications/next")
            api.delete("/v1/verifications/next")
            lines = following.until(" next ").splitlines()
            ended = following.end(signal.SIGINT)
    unknown = here.run("events", "--types", "nonsense")

    assert [json.loads(line) for line in printed.splitlines()] == [{"position": 1} | event]
    assert (typed, behind) == ("", "")
    assert lines[0].split() == [
        *("1", event["timestamp"], "verification.erased", "default", "followed", "erased"),
    ]
    assert (len(lines), ended.code, ended.err) == (2, 130, "")
    assert (unknown.code, unknown.err.partition(",")[0]) == (
        2,
        "faceid-results: --types must be among verification.retrieved",
    )


@pytest.mark.parametrize(
    ("biz_token", "code", "state", "error"),
    [
        ("passed-fetch", 0, "retrieved", None),
        ("unfinished-fetch", 1, "pending", None),
        ("expired-fetch", 1, "expired", "InvalidParameterValue.BizTokenExpired"),
        ("error-UnauthorizedOperation.Arrears-x", 1, "pending", "UnauthorizedOperation.Arrears"),
    ],
)
def test_fetch_prints_the_result_of_one_call(
    here: Installation, biz_token: str, code: int, state: str, error: str | None
) -> None:
    done = here.run("fetch", biz_token, "--json")
    view = json.loads(done.out)

    assert (done.code, done.err) == (code, "")
    assert (view["state"], view["retrieval"]["last_error_code"], view["retrieval"]["attempts"]) == (state, error, 1)


def test_fetch_retrieves_a_known_token_again_and_prints_lines(here: Installation) -> None:
    here.run("fetch", "passed-twice")
    printed = here.run("fetch", "passed-twice").out

    assert re.search(r"^outcome +passed$", printed, re.MULTILINE)
    assert re.search(r"^retrieval.attempts +2$", printed, re.MULTILINE)
    assert re.search(r"^identity.id_card +0\*{16}.$", printed, re.MULTILINE)


def test_fetch_finds_the_client_of_a_token_or_takes_the_named_one(here: Installation) -> None:
    clients = [
        here.json("fetch", "passed-both", *options)["client"]
        for options in (["--client", "shop"], [], ["--client", "bank"], ["--client", "bank"])
    ]
    ambiguous = here.run("fetch", "passed-both")

    assert clients == ["shop", "shop", "bank", "bank"]
    assert (ambiguous.code, ambiguous.err) == (
        2,
        "faceid-results: Several clients have this token: name one of them with `client`.\n",
    )


def test_export_writes_files_that_only_this_user_can_read(here: Installation) -> None:
    here.run("backfill", "-", stdin="one\ntwo\n")
    begins = {"list.csv": b"\xef\xbb", "list.NDJSON": b'{"', "list.xlsx": b"PK"}
    (here.folder / "list.csv").write_text("older")

    for name, begin in begins.items():
        done = here.run("export", name, "--state", "pending", "--json")
        written = here.folder / name

        assert (done.code, json.loads(done.out)) == (0, {"file": name, "count": 2})
        assert written.stat().st_mode & 0o777 == 0o600
        assert written.read_bytes().startswith(begin)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["list.pdf"], "format must be 'csv', 'ndjson' or 'xlsx'."),
        (["list.csv", "--reveal"], "--reveal needs --purpose."),
        (["nowhere/list.csv"], "nowhere/.list.csv.part: No such file or directory."),
    ],
)
def test_export_that_is_not_possible_leaves_no_file(
    here: Installation, arguments: Sequence[str], sentence: str
) -> None:
    done = here.run("export", *arguments)

    assert (done.code, done.out, done.err) == (2, "", f"faceid-results: {sentence}\n")
    assert not list(here.folder.glob("*list*"))


TOKENS = """\
\ufeffbiz_token,created_at,subject_ref
backfill-1,2026-11-22T08:00:00Z,"loan, 1"
backfill-2,,

no token,,
backfill-3,2026-11-22 08:00:00,
backfill-1,,other
backfill-2,,
backfill-4,too,many,columns
"""


def test_backfill_reports_each_line_that_it_cannot_register(here: Installation) -> None:
    (here.folder / "tokens.csv").write_text(TOKENS)
    summary = here.json("backfill", "tokens.csv")
    again = here.run("backfill", "tokens.csv")

    assert summary == {
        "lines": 9,
        "new": 2,
        "known": 1,
        "conflicting": 1,
        "malformed": 3,
        "problems": [
            {"line": 5, "reason": f"biz_token {PATTERN_WORDS[BIZ_TOKEN_PATTERN]}"},
            {"line": 6, "reason": "created_at must be an instant with its time zone, like 2026-11-23T08:00:00Z"},
            {"line": 7, "reason": "The verification is already known with another subject_ref."},
            {"line": 9, "reason": "4 columns, but the header has 3"},
        ],
        "complete": True,
    }
    assert (again.code, again.out) == (1, "9 lines: 0 new, 3 known, 1 conflicting, 3 malformed.\n")
    assert again.err.startswith("line 5: biz_token must have 1 to 128 letters")


def test_backfilled_tokens_are_retrieved_immediately(here: Installation) -> None:
    tokens = [f"passed-due-{number}" for number in range(3)]
    done = here.run("backfill", "-", stdin="\n".join(tokens))
    with here.serving("results:read") as (_, api):
        views = [api.get(f"/v1/verifications/{token}", params={"wait": 20}).json() for token in tokens]

    assert (done.code, done.out) == (0, "3 lines: 3 new, 0 known, 0 conflicting, 0 malformed.\n")
    assert [view["state"] for view in views] == ["retrieved"] * 3


def test_stopped_backfill_reports_the_last_registered_line(here: Installation) -> None:
    os.mkfifo(pipe := here.folder / "pipe")
    with here.started("backfill", "-", "--json", stdin=pipe) as backfill, pipe.open("w") as tokens:
        tokens.writelines(f"stopped-{number}\n" for number in range(BATCH_LINES + 1))
        tokens.flush()
        here.await_rows(BATCH_LINES)
        done = backfill.end(signal.SIGINT)

    summary = json.loads(done.out)
    assert (summary["lines"], summary["new"], summary["complete"]) == (BATCH_LINES, BATCH_LINES, False)
    assert done.code == 130
    assert done.err.startswith(
        f"faceid-results: Stopped after line {BATCH_LINES}. The lines up to there are registered"
    )


@pytest.mark.parametrize(
    "text", ["token,rule\nx,1\n", "BizToken\nx\n", "biz_token,colour\nx,1\n", "biz_token,biz_token\nx,x\n"]
)
def test_backfill_with_unknown_columns_registers_nothing(here: Installation, text: str) -> None:
    done = here.run("backfill", "-", stdin=text)

    assert (done.code, done.out) == (2, "0 lines: 0 new, 0 known, 0 conflicting, 0 malformed.\n")
    assert "The first line must name the columns: biz_token, " in done.err


def test_binary_and_overlong_lines_are_malformed_without_other_effect(here: Installation) -> None:
    summary = here.json("backfill", "-", stdin=f"good-1\n{'x' * 10_000}\n\x00\r\x01\ngood-2")

    assert (summary["new"], [problem["line"] for problem in summary["problems"]]) == (2, [2, 3])


def test_backfilled_token_of_another_client_is_a_new_one(here: Installation) -> None:
    here.run("backfill", "-", stdin="mine\n")
    summary = here.json("backfill", "-", "--client", "other", stdin="mine\n")

    assert (summary["new"], summary["known"], summary["problems"]) == (1, 0, [])


def test_doctor_passes_a_working_installation(here: Installation) -> None:
    done = here.run("doctor", "--json")
    report = json.loads(done.out)

    assert (done.code, done.err, report["ok"]) == (0, "", True)
    checks = {check["check"]: check["status"] for check in report["checks"]}
    assert list(checks) == DOCTOR_CHECKS
    assert {checks[name] for name in list(checks)[:-1]} == {"ok"}


def test_doctor_names_the_failure_and_what_to_do(here: Installation) -> None:
    done = here.run("doctor", TENCENTCLOUD_SECRET_KEY="s3cret", COLUMNS="200")

    assert (done.code, done.err) == (1, "")
    assert "Check TENCENTCLOUD_SECRET_KEY: it does not belong to TENCENTCLOUD_SECRET_ID." in done.out
    assert "s3cret" not in done.out


def test_doctor_fails_with_exit_code_2_on_invalid_settings(here: Installation) -> None:
    (here.folder / "faceid-results.toml").write_text("junk = [")
    done = here.run("doctor")

    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1


def test_key_ring_is_created_once_and_readable_by_its_owner_only(here: Installation) -> None:
    path = here.folder / "ring.json"

    created = here.run("keyring", "new", KEYRING_FILE=str(path))
    again = here.run("keyring", "new", KEYRING_FILE=str(path))

    assert (created.code, path.stat().st_mode & 0o777) == (0, 0o600)
    assert str(path) in created.out
    assert (again.code, again.err) == (
        2,
        "faceid-results: KEYRING_FILE exists already and was not changed.\n",
    )


def test_rotated_ring_keeps_its_older_version_for_five_minutes(here: Installation) -> None:
    here.json("keys", "create", "shop", "--scope", "admin")

    before = json.loads(here.run("keyring", "status", "--json").out)
    rotated = here.run("keyring", "rotate", "identity")
    too_early = here.run("keyring", "rotate", "identity", "--destroy")
    nothing = here.run("keyring", "rotate", "index", "--destroy")
    after = json.loads(here.run("keyring", "status", "--json").out)

    assert [(row["ring"], row["version"], row["in_use"]) for row in before] == [
        ("identity", 1, 1),
        ("biometric", 1, 0),
        ("index", 1, 0),
        ("audit", 1, 0),
    ]
    assert (rotated.code, rotated.out.splitlines()) == (
        0,
        [
            "identity: version 2, 1 values encrypted again.",
            f"Copy {here.folder}/data/keyring.json again: earlier copies cannot decrypt new data.",
            "Keep each earlier copy as long as a backup of its time exists.",
        ],
    )
    assert (too_early.code, "within the last five minutes" in too_early.err) == (2, True)
    assert (nothing.code, nothing.out) == (0, "index: nothing to destroy.\n")
    assert [(row["ring"], row["version"], row["in_use"]) for row in after] == [
        ("identity", 1, 0),
        ("identity", 2, 1),
        ("biometric", 1, 0),
        ("index", 1, 0),
        ("audit", 1, 0),
    ]
    assert here.run("keyring", "status").out.count("identity") == 2


def test_audit_verify_exits_with_0_if_intact_and_1_if_changed(here: Installation) -> None:
    for name in ("one", "two"):
        here.json("keys", "create", name, "--scope", "admin")
    log = here.folder / "service.log"
    with here.started("serve", "--port", "0") as serving:
        log.write_text("not a seal\n" + serving.until("audit_sealed", "err"))

    intact = here.run("audit", "verify", "--seals", str(log))
    with closing(sqlite3.connect(here.folder / "data/faceid-results.db")) as database, database:
        database.execute("UPDATE audit SET who = 'somebody else' WHERE id = 1")
    changed = here.run("audit", "verify", "--json")

    assert (intact.code, intact.err) == (0, "")
    assert "2 rows are unchanged up to seal " in intact.out
    assert "0 rows are not sealed yet; 1 logged seals were compared." in intact.out
    finding = json.loads(changed.out)
    assert (changed.code, finding["ok"], finding["links"]) == (1, False, 0)
    assert finding["trouble"].startswith("Row 1, at position 1, was changed")
