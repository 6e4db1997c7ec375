"""Shell blocks of the documentation can be pasted into the interactive shells that people use."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.command import started

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
SHELLS = ["bash", "zsh"]
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


def blocks(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_contain_nothing_that_an_interactive_shell_reads_differently(page: Path) -> None:
    # An interactive zsh knows no comments and rejects patterns without a match. `!` recalls a command from the history.
    suspicious = re.compile(r"(^|\s)#|[!?*\[]")
    lines = [line for block in blocks(page) for line in block.splitlines()]

    assert [line for line in lines if suspicious.search(QUOTED.sub("", line)) or "!" in line] == []


@pytest.mark.parametrize("shell", SHELLS)
def test_first_results_of_the_readme_can_be_pasted(tmp_path: Path, shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    readme = (ROOT / "README.md").read_text()
    section = readme[readme.index("## Get a first result") : readme.index("## Run it")]
    with started("demo", "--days", "0", folder=tmp_path, stdin=None) as demo:
        printed = demo.until("The service keeps running")
        variables = printed[printed.index("URL=") : printed.index("curl")]
        pasted = subprocess.run(
            [program, "-i"],
            input="\n".join([variables, *BLOCK.findall(section), "exit", ""]),
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TERM": "dumb"},
            capture_output=True,
            text=True,
            check=True,
        )

    # A shell may print prompts and what it reads, too.
    answers = [json.loads(answer) for answer in re.findall(r"{\".*}", pasted.stdout) if "$AUTH" not in answer]
    assert re.findall("not found|no match|event", pasted.stderr) == []
    assert re.findall(r"^20\d$", pasted.stdout, re.MULTILINE) == ["200", "206", "204"]
    assert [answer.get("state", sorted(answer)[:2]) for answer in answers] == [
        *(
            "pending",
            "retrieved",
            "pending",
            ["items", "next_cursor"],
            ["biz_token", "callback_extra"],
            "retrieved",
            "retrieved",
        )
    ]
    assert answers[-1]["retrieval"]["attempts"] == 2
