"""Renders pages: the templates, what all of them can use, the frame around them, and the headers."""

import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import jinja2
import structlog
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from app.console import codes, words
from app.console.formats import Formats
from app.console.language import COOKIE, LANGUAGES, PARAMETER, Language, language_of
from app.console.language import marked as _
from app.domain.api_key import Actor, Caller, Scope
from app.domain.verification import Verification
from app.errors import ServiceError
from app.factory import Services

VERSION = version("faceid-results")
HOME = Path(__file__).parent
_STATIC = HOME / "static"
_HEADERS = {
    # `no-referrer` would make browsers send `Origin: null` with forms.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "X-Frame-Options": "DENY",
}
_YEAR_SECONDS = 365 * 86400
_COOKIE_SECONDS = _YEAR_SECONDS
_THEME, _THEME_COOKIE = "theme", "__Host-theme"
_THEMES = {"system": _("As the device"), "light": _("Light"), "dark": _("Dark")}
_ENVIRONMENT = jinja2.Environment(
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    loader=jinja2.FileSystemLoader(HOME / "templates"),
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
    extensions=["jinja2.ext.do"],
)


@dataclass(frozen=True, slots=True)
class NavigationItem:
    """An entry of the menu: its address, word and icon, the key that opens it after `g`, and the needed scope."""

    url: str
    word: str
    icon: str
    key: str
    scope: Scope


_NAVIGATION: Sequence[NavigationItem] = (
    NavigationItem("/admin", _("Overview"), "layout-dashboard", "o", Scope.RESULTS_READ),
    NavigationItem("/admin/verifications", _("Verifications"), "id", "v", Scope.RESULTS_READ),
    NavigationItem("/admin/webhook-endpoints", _("Webhooks"), "webhook", "w", Scope.WEBHOOKS_MANAGE),
    NavigationItem("/admin/events", _("Events"), "bell", "e", Scope.RESULTS_READ),
    NavigationItem("/admin/audit", _("Audit"), "history", "a", Scope.ADMIN),
    NavigationItem("/admin/keys", _("API keys"), "key", "k", Scope.ADMIN),
    NavigationItem("/admin/health", _("Health"), "activity", "h", Scope.ADMIN),
    NavigationItem("/admin/settings", _("Settings"), "settings", "s", Scope.ADMIN),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A choice as a link; `is_current` if the page has it now."""

    url: str
    word: str
    is_current: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """The result of a form: `done` confirms it, `problem` says why not. `detail` is the service's own sentence."""

    done: str | None = None
    problem: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The surroundings of a page: the menu, the visitor, the place of the page in the menu, languages and themes."""

    caller: Caller | None
    navigation: Sequence[NavigationItem]
    path: str
    languages: Sequence[tuple[Language, str]]
    theme: str
    themes: Sequence[Link]
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorPage:
    """An error in words. `detail` is the service's own sentence if there are no other words for it."""

    status: int
    word: str | None
    detail: str
    request_id: str


def page(
    request: Request,
    template: str,
    value: object,
    *,
    actor: Actor | None = None,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    place: str | None = None,
) -> Response:
    """Returns a page. The choice of a language or a theme in the query is remembered in a cookie.

    `place` is the address that shows the page in another language, if it is not the one of the request.
    """
    services: Services = request.app.state.services
    language = language_of(request)
    formats = Formats(language, ZoneInfo(services.settings.console.console_time_zone), services.clock())
    context = {
        "page": value,
        "frame": _frame(request, actor.caller if actor else None, place or request.url.path),
        "language": language,
        "f": formats,
        "_": language.text,
        "plural": language.plural,
        "viewer": actor.caller if actor else None,
    }
    html = _ENVIRONMENT.get_template(template).render(context)
    response = HTMLResponse(html, status, _HEADERS | {"Vary": "Accept-Language, Cookie"} | dict(headers or {}))
    for parameter, cookie, known in ((PARAMETER, COOKIE, LANGUAGES), (_THEME, _THEME_COOKIE, _THEMES)):
        if (chosen := request.query_params.get(parameter, "")) in known:
            response.set_cookie(cookie, chosen, max_age=_COOKIE_SECONDS, secure=True, httponly=True, samesite="lax")
    return response


def error_page(request: Request, error: ServiceError) -> Response:
    """Returns an error as a page."""
    value = ErrorPage(
        status=error.status,
        word=words.ERRORS.get(error.code),
        detail=error.detail,
        request_id=structlog.contextvars.get_contextvars().get("request_id", ""),
    )
    actor = getattr(request.state, "actor", None)
    place = None if request.method == "GET" else "/admin"
    return page(request, "error.html", value, actor=actor, status=error.status, headers=error.headers, place=place)


def href(verification: Verification, caller: Caller | None, **query: str) -> str:
    """Returns the address of a verification, with its client where the caller would get another one without it."""
    if caller and verification.client != caller.client:
        query = {"client": verification.client, **query}
    return with_query(f"/admin/verifications/{verification.biz_token}", **query)


def with_query(path: str, /, **query: str) -> str:
    """Returns a path with a query, without the empty values."""
    encoded = urlencode({name: value for name, value in query.items() if value})
    return f"{path}?{encoded}" if encoded else path


def static_url(name: str) -> str:
    """Returns the address of a static file. It contains the version of all of them."""
    return f"/admin/static/{_static_version()}/{name}"


def static_file(wanted_version: str, name: str) -> Response | None:
    """Returns a static file; None if there is none. Only its current version may be cached for long."""
    content = _static_files().get(name)
    if content is None:
        return None
    is_current = wanted_version == _static_version()
    caching = f"public, max-age={_YEAR_SECONDS}, immutable" if is_current else "no-store"
    content_type = mimetypes.guess_type(name)[0] or "text/plain"
    return Response(content, media_type=content_type, headers={"Cache-Control": caching})


@cache
def _static_files() -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(_STATIC.iterdir())}


@cache
def _static_version() -> str:
    digest = sha256()
    for name, content in _static_files().items():
        digest.update(name.encode() + b"\0" + content)
    return digest.hexdigest()[:12]


def _frame(request: Request, caller: Caller | None, place: str) -> Frame:
    query = {name: value for name, value in request.query_params.items() if name not in {PARAMETER, _THEME}}
    chosen = (request.query_params.get(_THEME), request.cookies.get(_THEME_COOKIE))
    theme = next((each for each in chosen if each in _THEMES), "system")
    return Frame(
        caller=caller,
        navigation=[item for item in _NAVIGATION if caller and caller.allows(item.scope)],
        path=request.url.path,
        languages=[(each, with_query(place, **query | {PARAMETER: each.code})) for each in LANGUAGES.values()],
        theme=theme,
        themes=[
            Link(url=with_query(place, **query | {_THEME: name}), word=word, is_current=name == theme)
            for name, word in _THEMES.items()
        ],
        version=VERSION,
    )


_ENVIRONMENT.globals.update(
    codes=codes,
    words=words,
    href=href,
    static=static_url,
    with_query=with_query,
)
