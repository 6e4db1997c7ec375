"""Plays the days before the demo through the services, on a clock of the past.

Nothing is written past the services: tokens are registered and called back, a simulated FaceID answers the calls, and
holders of API keys read, search, erase and hold. Only the clock is not the machine's, so instants are the planned ones.
Media are retrieved on the last day only, because those of a month would take too long.
"""

import heapq
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import count

from app.cli.demo_plan import LOANS, WALLET, ZONE, Case, plan_days
from app.cli.demo_receiver import DemoReceiver
from app.cli.runtime import operator
from app.cli.server import listen, serving, url_of
from app.config import Settings
from app.domain.api_key import Actor, ApiKey, Scope
from app.domain.listing import VerificationFilter
from app.domain.media import MediaKind
from app.domain.verification import TokenFacts, Verification
from app.errors import ForbiddenError, GoneError
from app.factory import RetrievalServices, Services, open_retrieval, open_services
from app.services.read import PersonQuery
from app.services.webhook_endpoints import EndpointFacts
from simulator.options import SimulatorOptions
from simulator.people import Dice, person_of
from simulator.server import Simulator, create_simulator

_WITH_MEDIA = timedelta(days=1)
_WITH_WEBHOOKS = timedelta(hours=3)
_TICK = timedelta(milliseconds=7)
_CONCURRENCY = 16
# The slots of the quota are real time, and a month of them must not be waited for.
_CALLS_PER_SECOND = 1000.0
_HOUR = timedelta(hours=1)
_BEFORE_THE_CAMERA = timedelta(seconds=20)
_KEY_DAYS = 180
_EXPIRES_IN = timedelta(days=9)

_READ = (Scope.RESULTS_READ, Scope.RESULTS_REVEAL, Scope.MEDIA_READ)
_SEND = (Scope.CALLBACKS_WRITE, Scope.RESULTS_READ, Scope.WEBHOOKS_MANAGE)
_SUPPORT, _COMPLIANCE, _PILOT = "support", "compliance", "pilot"
_KEYS = {
    LOANS: ("loans back end", _SEND, LOANS),
    WALLET: ("wallet back end", _SEND, WALLET),
    _SUPPORT: ("support desk", _READ, LOANS),
    _COMPLIANCE: ("compliance", (Scope.ADMIN,), LOANS),
    _PILOT: ("loans pilot", _SEND, LOANS),
}
"""The API keys: name, scopes and client."""

_Act = Callable[[], Awaitable[object]]


@dataclass
class HistoryClock:
    """A clock that is moved ahead. Reading it takes a moment, so nothing happens at the same instant."""

    at: datetime

    def __call__(self) -> datetime:
        """Returns the time."""
        self.at += _TICK
        return self.at

    def move(self, to: datetime) -> None:
        """Moves the clock ahead, never back."""
        self.at = max(self.at, to)


async def create_history(
    settings: Settings, receiver: DemoReceiver, *, end: datetime, days: int, seed: str
) -> Sequence[Case]:
    """Creates the history until `end`, and returns its cases.

    A simulator of its own without a rate limit answers. The receiver gets the events of the last hours.
    """
    cases, request_ids = plan_days(seed, end, days), _request_ids(seed)
    options = SimulatorOptions(requests_per_second=0, new_request_id=lambda: next(request_ids))
    simulator, month = create_simulator(options), _Month(cases, receiver, end)
    expect(simulator, cases)
    receiver.clock = month.clock
    with listen("127.0.0.1", 0) as listener:
        async with serving(simulator, listener):
            for until, info_type in ((end - _WITH_MEDIA, "1"), (end, "0")):
                async with (
                    open_services(_hurried(settings, url_of(listener), info_type), clock=month.clock) as services,
                    open_retrieval(services) as retrieval,
                ):
                    await month.play(services, retrieval, until)
    return cases


def expect(simulator: Simulator, cases: Sequence[Case]) -> None:
    """Lets a simulator answer for the people of the history."""
    for case in cases:
        simulator.expect(case.biz_token, case.scenario, case.begun_at + _BEFORE_THE_CAMERA)


def _request_ids(seed: str) -> Iterator[str]:
    return (str(uuid.UUID(int=Dice(f"{seed} request {number}").draw(2**128), version=4)) for number in count())


def _hurried(settings: Settings, faceid_url: str, info_type: str) -> Settings:
    """Returns the settings without a quota that would have to be waited for."""
    own = {"endpoint": faceid_url, "requests_per_second": _CALLS_PER_SECOND}
    accounts = {name: account.model_copy(update=own) for name, account in settings.faceid.accounts.items()}
    faceid = {
        "faceid_endpoint": faceid_url,
        "faceid_requests_per_second": _CALLS_PER_SECOND,
        "accounts": accounts,
    }
    return replace(
        settings,
        faceid=settings.faceid.model_copy(update=faceid),
        rules=settings.rules.model_copy(update={"faceid_info_type": info_type}),
    )


@dataclass
class _Month:
    """The acts of the month in order of their instants. A stored due time is an act that only lets the worker work."""

    cases: Sequence[Case]
    receiver: DemoReceiver
    end: datetime
    clock: HistoryClock = field(init=False)
    services: Services = field(init=False)
    retrieval: RetrievalServices = field(init=False)
    _agenda: list[tuple[datetime, int, _Act]] = field(init=False, default_factory=list)
    _numbers: "count[int]" = field(init=False, default_factory=count)
    _due: dict[str, datetime | None] = field(init=False, default_factory=dict)
    _keys: dict[str, ApiKey] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.clock = HistoryClock(self.cases[0].begun_at - _HOUR)
        self._add(self.clock.at, self._create_keys)
        self._add(self.clock.at + (self.end - self.clock.at) / 2, self._revoke_pilot)
        self._add(self.end - _WITH_WEBHOOKS, self._create_endpoint)
        for case in self.cases:
            self._add(case.begun_at + timedelta(milliseconds=300), partial(self._register, case))
            if case.finished_at:
                self._add(case.finished_at, partial(self._call_back, case))
        for at, act in self._of_staff():
            self._add(at, act)

    async def play(self, services: Services, retrieval: RetrievalServices, until: datetime) -> None:
        """Plays what happens until an instant."""
        self.services, self.retrieval = services, retrieval
        day = self.clock.at.astimezone(ZONE).date()
        while self._agenda and self._agenda[0][0] <= until:
            at, _, act = heapq.heappop(self._agenda)
            if at.astimezone(ZONE).date() != day or at >= self.end - _WITH_WEBHOOKS:
                day = at.astimezone(ZONE).date()
                await self._settle()
            self.clock.move(at)
            await act()
        self.clock.move(until)
        await self._settle()
        await services.counts.collect()
        await services.audit.link()

    def _add(self, at: datetime, act: _Act) -> None:
        heapq.heappush(self._agenda, (at, next(self._numbers), act))

    async def _settle(self) -> None:
        """Gives the events of a day, or in the last hours of an act, their positions, and sends them."""
        await self.services.outbox.sequence()
        while claims := await self.services.deliver.take(_CONCURRENCY):
            for claim in claims:
                await self.services.deliver.deliver(claim)

    async def _retrieve(self, biz_token: str, due_at: datetime) -> None:
        """Does what a worker does, unless the due time was changed."""
        if self._due.get(biz_token) != due_at:
            return
        for claim in await self.retrieval.claims.take(_CONCURRENCY):
            await self.retrieval.retrieve.retrieve(claim)
            known = claim.verification
            stored = await self.services.read.load(operator(), known.biz_token, client=known.client)
            self._wake(stored.verification)

    def _wake(self, known: Verification) -> None:
        """Lets the worker work when the verification is due."""
        self._due[known.biz_token] = known.due_at
        if known.due_at:
            self._add(known.due_at, partial(self._retrieve, known.biz_token, known.due_at))

    def _actor(self, name: str, purpose: str | None = None) -> Actor:
        return Actor(caller=self._keys[name], request_id=uuid.uuid4().hex, purpose=purpose)

    async def _create_keys(self) -> None:
        for name, (title, scopes, client) in _KEYS.items():
            # One that expires soon, for the list of what needs attention.
            is_expiring, at = name == WALLET, self.clock.at
            valid_for = self.end - at + _EXPIRES_IN if is_expiring else timedelta(days=_KEY_DAYS)
            self._keys[name], _ = await self.services.api_keys.create(
                operator(), title, scopes, client=client, valid_for=valid_for
            )

    async def _revoke_pilot(self) -> None:
        await self.services.api_keys.revoke(operator(), self._keys[_PILOT].id)

    async def _create_endpoint(self) -> None:
        facts = EndpointFacts(url=self.receiver.url, description="loans back end")
        _, self.receiver.secret = await self.services.webhook_endpoints.create(self._actor(LOANS), facts)

    async def _register(self, case: Case) -> None:
        facts = TokenFacts(rule_id=case.rule_id, subject_ref=case.subject_ref, created_at=case.begun_at)
        accepted = await self.services.intake.register(self._actor(case.client), case.biz_token, facts)
        self._wake(accepted.verification)

    async def _call_back(self, case: Case) -> None:
        known = await self.services.intake.call_back(self._actor(case.client), case.biz_token, case.rule_id, None)
        self._wake(known)

    def _of_staff(self) -> Iterator[tuple[datetime, _Act]]:
        """Yields what people do: look at failures and samples, search, erase, hold, and try what they may not."""
        done = [case for case in self.cases if case.scenario.endswith("passed") and case.begun_at < self.end - _HOUR]
        for case in self.cases:
            dice = Dice(f"staff {case.biz_token}")
            at = case.begun_at + timedelta(minutes=12 + dice.draw(40), seconds=dice.draw(60))
            if case.client == LOANS and at < self.end:
                if case.scenario == "failed-2016":
                    yield at, partial(self._look, case, "人工复核：相似度未达标")
                elif case.scenario.startswith("failed") and dice.draw(2):
                    yield at, partial(self._look, case, "客诉核对：客户询问未通过原因")
                elif case in done and not dice.draw(12):
                    yield at, partial(self._look, case, "贷前抽查")
        loans = [case for case in done if case.client == LOANS]
        first, second, third, last = (loans[len(loans) * place // 8] for place in (1, 2, 4, 7))
        for case in (second, third):
            yield self._later(case), partial(self._search, case, "客户来电：查询本人核身记录")
        yield self._later(first), partial(self._hold, first, "司法协查：冻结期间不得删除")
        yield self._later(second) + _HOUR, partial(self._erase, second, "客户注销账号，申请删除个人信息")
        yield last.begun_at + _HOUR / 2, partial(self._look, last, "排查回调延迟", LOANS)

    def _later(self, case: Case) -> datetime:
        """Returns an instant between a case and the end."""
        return case.begun_at + (self.end - case.begun_at) / 3

    async def _look(self, case: Case, purpose: str, who: str = _SUPPORT) -> None:
        """Reads the identity and the pictures, or is refused."""
        actor = self._actor(who, purpose)
        with suppress(ForbiddenError, GoneError):
            await self.services.read.reveal(actor, case.biz_token)
            stored = await self.services.read.load(actor, case.biz_token)
            for item in stored.media:
                if item.kind is not MediaKind.LIVENESS_VIDEO:
                    found = await self.services.media.find(actor, case.biz_token, item.kind)
                    async for _ in await self.services.media.open(actor, found, 0, item.size_bytes):
                        pass

    async def _search(self, case: Case, purpose: str) -> None:
        person = PersonQuery(person_of(case.biz_token).id_card)
        wanted = VerificationFilter(client=case.client)
        await self.services.read.search_person(self._actor(_SUPPORT, purpose), wanted, person, limit=50, cursor=None)

    async def _hold(self, case: Case, purpose: str) -> None:
        await self.services.erase.hold(self._actor(_COMPLIANCE, purpose), case.biz_token, is_held=True)

    async def _erase(self, case: Case, purpose: str) -> None:
        await self.services.erase.erase(self._actor(_COMPLIANCE, purpose), case.biz_token)
