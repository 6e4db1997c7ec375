"""docs/security.md and docs/asvs.md: each claim names evidence, and the evidence exists."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# All requirements of levels 1 and 2 of OWASP ASVS 5.0.0.
REQUIREMENTS = """
1.1.1-2 1.2.1-9 1.3.1-11 1.4.1-3 1.5.1-2 2.1.1-3 2.2.1-3 2.3.1-4 2.4.1 3.2.1-2 3.3.1-4 3.4.1-6 3.5.1-5 3.7.1-2
4.1.1-3 4.2.1 4.3.1-2 4.4.1-4 5.1.1 5.2.1-3 5.3.1-2 5.4.1-3 6.1.1-3 6.2.1-12 6.3.1-4 6.4.1-4 6.5.1-5 6.6.1-3
6.8.1-4 7.1.1-3 7.2.1-4 7.3.1-2 7.4.1-5 7.5.1-2 7.6.1-2 8.1.1-2 8.2.1-3 8.3.1 8.4.1 9.1.1-3 9.2.1-4 10.1.1-2
10.2.1-2 10.3.1-4 10.4.1-11 10.5.1-5 10.6.1-2 10.7.1-3 11.1.1-2 11.2.1-3 11.3.1-3 11.4.1-4 11.5.1 11.6.1 12.1.1-3
12.2.1-2 12.3.1-4 13.1.1 13.2.1-5 13.3.1-2 13.4.1-5 14.1.1-2 14.2.1-4 14.3.1-3 15.1.1-3 15.2.1-3 15.3.1-7 16.1.1
16.2.1-5 16.3.1-4 16.4.1-3 16.5.1-3 17.1.1 17.2.1-4 17.3.1-2
"""
STATUSES = {"met", "partly", "operator", "gap", "n/a"}


def table(page: str, columns: str) -> list[list[str]]:
    """Returns the cells of all tables of a page that have these columns."""
    rows: list[list[str]] = []
    is_wanted = False
    for line in (ROOT / "docs" / page).read_text().splitlines():
        if not line.startswith("|"):
            is_wanted = False
        elif line == columns:
            is_wanted = True
        elif is_wanted and not line.startswith("|---"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def evidence(cell: str) -> list[str]:
    """Returns the files and make targets that a cell names."""
    return [name for name in re.findall(r"`([^`\s]+|make [a-z-]+)`", cell) if "/" in name or "." in name or " " in name]


def is_there(name: str) -> bool:
    if name.startswith("make "):
        return f"\n{name.removeprefix('make ')}:" in (ROOT / "Makefile").read_text()
    return (ROOT / name).is_file()


def requirements(text: str) -> Iterator[str]:
    """Yields each requirement of a list with ranges, like "1.2.1-3"."""
    for section, first, last in re.findall(r"(\d+\.\d+)\.(\d+)(?:-(\d+))?", text):
        yield from (f"{section}.{number}" for number in range(int(first), int(last or first) + 1))


THREATS = table("security.md", "| threat | protection | shown by |")
ASSESSMENT = table("asvs.md", "| requirement | status | evidence |")


@pytest.mark.parametrize("threat", THREATS, ids=lambda row: row[0][:50])
def test_threat_names_tests_that_exist(threat: list[str]) -> None:
    _, _, shown_by = threat
    named = evidence(shown_by)

    assert [name for name in named if name.startswith(("tests/", "make "))] != []
    assert [name for name in named if not is_there(name)] == []


def test_tables_are_read() -> None:
    assert (len(THREATS) > 30, len(ASSESSMENT) > 100) == (True, True)


def test_each_asvs_requirement_is_assessed_once() -> None:
    assessed = sorted(one for row in ASSESSMENT for one in requirements(row[0]))

    assert assessed == sorted(requirements(REQUIREMENTS))
    assert len(assessed) == 253


def test_summary_names_each_gap() -> None:
    summary = (ROOT / "docs" / "asvs.md").read_text().partition("## Gaps in short")[2].partition("\n## ")[0]
    gaps = [one for row in ASSESSMENT if row[1] in {"partly", "gap"} for one in requirements(row[0])]

    assert sorted(requirements(summary)) == sorted(gaps)


@pytest.mark.parametrize("row", ASSESSMENT, ids=lambda row: row[0][:40])
def test_asvs_status_has_evidence_that_exists(row: list[str]) -> None:
    _, status, text = row
    # Paths of the API and names of headers are in code font, too.
    files = [name for name in evidence(text) if not name.startswith("/") and re.search(r"[/.]", name)]

    assert status in STATUSES
    assert [name for name in files if not is_there(name)] == []
    assert files or status not in {"met", "partly"}
    assert text


@pytest.mark.parametrize("page", ["asvs.md", "security.md"])
def test_links_of_the_page_lead_to_files(page: str) -> None:
    links = re.findall(r"\]\((?!https://)([^)#]+)\)", (ROOT / "docs" / page).read_text())

    assert links != []
    assert [link for link in links if not (ROOT / "docs" / link).is_file()] == []
