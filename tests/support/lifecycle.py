"""Verifications in each state, calls of Tencent, and everything that may happen to a verification, in any order."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.domain import lifecycle
from app.domain.decision import CALL_INTERVAL_CAP, Answered, ErrorClass, Failure, Reply, decide
from app.domain.detection import Outcome, Part
from app.domain.redirect_state import FOREIGN, is_released
from app.domain.rule import Rule
from app.domain.verification import Priority, State, TokenFacts, UpstreamCall, Verification
from app.errors import ConflictError

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
LATER = NOW + MINUTE
LEASE = 45 * SECOND
ANSWERED = UpstreamCall(
    called_at=NOW,
    action="GetDetectInfo",
    info_type="0",
    request_id="request-1",
    error_code=None,
    duration_ms=20,
    bytes_received=1500,
)
REFUSED = replace(ANSWERED, error_code="InternalError", request_id="request-2")
CUT = replace(ANSWERED, error_code="network.timeout", request_id=None)
FROM_ANOTHER_RUN = replace(ANSWERED, error_code=FOREIGN)

NEW = lifecycle.new(client="shop", biz_token="token", rule_id="1", rule=Rule(), now=NOW)
CALLED_BACK = replace(NEW, received_at=NOW, due_at=NOW, deadline_at=NOW + 70 * HOUR)
REGISTERED = replace(
    NEW, registered_at=NOW, due_at=NOW + 10 * MINUTE, priority=Priority.POLL, deadline_at=NOW + 70 * HOUR
)
CLAIMED = replace(CALLED_BACK, claim=1, is_leased=True, due_at=NOW + LEASE)
PASSED = replace(CALLED_BACK, state=State.RETRIEVED, outcome=Outcome.PASSED, retrieved_at=NOW, due_at=None)
PROVISIONAL = replace(PASSED, outcome=Outcome.FAILED, provisional=True, due_at=NOW + 2 * HOUR)
UNFINISHED = replace(PASSED, outcome=Outcome.UNFINISHED)
EXPIRED = replace(CALLED_BACK, state=State.EXPIRED, failures=9, due_at=None)
FAILED = replace(EXPIRED, state=State.FAILED)
ERASED = replace(EXPIRED, state=State.ERASED)
BACK = replace(CLAIMED, called_at=LATER, attempts=1, is_leased=False, last_request_id="request-1")
AWAITED = frozenset({Part.VIDEO})

REPLIES = st.one_of(st.sampled_from(ErrorClass).map(Failure), st.sampled_from([*Outcome, None]).map(Answered))
FACTS = st.builds(
    TokenFacts,
    subject_ref=st.sampled_from([None, "loan-4711", "loan-4712"]),
    purpose=st.sampled_from([None, "credit"]),
    created_at=st.sampled_from([None, NOW, NOW - HOUR, NOW - 71 * HOUR]),
)
FACT_NAMES = ("subject_ref", "purpose", "callback_extra", "created_at", "registered_at", "received_at")
STATED_FACTS = ("subject_ref", "purpose", "created_at")
VERDICTS = {Outcome.PASSED, Outcome.FAILED}


class Life(RuleBasedStateMachine):
    """Everything that business systems, browsers, workers and Tencent may do with one verification, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.row = NEW
        self.claimed: Verification | None = None

    @initialize(is_registered=st.booleans(), facts=FACTS, nonce=st.sampled_from([None, "nonce"]))
    def begin(self, is_registered: bool, facts: TokenFacts, nonce: str | None) -> None:
        new = replace(NEW, is_rule_assumed=True, nonce=nonce)
        self.become(lifecycle.registered(new, facts, NOW) if is_registered else lifecycle.called_back(new, None, NOW))

    @rule(span=st.sampled_from([SECOND, MINUTE, 10 * MINUTE, 3 * HOUR, 80 * HOUR]))
    def wait(self, span: timedelta) -> None:
        self.now += span

    @rule(facts=FACTS)
    def register(self, facts: TokenFacts) -> None:
        try:
            self.become(lifecycle.registered(self.row, facts, self.now))
        except ConflictError:
            assert any(getattr(facts, name) not in {None, getattr(self.row, name)} for name in STATED_FACTS)

    @rule(rule_id=st.sampled_from(["1", "2"]))
    def state_rule(self, rule_id: str) -> None:
        try:
            self.become(lifecycle.with_rule(self.row, rule_id, Rule(), self.now))
        except ConflictError:
            assert not self.row.is_rule_assumed
        assert not self.row.is_rule_assumed

    @rule(extra=st.sampled_from([None, b"first", b"second"]))
    def call_back(self, extra: bytes | None) -> None:
        once = lifecycle.called_back(self.row, extra, self.now)

        assert lifecycle.called_back(once, extra, self.now) == once
        latest = max(self.now, self.row.due_at or self.now, (self.row.called_at or self.now) + CALL_INTERVAL_CAP)
        assert once.due_at is None or once.due_at <= latest
        assert self.row.due_at is None or (once.due_at is not None and once.due_at <= self.row.due_at)
        self.become(once)

    @rule()
    def vouch(self) -> None:
        self.become(lifecycle.vouched(self.row, self.now))
        assert self.row.nonce is None

    @rule()
    def bring_another_state(self) -> None:
        self.become(lifecycle.claimed(self.row, self.now))
        assert not is_released(self.row)

    @precondition(lambda self: self.claimed is not None and self.claimed.nonce is not None)
    @rule()
    def report_a_foreign_result(self) -> None:
        assert self.claimed is not None
        if self.row.claim == self.claimed.claim:
            step = decide(self.claimed, Failure(ErrorClass.FINAL), self.now, jitter=0)
            self.become(lifecycle.after(self.row, step, FROM_ANOTHER_RUN, self.now))
            # Neither a key nor a further state has come in the meantime.
            assert self.row.nonce is not None
        self.claimed = None

    @rule()
    def retrieve_again(self) -> None:
        self.become(lifecycle.retrieve_again(self.row, self.now))

    @precondition(lambda self: self.row.due_at is not None and self.row.due_at <= self.now)
    @rule()
    def claim(self) -> None:
        row = self.row
        self.row = replace(row, due_at=self.now + LEASE, claim=row.claim + 1, is_leased=True, wake_requested=False)
        self.claimed = self.row

    @precondition(lambda self: self.claimed is not None)
    @rule(reply=REPLIES, jitter=st.sampled_from([0, 0.5, 0.99]))
    def report(self, reply: Reply, jitter: float) -> None:
        assert self.claimed is not None
        step = decide(self.claimed, reply, self.now, jitter=jitter)
        if self.row.claim == self.claimed.claim:
            self.become(lifecycle.after(self.row, step, CUT if isinstance(reply, Failure) else ANSWERED, self.now))
        self.claimed = None

    def become(self, row: Verification) -> None:
        before, self.row = self.row, row
        known = {name: value for name in FACT_NAMES if (value := getattr(before, name)) is not None}
        assert {name: getattr(row, name) for name in known} == known
        assert before.state is not State.RETRIEVED or row.state is State.RETRIEVED
        assert before.outcome not in VERDICTS or row.outcome is not Outcome.UNFINISHED
        assert row.attempts >= before.attempts

    @invariant()
    def pending_or_provisional_row_is_due_some_time(self) -> None:
        open_ended = self.row.state is State.PENDING or self.row.provisional
        assert self.row.received_at is self.row.registered_at is None or self.row.due_at is not None or not open_ended

    @invariant()
    def only_a_retrieved_row_has_an_outcome(self) -> None:
        is_retrieved = self.row.state is State.RETRIEVED
        assert (self.row.retrieved_at is not None) is is_retrieved
        assert is_retrieved or (self.row.outcome, self.row.provisional) == (None, False)
