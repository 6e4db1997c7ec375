"""The pages of the documentation: complete tables, links that lead somewhere, and two languages that say the same."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.config import Settings
from app.main import create_app
from app.routers.problem_types import CODES
from tests.support.service import SETTING_NAMES

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
CHINESE = [page for page in PAGES if page.name.endswith(".zh-CN.md")]
IN_BOTH = (
    "README",
    *(
        f"docs/{name}"
        for name in ["api", "console", "errors", "integrating", "operating", "security", "settings", "walk", "webhooks"]
    ),
)
BLOCK = re.compile(r"^```\w*\n.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`|\]\([^)]*\)|https?://\S+")
# In the file only, and described below the table.
TABLES = {"accounts", "callbacks", "oidc_roles", "rules"}
# Read by the server, not by the settings.
OF_THE_SERVER = {"FORWARDED_ALLOW_IPS"}


def english_of(page: Path) -> Path:
    return page.with_name(page.name.replace(".zh-CN", ""))


def cells(page: Path) -> Iterator[list[str]]:
    """Yields the cells of all rows of all tables, without the heads."""
    for line in page.read_text().splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def slugs(page: Path) -> set[str]:
    """Returns the anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_that_should_be_in_both_languages_is() -> None:
    names = {str(page.relative_to(ROOT)).removesuffix(".zh-CN.md") for page in CHINESE}

    assert names == set(IN_BOTH)
    for page in CHINESE:
        assert f"[English]({english_of(page).name})" in page.read_text()
        assert f"[中文]({page.name})" in english_of(page).read_text()


@pytest.mark.parametrize("page", CHINESE, ids=lambda page: page.name)
def test_code_blocks_are_the_same_in_both_languages(page: Path) -> None:
    assert BLOCK.findall(page.read_text()) == BLOCK.findall(english_of(page).read_text())


def test_threats_are_shown_by_the_same_tests_in_both_languages() -> None:
    shown = [
        re.findall(r"`(tests/[^`]+|make [^`]+)`", row)
        for page in ("security.md", "security.zh-CN.md")
        for row in re.findall(r"^\|.*`(?:tests/|make ).*\|$", (ROOT / "docs" / page).read_text(), re.MULTILINE)
    ]
    half = len(shown) // 2

    assert half > 0
    assert shown[:half] == shown[half:]
    assert {path for row in shown for path in row if path.startswith("tests/") and not (ROOT / path).exists()} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", page.read_text())):
        if not target.startswith(("http", "#")):
            path, _, anchor = target.partition("#")
            assert (page.parent / path).exists(), target
            assert not anchor or anchor in slugs(page.parent / path), target


@pytest.mark.parametrize("name", ["settings.md", "settings.zh-CN.md"])
def test_table_of_settings_is_complete(name: str) -> None:
    named = [setting for row in cells(ROOT / "docs" / name) for setting in re.findall("`([A-Z_]+)`", row[0])]

    assert len(named) == len(set(named))
    assert set(named) - OF_THE_SERVER == {setting.upper() for setting in SETTING_NAMES - TABLES}


@pytest.mark.parametrize("name", ["api.md", "api.zh-CN.md"])
def test_table_of_calls_is_complete(name: str) -> None:
    documented = {
        path.partition("?")[0] for row in cells(ROOT / "docs" / name) for path in re.findall("(/[a-z][^`&… ]*)", row[0])
    }
    # Written as `…/{id}` behind the path before it.
    shortened = {"/v1/webhook-endpoints/{endpoint_id}"}
    paths = set(create_app(Settings.default()).openapi()["paths"])
    spelt = {re.sub(r"\{(endpoint|delivery)_id\}", "{id}", path) for path in paths - shortened}

    assert spelt - documented == set()


@pytest.mark.parametrize("name", ["settings", "api"])
def test_tables_have_the_same_rows_and_values_in_both_languages(name: str) -> None:
    english, chinese = (list(cells(ROOT / "docs" / f"{name}{suffix}.md")) for suffix in ("", ".zh-CN"))

    assert [row[0] for row in chinese] == [row[0] for row in english]
    if name == "settings":
        values = [[re.findall("`[^`]*`", row[1]) for row in rows] for rows in (english, chinese)]
        assert [sorted(row) for row in values[0]] == [sorted(row) for row in values[1]]


def test_chinese_table_has_every_error_code() -> None:
    rows = [(row[0].strip("`"), row[1]) for row in cells(ROOT / "docs/errors.zh-CN.md")]

    assert rows == [(known.code, known.status) for known in CODES]


@pytest.mark.parametrize("page", CHINESE, ids=lambda page: page.name)
def test_chinese_pages_are_set_as_the_glossary_says(page: Path) -> None:
    text = CODE.sub("`", BLOCK.sub("", page.read_text()))
    half_width = re.findall(r"[一-鿿][,;:!?()].?|[,;:!?()][一-鿿]", text)
    no_space = re.findall(r".?[一-鿿][A-Za-z0-9].?|.?[A-Za-z0-9%][一-鿿].?", text)
    # A browser shows a line break as a space.
    broken = re.findall(r"[一-鿿，。、；：]\n[^\n|#\-\d!\[`]", text)

    assert (half_width, no_space, broken) == ([], [], [])
