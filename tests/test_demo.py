"""The demo must work in any environment: it is the first thing that a new user runs."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from app.cli.demo import run_demo
from simulator.authentication import KeyPair
from simulator.options import DEMO_CREDENTIALS, SimulatorOptions
from tests.support.command import environment, run, started
from tests.support.simulator import LiveSimulator

ROOT = Path(__file__).parents[1]

JUNK = {
    "DATABASE_URL": "nonsense://",
    "MEDIA_URL": "ftp://nowhere",
    "DATA_DIR": "/dev/null",
    "FACEID_ENDPOINT": "nowhere.invalid",
    "FACEID_TIMEOUT_SECONDS": "soon",
    "FACEID_REQUESTS_PER_SECOND": "many",
    "TENCENTCLOUD_TOKEN": "token",
    "AWS_ENDPOINT_URL": "x",
    "LOG_LEVEL": "loud",
    "WEB_CONCURRENCY": "many",
    "HTTP_PROXY": "http://127.0.0.1:1",
}

TITLES = [
    "The person passed",
    "The person failed: the faces are not similar enough",
    "The callback came too early, then the person passed",
    "Rate limit exceeded at first, then the person passed",
    "Tencent no longer has the result",
]
ENDS = [
    "state retrieved, outcome passed",
    "state retrieved, outcome failed",
    "state retrieved, outcome passed",
    "state retrieved, outcome passed",
    "state expired, outcome none",
]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A working directory with an invalid settings file. The demo must leave its temporary folder empty."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "faceid-results.toml").write_text("junk = [")
    yield tmp_path
    assert list((tmp_path / "tmp").iterdir()) == []


def test_demo_ignores_the_environment_and_leaves_no_files(folder: Path) -> None:
    done = run("demo", "--once", folder=folder, TMPDIR=str(folder / "tmp"), **JUNK)

    assert (done.code, done.err) == (0, "")
    assert re.findall(r"^  \d\.  (.*)\n      (state \w+, outcome \w+)", done.out, re.MULTILINE) == list(
        zip(TITLES, ENDS, strict=True)
    )
    assert re.search(
        r"^  Webhook received and its signature verified: verification.retrieved,\n"
        r"      state retrieved, outcome passed, evt_[0-9a-f]{32}$",
        done.out,
        re.MULTILINE,
    )
    assert "16 media files" in done.out
    # Nothing refers to the service or the files, which are gone.
    assert re.findall(r"https?://|faceid-results-demo-", done.out) == []
    assert [line for line in done.out.splitlines() if len(line) > 79 and str(folder) not in line] == []


def test_printed_shell_lines_work_and_ctrl_c_removes_everything(folder: Path) -> None:
    with started("demo", "--days", "0", folder=folder, stdin=None, TMPDIR=str(folder / "tmp"), **JUNK) as demo:
        printed = demo.until("The service keeps running")
        script = printed[printed.index("URL=") : printed.index("On your own account")]
        pasted = subprocess.run(
            ["/bin/bash", "-e"], input=script, cwd=folder, capture_output=True, text=True, check=True
        )
        done = demo.end(signal.SIGINT)

    assert re.match(r"\nThe console: http://127\.0\.0\.1:\d+/admin\nSign in with frk_\w+\n", printed)
    answers = pasted.stdout.splitlines()
    assert len(answers) == 5
    assert [re.findall('"outcome":"([a-z]+)"', answer) for answer in answers] == [
        ["passed"],
        ["failed"],
        [],
        [],
        ["passed"],
    ]
    assert '"id_card":"000000' in answers[2]
    assert (folder / "video.mp4").read_bytes()[4:8] == b"ftyp"
    assert (done.code, done.err) == (130, "")


def test_sigterm_ends_a_demo_with_history_with_exit_code_0(folder: Path) -> None:
    history = ("--days", "1", "--at", "2026-11-26T08:12:00")
    with started("demo", *history, folder=folder, stdin=None, TMPDIR=str(folder / "tmp")) as demo:
        printed = demo.until("Five people have finished")
        done = demo.end(signal.SIGTERM)

    assert "Creating the history of invented people, days: 1." in printed
    assert (done.code, done.err) == (0, "")


async def test_unexpected_end_is_printed_and_fails_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    strangers = SimulatorOptions(credentials=(KeyPair("AKIDOTHER", "other"),))

    code = await run_demo(Console(width=80), once=True, options=strangers, wait_seconds=1)

    assert code == 1
    printed = capsys.readouterr().out
    assert "MISSING: The person passed: state is pending, not retrieved." in printed
    assert "MISSING: The webhook about the person who passed did not arrive." in printed


def test_walk_of_the_compose_file_succeeds_on_a_deployed_service(tmp_path: Path, faceid: LiveSimulator) -> None:
    settings = {
        "FACEID_ENDPOINT": faceid.url,
        "FACEID_RULE_ID": "1",
        "TENCENTCLOUD_SECRET_ID": DEMO_CREDENTIALS.secret_id,
        "TENCENTCLOUD_SECRET_KEY": DEMO_CREDENTIALS.secret_key,
    }
    with started("serve", "--port", "0", folder=tmp_path, stdin=None, **settings) as serving:
        url = serving.until("/docs").split()[2].rstrip(",")
        walked = subprocess.run(
            [sys.executable, str(ROOT / "deploy" / "demo.py"), url, "http://outside.test"],
            cwd=tmp_path,
            env=environment(tmp_path, {**settings, "PYTHONPATH": str(ROOT)}),
            capture_output=True,
            text=True,
            check=False,
        )

    assert (walked.returncode, walked.stderr) == (0, "")
    assert re.findall(r"^      (state \w+, outcome \w+)", walked.stdout, re.MULTILINE) == ENDS
    *_, title, key, _, curl, _, last = walked.stdout.splitlines()
    assert title == "The service runs on http://outside.test and is described on http://outside.test/docs."
    assert re.fullmatch(r"API key: frk_\S+", key)
    assert curl.startswith(f'curl -H "Authorization: Bearer {key.removeprefix("API key: ")}" http://outside.test/v1/')
    assert last.startswith("Press Ctrl-C to stop.")
