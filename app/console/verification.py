"""One verification: its verdict, its time line, the person, the media, and what can be done with it."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Response

from app.console.codes import Meaning, Words, meaning_of_result, words_of_error
from app.console.formats import Formats
from app.console.language import language_of
from app.console.language import marked as _
from app.console.rendering import Notice, href, with_query
from app.console.timeline import Entry, entries_of
from app.console.visits import Fields, PageRoute, SignedInVisit, Visit, fields_of, see_other
from app.domain.api_key import Caller, Scope
from app.domain.detection import Detection, personal
from app.domain.grant import Grant, Wanted
from app.domain.media import MediaItem
from app.domain.pause import Pause
from app.domain.verification import Result, State, Verification
from app.errors import GoneError, InvalidRequestError
from app.services.history import History

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_PATH = "/admin/verifications/{biz_token}"
_CONFIRMATION_LENGTH = 6
_MAX_PURPOSE = 256
# The fields of the identity in the order of the page; an ID card has the same order.
_IDENTITY = (
    *("name", "id_card", "ocr_name", "ocr_id_card", "ocr_gender", "ocr_nation", "ocr_birth", "ocr_address"),
    *("ocr_authority", "ocr_valid_date", "location", "extra"),
)
_DONE = {
    "retrieve": _("The retrieval is requested. The page shows the result as soon as it is there."),
    "hold": _("The legal hold is set: nothing of this verification is erased."),
    "release": _("The legal hold is lifted."),
    "erase": _("Text, media and keys are erased. This cannot be undone."),
}
_PROBLEMS = {
    "confirmation": _("The last six characters of the token are not these. Nothing was erased."),
    "purpose": _("State the purpose, and choose what to show."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage of the verdict: its word, its code and Tencent's message."""

    word: str
    code: int | None
    message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """The permissions of the visitor. It only decides which parts are shown: the services check every action."""

    identity: bool
    media: bool
    retrieve: bool
    erase: bool
    hold: bool

    @classmethod
    def of(cls, caller: Caller) -> "Permissions":
        """Returns the permissions of a caller."""
        return cls(
            identity=caller.allows(Scope.RESULTS_REVEAL),
            media=caller.allows(Scope.MEDIA_READ),
            retrieve=caller.allows(Scope.CALLBACKS_WRITE),
            erase=caller.allows(Scope.RESULTS_ERASE),
            hold=caller.allows(Scope.ADMIN),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The disclosed data: the identity by field, and media by their address."""

    text: str
    expires_at: datetime
    identity: Sequence[tuple[str, str]]
    media: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationPage:
    """The page. `meaning` explains the result code, `advice` the error code of the last call.

    `pause` stops the calls. `audit_url` is the audit of this verification, for admins.

    `asks_again`: the form of the erasure is open.
    `url` is the page without a disclosure.
    """

    result: Result
    detection: Detection
    meaning: Meaning | None
    advice: Words | None
    pause: Pause | None
    audit_url: str | None
    stages: Sequence[Stage]
    entries: Sequence[Entry]
    pictures: Sequence[MediaItem]
    recordings: Sequence[MediaItem]
    permissions: Permissions
    shown: Shown | None
    url: str
    client: str
    curl: str
    confirmation_length: int
    is_live: bool
    notice: Notice
    asks_again: bool

    @property
    def verification(self) -> Verification:
        """The verification itself."""
        return self.result.verification


@router.get(_PATH)
async def show(visit: SignedInVisit, biz_token: str) -> Response:
    """Shows a verification, with what a grant in the address discloses while it is valid."""
    query = visit.request.query_params
    history = await visit.services.history.get(visit.actor, biz_token, client=query.get("client") or None)
    shown = await _shown(visit, history, query.get("grant", ""))
    page = _page(visit, history, shown)
    # Without a script the browser loads the page again when the grant ends, and the data are hidden.
    left = int((shown.expires_at - visit.services.clock()).total_seconds()) + 1 if shown else 0
    headers = {"Refresh": f"{left}; url={page.url}"} if shown else {}
    return visit.page("verification.html", page, headers=headers)


@router.post(f"{_PATH}/reveal")
async def reveal(visit: SignedInVisit, biz_token: str) -> Response:
    """Discloses identity, pictures or recordings for a purpose. Audited before anything is shown."""
    fields = await fields_of(visit.request)
    names = {"identity": Wanted.IDENTITY, "pictures": Wanted.PICTURES, "recordings": Wanted.RECORDINGS}
    wanted = [each for name, each in names.items() if name in fields]
    purpose = fields.get("purpose", "")[:_MAX_PURPOSE]
    if not wanted or not purpose or not purpose.isprintable():
        return see_other(_back(biz_token, fields, problem="purpose") + "#identity")
    grant = await visit.services.disclosures.disclose(
        visit.for_purpose(purpose), visit.signed_in, biz_token, wanted, client=fields.get("client") or None
    )
    return see_other(_back(biz_token, fields, grant=grant) + "#identity")


@router.post(f"{_PATH}/retrieve")
async def retrieve(visit: SignedInVisit, biz_token: str) -> Response:
    """Requests another retrieval."""
    fields = await fields_of(visit.request)
    await visit.services.intake.retrieve_again(visit.actor, biz_token, client=fields.get("client") or None)
    return see_other(_back(biz_token, fields, done="retrieve"))


@router.post(f"{_PATH}/hold")
async def hold(visit: SignedInVisit, biz_token: str) -> Response:
    """Sets or lifts the legal hold, for a purpose."""
    fields = await fields_of(visit.request)
    is_held = fields.get("held") == "yes"
    actor = visit.for_purpose(_required_purpose(fields))
    await visit.services.erase.hold(actor, biz_token, is_held=is_held, client=fields.get("client") or None)
    return see_other(_back(biz_token, fields, done="hold" if is_held else "release"))


@router.post(f"{_PATH}/erase")
async def erase(visit: SignedInVisit, biz_token: str) -> Response:
    """Erases a verification, after the end of its token was entered as a confirmation."""
    fields = await fields_of(visit.request)
    actor = visit.for_purpose(_required_purpose(fields))
    if not hmac.compare_digest(fields.get("confirmation", "").encode(), _end_of(biz_token).encode()):
        return see_other(_back(biz_token, fields, problem="confirmation") + "#erase")
    await visit.services.erase.erase(actor, biz_token, client=fields.get("client") or None)
    return see_other(_back(biz_token, fields, done="erase"))


def _required_purpose(fields: Fields) -> str:
    purpose = fields.get("purpose", "")[:_MAX_PURPOSE]
    if not purpose or not purpose.isprintable():
        raise InvalidRequestError("The purpose is missing.")
    return purpose


def _back(biz_token: str, fields: Fields, **query: str) -> str:
    """Returns the address of the page after a form."""
    return with_query(f"/admin/verifications/{biz_token}", client=fields.get("client", ""), **query)


def _end_of(biz_token: str) -> str:
    return biz_token[-_CONFIRMATION_LENGTH:]


async def _shown(visit: Visit, history: History, text: str) -> Shown | None:
    """Returns what a grant discloses; None without a valid one for this verification and its newest result."""
    known, disclosures = history.result.verification, visit.services.disclosures
    grant = disclosures.find(visit.signed_in, text) if text else None
    is_for_this = grant and (grant.client, grant.biz_token, grant.revision) == (*known.owner, known.revision)
    if grant is None or not is_for_this:
        return None
    try:
        revealed = await disclosures.identity(visit.actor, grant)
    except GoneError:
        return None
    return Shown(
        text=text,
        expires_at=grant.expires_at,
        identity=_identity(revealed.detection) if revealed and revealed.detection else (),
        media=_covered(history.result.media, grant),
    )


def _covered(items: Sequence[MediaItem], grant: Grant) -> frozenset[str]:
    return frozenset(item.kind for item in items if grant.covers(item))


def _identity(detection: Detection) -> Sequence[tuple[str, str]]:
    """Returns the fields of the identity that have a value, in the order of the page."""
    known = set(personal(Detection))
    return [(name, str(value)) for name in _IDENTITY if name in known and (value := getattr(detection, name))]


def _page(visit: Visit, history: History, shown: Shown | None) -> VerificationPage:
    result, query = history.result, visit.request.query_params
    known, detection = result.verification, result.detection or Detection()
    services = visit.services
    zone = ZoneInfo(services.settings.console.console_time_zone)
    formats = Formats(language_of(visit.request), zone, services.clock())
    return VerificationPage(
        result=result,
        detection=detection,
        meaning=meaning_of_result(detection.err_code) if detection.err_code is not None else None,
        advice=words_of_error(known.last_error_code) if known.last_error_code else None,
        pause=history.pause,
        audit_url=with_query("/admin/audit", biz_token=known.biz_token)
        if visit.actor.caller.allows(Scope.ADMIN)
        else None,
        stages=_stages(detection),
        entries=entries_of(history, formats),
        pictures=[item for item in result.media if Wanted.PICTURES.covers(item)],
        recordings=[item for item in result.media if Wanted.RECORDINGS.covers(item)],
        permissions=Permissions.of(visit.actor.caller),
        shown=shown,
        url=href(known, visit.actor.caller),
        client=known.client,
        curl=_curl(visit, known),
        confirmation_length=_CONFIRMATION_LENGTH,
        is_live=known.state is State.PENDING and shown is None,
        notice=Notice(done=_DONE.get(query.get("done", "")), problem=_PROBLEMS.get(query.get("problem", ""))),
        asks_again=query.get("problem") == "confirmation",
    )


def _stages(detection: Detection) -> Sequence[Stage]:
    stages = [
        Stage(word=_("Liveness detection"), code=detection.live_status, message=detection.live_msg),
        Stage(word=_("Face comparison"), code=detection.compare_status, message=detection.compare_msg),
    ]
    if detection.is_intention_required or detection.intention_status is not None:
        code, message = detection.intention_status, detection.intention_msg
        stages.append(Stage(word=_("Confirmation of the intention"), code=code, message=message))
    return stages


def _curl(visit: Visit, known: Verification) -> str:
    """Returns the call of the API that answers the same."""
    query = {} if known.client == visit.actor.caller.client else {"client": known.client}
    base = str(visit.request.base_url).rstrip("/")
    url = with_query(f"{base}/v1/verifications/{known.biz_token}", **query)
    return f'curl -H "Authorization: Bearer $KEY" "{url}"'
