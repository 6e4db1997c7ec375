"""The supply chain: licences, locks, the report about known vulnerabilities, and the digests of images."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tools.audit import Audit, main
from tools.licences import PAGE, licence_of, locked, page

ROOT = Path(__file__).parents[1]


def answer(*packages: dict[str, Any]) -> str:
    """Returns what pip-audit writes about packages."""
    return json.dumps({"dependencies": packages, "fixes": []})


SAFE = {"name": "safe", "version": "1.0", "vulns": []}
OLD = {"name": "old", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"], "aliases": []}]}
UNKNOWN = {"name": "safe", "skip_reason": "Dependency not found on PyPI and could not be audited: safe (1.0)"}
OTHER = {"name": "other", "skip_reason": "Dependency not found on PyPI and could not be audited: other (1.0)"}
NOT_CHECKED = "NOT CHECKED: no advisory source was reachable. Run `make audit` where PyPI or OSV is."
CLEAN = "1 packages were checked. Known vulnerabilities: 0."


@pytest.mark.parametrize(
    ("answers", "code", "text"),
    [
        ([], 0, NOT_CHECKED),
        (["", '{"dependencies": ['], 0, NOT_CHECKED),
        ([answer(UNKNOWN)], 0, NOT_CHECKED),
        ([answer(SAFE)], 0, CLEAN),
        ([answer(UNKNOWN), answer(SAFE)], 0, CLEAN),
        ([answer(SAFE, OTHER)], 0, f"NOT CHECKED, unknown to every source: other.\n{CLEAN}"),
        (
            [answer(SAFE, OLD), ""],
            1,
            "old 1.0: PYSEC-1, fixed in 1.1\n2 packages were checked. Known vulnerabilities: 1.",
        ),
    ],
)
def test_audit_reports_vulnerable_and_unchecked_packages(answers: list[str], code: int, text: str) -> None:
    audit = Audit()
    for one in answers:
        audit.add(one)

    assert audit.report() == (code, text)


def test_source_without_an_answer_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "osv.json").write_text(answer(SAFE))

    assert main([str(tmp_path / "pypi.json"), str(tmp_path / "osv.json")]) == 0
    assert capsys.readouterr().out == f"{CLEAN}\n"


def test_licences_page_is_the_one_of_the_lock() -> None:
    assert PAGE.read_text() == page((ROOT / "requirements.txt").read_text())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("not-installed", "not-installed is not installed: add its licence to STATED."),
        ("codespell", "codespell has no accepted licence: 'GPL-2.0-only'. Read it, then add it to STATED or ACCEPTED."),
    ],
)
def test_package_without_an_accepted_licence_is_an_error(name: str, message: str) -> None:
    with pytest.raises(ValueError, match="licence") as error:
        licence_of(name)

    assert str(error.value) == message


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-audit.txt"])
def test_every_locked_requirement_has_hashes(name: str) -> None:
    text = (ROOT / name).read_text()
    blocks = [block for block in text.replace(" \\\n", " ").splitlines() if block and not block.startswith(" ")]

    assert [block for block in blocks if "--hash=sha256:" not in block] == []
    assert len(blocks) == len(locked(text)) > 0


def test_audited_lock_contains_every_runtime_requirement() -> None:
    audited = locked((ROOT / "requirements-dev.txt").read_text())

    assert locked((ROOT / "requirements.txt").read_text()).items() <= audited.items()


def test_image_contains_the_extra_for_the_single_sign_on() -> None:
    assert "joserfc" in locked((ROOT / "requirements.txt").read_text())
    assert "-r requirements.txt" in (ROOT / "Dockerfile").read_text()


TAGS = ["postgres:18-bookworm", "chrislusf/seaweedfs:4.48", "nginx:1.28-alpine", "python:3.13-slim-bookworm"]
TAGS += ["prom/prometheus:v3.13.2", "grafana/grafana:13.2.2"]
PINNED = re.compile(r"(?:image: |ARG PYTHON=)([a-z/]+:v?[0-9][0-9a-z.-]*)(@sha256:[0-9a-f]{64})?$", re.MULTILINE)


def pin_images(folder: Path, docker: str) -> subprocess.CompletedProcess[str]:
    """Runs the script on copies of the files, with a `docker` that is a shell script."""
    (folder / "deploy").mkdir(exist_ok=True)
    for name in ("docker-compose.yml", "Dockerfile", "deploy/pin-images.sh"):
        if not (folder / name).exists():
            shutil.copy(ROOT / name, folder / name)
    (folder / "docker").write_text(f"#!/bin/sh\n{docker}\n")
    (folder / "docker").chmod(0o755)
    return subprocess.run(
        [folder / "deploy/pin-images.sh"],
        env={"PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


def tags_only(folder: Path) -> list[str]:
    """Returns the content of both files without digests."""
    return [re.sub(r"@sha256:\w{64}", "", (folder / name).read_text()) for name in ("docker-compose.yml", "Dockerfile")]


def pinned(folder: Path) -> list[tuple[str, str]]:
    """Returns the tag and digest of each third-party image."""
    return PINNED.findall((folder / "docker-compose.yml").read_text() + (folder / "Dockerfile").read_text())


def test_images_are_pinned_to_their_digests_again_and_again(tmp_path: Path) -> None:
    for digest in (f"sha256:{digit * 64}" for digit in "ab"):
        assert pin_images(tmp_path, f"echo {digest}").stderr == ""
        assert set(pinned(tmp_path)) == {(tag, f"@{digest}") for tag in TAGS}

    assert tags_only(tmp_path) == tags_only(ROOT)


@pytest.mark.parametrize(
    "docker", ["exit 1", "echo unknown", 'case "$*" in *nginx*) exit 1;; esac; echo sha256:' + "a" * 64]
)
def test_unknown_digest_changes_no_file(tmp_path: Path, docker: str) -> None:
    result = pin_images(tmp_path, docker)

    assert result.returncode == 1
    assert "cannot be read. Nothing was changed." in result.stderr
    assert [(tmp_path / name).read_text() for name in ("docker-compose.yml", "Dockerfile")] == [
        (ROOT / name).read_text() for name in ("docker-compose.yml", "Dockerfile")
    ]
