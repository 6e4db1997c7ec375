"""The files of the console: vendored ones are unchanged, templates have nothing inline, texts are translated."""

import hashlib
import io
import re
from pathlib import Path

import pytest
from babel.messages.mofile import write_mo

from app.console import codes, words
from app.console.language import ENGLISH
from app.console.rendering import HOME, static_url
from app.domain.audit import Action
from app.domain.deliveries import DeliveryState, Fault, ReplayKind
from app.domain.detection import Outcome
from app.domain.events import EventType
from app.domain.media import MediaKind
from app.domain.verification import State
from app.domain.webhook_endpoint import EndpointState
from app.faceid import error_codes
from tests.console.conftest import Console
from tests.support.console import browser
from tools import messages

TEMPLATES = sorted((HOME / "templates").glob("*.html"))
STATIC = HOME / "static"
HTMX = "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130"
FORBIDDEN = re.compile(r"<style|\sstyle=|\son[a-z]+=|javascript:|hx-on|js:|\|\s*safe|hx-trigger=\"[^\"]*\[")


def test_htmx_is_the_published_file() -> None:
    assert hashlib.sha256((STATIC / "htmx-4.0.1.min.js").read_bytes()).hexdigest() == HTMX
    assert {"htmx-licence.txt", "icons-licence.txt"} <= {path.name for path in STATIC.iterdir()}


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_template_has_no_inline_script_or_style(template: Path) -> None:
    assert FORBIDDEN.findall(template.read_text()) == []


def test_every_icon_that_is_used_is_in_the_sprite() -> None:
    known = set(re.findall(r'<symbol id="([^"]+)"', (STATIC / "icons.svg").read_text()))
    python = "".join(path.read_text() for path in HOME.glob("*.py"))
    used = {name for path in TEMPLATES for name in re.findall(r'icon\("([a-z-]+)"', path.read_text())}
    used |= set(re.findall(r'icon="([a-z-]+)"', python)) | set(words.ACTION_ICONS.values())

    assert used - known == set()


def test_all_texts_are_translated_and_keep_their_placeholders() -> None:
    assert messages.problems(messages.read()) == []


def test_compiled_catalogue_is_that_of_the_texts() -> None:
    compiled = io.BytesIO()
    write_mo(compiled, messages.read())

    assert messages.COMPILED.read_bytes() == compiled.getvalue()


def test_every_value_of_the_domain_has_a_word() -> None:
    assert set(words.STATES) == set(words.STATE_TONES) == set(State)
    assert set(words.OUTCOMES) == set(words.OUTCOME_TONES) == set(Outcome)
    assert set(words.ACTIONS) == set(words.ACTION_ICONS) == set(Action)
    assert set(words.ENDPOINT_STATES) == set(words.ENDPOINT_TONES) == set(EndpointState)
    assert set(words.DELIVERY_STATES) == set(words.DELIVERY_TONES) == set(DeliveryState)
    assert (set(words.EVENTS), set(words.FAULTS)) == (set(EventType), set(Fault))
    assert set(words.REPLAYS) == set(ReplayKind)
    assert [words.media_word(kind)[0] for kind in MediaKind if not words.media_word(kind)[0]] == []


def test_every_known_error_code_has_advice_in_both_languages() -> None:
    assert [code for code in error_codes.KNOWN if codes.words_of_error(code) is None] == []


@pytest.mark.parametrize(
    ("code", "group", "has_text"),
    [
        (0, "System", True),
        (2016, "Comparison with the ID photo", True),
        (1105, "Liveness detection", True),
        (999, "Other", False),
    ],
)
def test_result_code_has_the_words_of_its_group(code: int, group: str, *, has_text: bool) -> None:
    meaning = codes.meaning_of_result(code)

    assert (meaning.group.of(ENGLISH), meaning.text is not None) == (group, has_text)


async def test_static_files_are_cached_for_ever_under_their_version(console: Console) -> None:
    async with browser(console.service) as client:
        current = await client.get(static_url("console.css"))
        old = await client.get("/admin/static/000000000000/console.css")
        missing = [await client.get(f"/admin/static/x/{name}") for name in ("nothing.css", "..%2Frendering.py")]

    assert (current.headers["Content-Type"], current.headers["Cache-Control"]) == (
        "text/css; charset=utf-8",
        "public, max-age=31536000, immutable",
    )
    assert (old.status_code, old.headers["Cache-Control"]) == (200, "no-store")
    assert [answer.status_code for answer in missing] == [404, 404]
