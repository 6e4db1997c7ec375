"""Statistics: how many verifications there are."""

import re
from datetime import date, timedelta
from typing import Annotated, Self

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from app.domain.counts import CountFilter, Dimension, day_of
from app.domain.detection import Outcome
from app.domain.rate import RateClass
from app.domain.verification import State
from app.routers.dependencies import Reader, services_of
from app.routers.problems import AUTH_ERRORS, declared
from app.routers.rates import limited
from app.routers.rejections import StrictRoute
from app.routers.schemas import Line
from app.services.counts import Count

router = APIRouter(prefix="/v1/stats", tags=["statistics"], route_class=StrictRoute)

_DEFAULT_DAYS = 30


def _separated(value: object) -> object:
    """Accepts `by=day,outcome` as well as `by=day&by=outcome`."""
    return [name for text in value for name in text.split(",")] if isinstance(value, list) else value


def _is_spelled_out(value: object) -> object:
    """Rejects numbers, which pydantic takes for seconds since the epoch."""
    if isinstance(value, str) and not re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        raise PydanticCustomError("day", "must be a day like 2026-11-23")
    return value


Day = Annotated[date, BeforeValidator(_is_spelled_out), Field(ge=date(2000, 1, 1), le=date(9999, 12, 30))]


class StatsQuery(BaseModel):
    """The days, the client and the dimensions of the counts."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    start: Day | None = Field(default=None, alias="from", description="The first day; by default 29 days before `to`.")
    end: Day | None = Field(default=None, alias="to", description="The last day; by default today in Beijing.")
    by: Annotated[list[Dimension], BeforeValidator(_separated), Field(min_length=1, max_length=6)] = Field(
        default_factory=lambda: [Dimension.DAY, Dimension.OUTCOME], description="Separated by commas."
    )
    client: Line | None = Field(default=None, description="Only this client; for admins.")

    def filter(self, today: date) -> CountFilter:
        """Returns the days and the client as a domain value."""
        end = self.end or today
        return CountFilter(start=self.start or end - timedelta(days=_DEFAULT_DAYS - 1), end=end, client=self.client)


class StatsItem(BaseModel):
    """The number of verifications with these values. Dimensions that were not asked for are missing."""

    day: date | None = None
    client: str | None = None
    rule_id: str | None = None
    state: State | None = None
    outcome: Outcome | None = None
    err_code: int | None = None
    count: int


class Stats(BaseModel):
    """Counts of the verifications that were accepted on these days, in Beijing time; erased ones count as before."""

    start: date = Field(serialization_alias="from")
    end: date = Field(serialization_alias="to")
    items: list[StatsItem]

    @classmethod
    def of(cls, wanted: CountFilter, counts: list[Count]) -> Self:
        """Converts the values of the service."""
        items = [StatsItem.model_validate({**count.values, "count": count.number}) for count in counts]
        return cls(start=wanted.start, end=wanted.end, items=items)


@router.get(
    "",
    responses=declared(*AUTH_ERRORS, 400),
    response_model_exclude_unset=True,
    openapi_extra=limited(RateClass.LISTS),
)
async def get_stats(request: Request, actor: Reader, wanted: Annotated[StatsQuery, Query()]) -> Stats:
    """Counts verifications by day, outcome, result code, rule, state or client. Its cost does not grow with them."""
    services = services_of(request)
    chosen = wanted.filter(day_of(services.clock()))
    return Stats.of(chosen, list(await services.counts.count(actor, chosen, wanted.by)))
