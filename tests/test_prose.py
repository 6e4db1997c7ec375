"""Writing rules: each finds its bad example, and accepts the good one."""

from pathlib import Path

import pytest

from tools.prose import MAX_SENTENCE_WORDS, check, main

BAD = [
    (1, "Whoever is late waits."),
    (1, "The row is locked. What is due comes first."),
    (2, "The endpoint is public, so that it only wakes tokens."),
    (3, "The key is none of ours."),
    (3, "It is nothing but a hint."),
    (4, "The log tells the reason."),
    (4, "The service takes\nin callbacks."),
    (4, "The list gave out a cursor."),
    (4, "The operator looks after it."),
    (4, "The year is over."),
    (4, "One secret stands for one client."),
    (5, " ".join(["Word"] * (MAX_SENTENCE_WORDS + 1)) + "."),
    (5, "The key is new: it opens two things: text and media."),
    (6, "A picture in place of a video."),
    (6, "The index is built anew."),
    (10, "Tencent forgets the result."),
    (10, "The row comes due by itself."),
]
GOOD = [
    "What is due?",
    "The lock queues writers so that none fails.",
    "The log shows the reason, and the service accepts callbacks.",
    "The row is due again when its lease ends. `whoever` is code.",
    "## What is not covered",
    "- [What the operator must do](docs/whatever.md)",
    "<!-- prose: off -->Whoever comes\n\nis late.<!-- prose: on -->",
    "```sh\nmake anew\n```",
    "| state | meaning: the state |\n|---|---|\n| a: b | c: d |",
]


def _numbers(path: Path, text: str) -> list[int]:
    path.write_text(text)
    return [finding.number for finding in check(path)]


@pytest.mark.parametrize(("number", "text"), BAD)
def test_bad_example_is_found_in_markdown_comments_and_docstrings(tmp_path: Path, number: int, text: str) -> None:
    comment = "".join(f"# {line}\n" for line in text.splitlines())

    assert _numbers(tmp_path / "page.md", text) == [number]
    assert _numbers(tmp_path / "file.yml", f"key: value\n{comment}") == [number]
    assert _numbers(tmp_path / "module.py", comment) == [number]
    assert _numbers(tmp_path / "module.py", f'"""{text}"""\n') == [number]
    assert _numbers(tmp_path / "module.py", f"raise ValueError({text!r})\n") == [number]


@pytest.mark.parametrize("text", GOOD)
def test_good_example_is_accepted(tmp_path: Path, text: str) -> None:
    assert _numbers(tmp_path / "page.md", text) == []


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (5, 'def name() -> str:\n    """The name."""\n'),
        (8, f"def test_{'x' * 80}() -> None: ...\n"),
        (9, "x = 1  # the reason why this value was chosen\n"),
    ],
)
def test_bad_form_of_code_is_found(tmp_path: Path, number: int, code: str) -> None:
    assert _numbers(tmp_path / "test_module.py" if number == 8 else tmp_path / "module.py", code) == [number]


@pytest.mark.parametrize(
    "code",
    [
        'def name() -> str:\n    """Returns the name."""\n',
        'class A:\n    @property\n    def name(self) -> str:\n        """The name."""\n',
        'def f() -> None:\n    """Acts.\n\n    Args:\n        who: who acts.\n        id: its id: unique.\n    """\n',
        "x = 1  # in seconds\n",
        "# Why.\nx = '# whoever'\n",
    ],
)
def test_good_form_of_code_is_accepted(tmp_path: Path, code: str) -> None:
    assert _numbers(tmp_path / "module.py", code) == []


def test_findings_are_printed_with_their_line_and_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text("# Title\n\nFirst line,\nwhoever reads it.\n")

    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().out == f'{page}:4: rule 1: "whoever": name the noun\n'
    page.write_text("First line.\n")
    assert main([str(tmp_path)]) == 0
