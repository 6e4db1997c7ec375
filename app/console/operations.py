"""Health in words, the settings without secrets, and the static files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from fastapi import APIRouter, Response
from pydantic import BaseModel, SecretStr

from app.console import rendering
from app.console.overview import Attention, attention_of
from app.console.visits import PageRoute, SignedInVisit
from app.domain.api_key import Scope
from app.errors import NotFoundError
from app.services.health import Condition
from app.services.visibility import require_scope

router = APIRouter(route_class=PageRoute, include_in_schema=False)

# Their values are shown. All other settings may be secret, so only whether they are set is shown.
_PLAIN = (bool, int, float)
_READABLE = {
    *("faceid_endpoint", "faceid_rule_id", "faceid_info_type", "faceid_ca_file", "data_dir", "media_url", "spool_dir"),
    *("keyring_file", "aws_region", "aws_endpoint_url", "redirect_page_url", "log_level", "database_service_role"),
    *("rate_intake", "rate_retrieve", "rate_lists", "rate_searches", "rate_reveals", "rate_media", "console_time_zone"),
    *("oidc_issuer", "oidc_scopes", "oidc_admin_claim", "oidc_admin_values", "oidc_ca_file", "public_url"),
}
_MAX_SHOWN = 40
_TABLES = {"rules", "accounts", "callbacks", "oidc_roles"}


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthPage:
    """The condition of the service, and what needs a person."""

    condition: Condition
    attention: Sequence[Attention]
    accounts: Sequence[tuple[str, float]]
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A setting as users write it. `value` is None if it is not shown; `is_set` says whether there is one."""

    name: str
    value: str | None
    is_set: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsPage:
    """The settings by part, and the tables of rules and accounts."""

    slices: Sequence[tuple[str, Sequence[Setting]]]
    tables: Mapping[str, Sequence[tuple[str, Sequence[Setting]]]]


@router.get("/admin/health")
async def show_health(visit: SignedInVisit) -> Response:
    """Shows the health. If the database does not answer, the page of the error says so."""
    services = visit.services
    condition = await services.health.report(visit.actor)
    accounts = services.settings.faceid.all_accounts.items()
    page = HealthPage(
        condition=condition,
        attention=list(attention_of(condition)),
        accounts=[(name, account.requests_per_second) for name, account in accounts],
        place=services.database.place,
    )
    return visit.page("health.html", page)


@router.get("/admin/settings")
async def show_settings(visit: SignedInVisit) -> Response:
    """Shows the settings that are in effect."""
    require_scope(visit.actor.caller, Scope.ADMIN)
    settings = visit.services.settings
    parts = [(field.name, getattr(settings, field.name)) for field in fields(settings)]
    seen: set[str] = set()
    slices, tables = [], {}
    for name, part in parts:
        own = [
            setting for setting in _settings(part) if setting.name not in seen and setting.name.lower() not in _TABLES
        ]
        seen |= {setting.name for setting in own}
        slices.append((name, own))
        for table in _TABLES & set(type(part).model_fields):
            tables[table] = [(key, _settings(entry)) for key, entry in getattr(part, table).items()]
    return visit.page("settings.html", SettingsPage(slices=slices, tables=tables))


@router.get("/admin/static/{version}/{name}")
async def static(version: str, name: str) -> Response:
    """Returns a style sheet, a script or a picture of the console."""
    found = rendering.static_file(version, name)
    if found is None:
        raise NotFoundError("There is no such file.", code="no_page")
    return found


@router.get("/admin/{path:path}")
async def missing(path: str) -> Response:
    """Answers every other address."""
    raise NotFoundError(f"There is no page {path[:_MAX_SHOWN]}.", code="no_page")


def _settings(part: BaseModel) -> Sequence[Setting]:
    return [_setting(name, getattr(part, name)) for name in type(part).model_fields]


def _setting(name: str, value: object) -> Setting:
    is_set = value is not None and value not in ("", (), {}) and not (isinstance(value, SecretStr) and not value)
    # An address may contain a password.
    is_readable = (isinstance(value, _PLAIN) or name in _READABLE) and "@" not in str(value)
    return Setting(name=name.upper(), value=_shown(value) if is_readable and is_set else None, is_set=is_set)


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
