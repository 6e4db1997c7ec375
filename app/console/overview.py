"""The overview: does anything need me now?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from fastapi import APIRouter, Response

from app.console.charts import Chart, stacked
from app.console.codes import Meaning, Words, meaning_of_result, words_of_error
from app.console.language import marked as _
from app.console.rendering import with_query
from app.console.visits import PageRoute, SignedInVisit
from app.domain.api_key import ApiKey
from app.domain.detection import Outcome
from app.domain.pause import Pause
from app.domain.statistics import COUNT_LIMIT
from app.domain.verification import Result
from app.domain.webhook_endpoint import EndpointState
from app.services.health import Condition
from app.services.overview import Figures

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Something that needs a person: a sentence with its values, what to do, and where to go, with the word for it."""

    tone: str
    sentence: str
    values: Mapping[str, object]
    advice: Words | None = None
    url: str | None = None
    word: str = _("Show")


@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewPage:
    """The page. `attention` is None for visitors who see one client only, and empty if nothing needs them."""

    attention: Sequence[Attention] | None
    figures: Figures
    today: Mapping[Outcome, int]
    today_url: str
    capacity: float | None
    chart: Chart
    failures: Sequence[tuple[int | None, int, Meaning | None]]
    newest: Sequence[Result]
    count_limit: int
    base_url: str

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show yet."""
        return not self.newest


@router.get("/admin")
async def show(visit: SignedInVisit) -> Response:
    """Shows the overview."""
    overview = await visit.services.overview.get(visit.actor)
    figures = overview.figures
    accounts = visit.services.settings.faceid.all_accounts.values()
    page = OverviewPage(
        attention=list(attention_of(overview.condition)) if overview.condition else None,
        figures=figures,
        today=figures.days[-1].counts,
        today_url=day_url(figures.days[-1].day),
        capacity=sum(account.requests_per_second for account in accounts) * 60,
        chart=stacked(figures.days),
        failures=[
            (code, count, meaning_of_result(code) if code is not None else None) for code, count in figures.failures
        ],
        newest=overview.newest,
        count_limit=COUNT_LIMIT,
        base_url=str(visit.request.base_url).rstrip("/"),
    )
    return visit.page("overview.html", page)


def day_url(day: date, **filters: str) -> str:
    """Returns the list of the results that were retrieved on a day."""
    text = day.isoformat()
    return with_query("/admin/verifications", by="retrieved_at", **{"from": text, "to": text}, **filters)


def attention_of(condition: Condition) -> Iterator[Attention]:
    """Yields what needs a person now, the most urgent first."""
    yield from map(_of_pause, condition.pauses)
    yield from _halts_of(condition)
    for hours, count in sorted(condition.pending.items()):
        if count:
            yield Attention(
                tone="bad" if hours == min(condition.pending) else "warn",
                sentence=_(
                    "%(count)s pending verifications have less than %(hours)s h left before Tencent deletes them."
                ),
                values={"count": count, "hours": hours},
                url=with_query("/admin/verifications", standing="pending", order="asc"),
            )
            break
    if failing := condition.endpoints.get(EndpointState.FAILING):
        yield Attention(
            tone="warn",
            sentence=_("Webhook endpoints that receive no events: %(count)s. The service tries again."),
            values={"count": failing},
            url="/admin/webhook-endpoints",
        )
    yield from map(_of_key, condition.expiring_keys)


def _halts_of(condition: Condition) -> Iterator[Attention]:
    """Yields the reasons why parts of the service have stopped, except pauses."""
    if condition.unattended_since:
        yield Attention(
            tone="bad",
            sentence=_(
                "Work waits since %(since)s, and no worker has reported within a minute. Nothing is fetched or "
                "delivered until one runs: %(command)s."
            ),
            values={"since": condition.unattended_since, "command": "faceid-results worker"},
        )
    if condition.doubted_since:
        yield Attention(
            tone="bad",
            sentence=_("The clock is in doubt since %(since)s: nothing is fetched, expires or is erased."),
            values={"since": condition.doubted_since},
            advice=words_of_error("AuthFailure.SignatureExpire"),
        )
    if condition.erasure_stopped_at:
        yield Attention(
            tone="bad",
            sentence=_(
                "The erasure of expired data waits since %(since)s, because an unusual amount is overdue. Check with "
                "%(status)s, then run %(run)s."
            ),
            values={
                "since": condition.erasure_stopped_at,
                "status": "faceid-results retention status",
                "run": "faceid-results retention run",
            },
        )
    for space in condition.low_disks:
        yield Attention(tone="bad", sentence=_("The disk is almost full: %(space)s."), values={"space": str(space)})


def _of_pause(pause: Pause) -> Attention:
    values = {"account": pause.account, "rule": pause.rule_id, "since": pause.paused_at, "code": pause.error_code}
    sentence = _("Account %(account)s is paused since %(since)s: %(code)s.")
    if pause.rule_id is not None:
        sentence = _("RuleId %(rule)s of account %(account)s is paused since %(since)s: %(code)s.")
    url = with_query("/admin/verifications", standing="pending", rule_id=pause.rule_id or "", order="asc")
    advice = words_of_error(pause.error_code)
    return Attention(tone="bad", sentence=sentence, values=values, advice=advice, url=url, word=_("What waits"))


def _of_key(key: ApiKey) -> Attention:
    return Attention(
        tone="warn",
        sentence=_("The API key %(name)s (%(id)s) expires on %(at)s. Create a new one before."),
        values={"name": key.name, "id": key.id, "at": key.expires_at},
        url="/admin/keys",
    )
