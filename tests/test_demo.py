"""The demo: the first thing that a stranger runs, in whatever environment."""

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from app.demo import run_demo
from app.faceid.signing import Credentials
from app.simulator.options import SimulatorOptions
from tests.support.command import run, started

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


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A home for a demo, with settings that are none; nothing may be left in its temporary folder."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "faceid-results.toml").write_text("junk = [")
    yield tmp_path
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_walk_succeeds_whatever_stands_in_the_environment_and_leaves_nothing(folder: Path) -> None:
    done = run("demo", "--once", folder=folder, TMPDIR=str(folder / "tmp"), **JUNK)

    assert (done.code, done.err) == (0, "")
    assert re.findall(r"^  \d\.  (.*)\n      (state \w+, outcome \w+)", done.out, re.MULTILINE) == [
        ("The person passed", "state retrieved, outcome passed"),
        ("The faces were not alike enough", "state retrieved, outcome failed"),
        ("The callback came too early; then passed", "state retrieved, outcome passed"),
        ("Tencent said: too many requests; then passed", "state retrieved, outcome passed"),
        ("Tencent's 72 hours were over", "state expired, outcome none"),
    ]
    assert "16 media files" in done.out
    assert [line for line in done.out.splitlines() if len(line) > 79 and str(folder) not in line] == []


def test_the_printed_lines_work_when_they_are_pasted_and_ctrl_c_removes_everything(folder: Path) -> None:
    with started("demo", folder=folder, stdin=None, TMPDIR=str(folder / "tmp"), **JUNK) as demo:
        told = demo.until("The service keeps running")
        script = told[told.index("URL=") : told.index("On your own account")]
        pasted = subprocess.run(
            ["/bin/bash", "-e"], input=script, cwd=folder, capture_output=True, text=True, check=True
        )
        done = demo.end(signal.SIGINT)

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


def test_sigterm_ends_it_as_well(folder: Path) -> None:
    with started("demo", folder=folder, stdin=None, TMPDIR=str(folder / "tmp")) as demo:
        demo.until("Five people are done")
        done = demo.end(signal.SIGTERM)

    assert (done.code, done.err) == (0, "")


async def test_what_is_missing_is_named_and_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    strangers = SimulatorOptions(credentials=(Credentials("AKIDOTHER", "other"),))

    code = await run_demo(Console(width=80), once=True, options=strangers, wait_seconds=1)

    assert code == 1
    assert "MISSING: The person passed: state is pending, not retrieved." in capsys.readouterr().out
