"""The command line as shells and service managers use it: the real command, real signals, real sockets."""

import asyncio
import getpass
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from typer.main import get_group
from typer.testing import CliRunner

from app.cli import app
from app.cli.runtime import operator, run_until_stopped
from app.cli.server import listen, serving
from app.domain.api_key import OPERATOR
from app.domain.verification import BIZ_TOKEN_PATTERN
from app.errors import ConfigurationError
from app.routers.schemas import PATTERN_WORDS
from simulator.options import DEMO_CREDENTIALS
from tests.support.command import BOUND_SECONDS, environment
from tests.support.installation import Installation
from tests.support.servers import free_ports

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


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_every_command_has_examples(command: Sequence[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "80"})

    assert result.exit_code == 0
    assert f"faceid-results {' '.join(command)}" in result.output.partition("Examples:")[2]


def test_version_is_printed(here: Installation) -> None:
    done = here.run("--version")

    assert (done.code, done.out, done.err) == (0, f"faceid-results {version('faceid-results')}\n", "")


def test_machine_without_files_of_time_zones_runs_the_commands() -> None:
    done = subprocess.run(
        [COMMAND, "--version"], env=os.environ | {"PYTHONTZPATH": ""}, capture_output=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, b"")


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
