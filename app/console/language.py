"""The two languages of the console. Message ids are English sentences, so English needs no catalogue."""

import gettext
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markupsafe import Markup
from starlette.requests import Request

PARAMETER = "lang"
COOKIE = "__Host-lang"
LOCALES = Path(__file__).parent / "locale"
DOMAIN = "console"
_MAX_LANGUAGES = 20


@dataclass(frozen=True, slots=True)
class Language:
    """One language: its code, its name in itself, and the value of the attribute `lang`."""

    code: str
    name: str
    tag: str

    def text(self, message: str, **values: object) -> Markup:
        """Translates a sentence and fills in the values, which are escaped. A percent sign is written twice."""
        return Markup(translated(self.code, message)) % values

    def plural(self, one: str, many: str, count: int, **values: object) -> Markup:
        """Like `text`, with the form for `count`, which is a value as well."""
        return Markup(translated_plural(self.code, one, many, count)) % ({"count": count} | values)


CHINESE = Language("zh", "中文", "zh-CN")
ENGLISH = Language("en", "English", "en")
LANGUAGES: Mapping[str, Language] = {each.code: each for each in (CHINESE, ENGLISH)}


def marked(message: str) -> str:
    """Marks a sentence for the catalogue and returns it. It is translated where it is shown."""
    return message


def translated(code: str, message: str) -> str:
    """Returns a message of the catalogue, which is our own text and safe as markup."""
    return _catalogue(code).gettext(message)


def translated_plural(code: str, one: str, many: str, count: int) -> str:
    """Like `translated`, with the form for a count."""
    return _catalogue(code).ngettext(one, many, count)


@cache
def _catalogue(code: str) -> gettext.NullTranslations:
    return gettext.translation(DOMAIN, LOCALES, [code], fallback=code == ENGLISH.code)


def language_of(request: Request) -> Language:
    """Returns the language of a request.

    The first of these that names one: the switch in the query, the cookie, the browser. Otherwise it is Chinese.
    """
    for code in (request.query_params.get(PARAMETER), request.cookies.get(COOKIE)):
        if known := LANGUAGES.get(code or ""):
            return known
    return _accepted(request.headers.get("Accept-Language", "")) or CHINESE


def _accepted(header: str) -> Language | None:
    """Returns the language that a browser prefers. Browsers list theirs in the order of preference."""
    for each in header.lower().split(",")[:_MAX_LANGUAGES]:
        code = each.partition(";")[0].strip().partition("-")[0]
        if code in LANGUAGES:
            return LANGUAGES[code]
    return None
