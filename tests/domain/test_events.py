"""Events: which change is which event, and what it reports."""

import json
import re
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis.stateful import invariant, run_state_machine_as_test

from app.domain import lifecycle
from app.domain.detection import Outcome
from app.domain.events import (
    Event,
    EventFilter,
    EventType,
    body,
    change_of,
    describe,
    forgotten,
    frame,
    matches,
)
from app.domain.verification import State, Verification
from tests.support.lifecycle import (
    CALLED_BACK,
    CLAIMED,
    ERASED,
    EXPIRED,
    FAILED,
    LATER,
    NOW,
    PASSED,
    PROVISIONAL,
    REGISTERED,
    Life,
)

AGAIN = replace(PASSED, revision=PASSED.revision + 1)
WITH_ID = replace(PASSED, id=7, subject_ref="loan-4711", err_code=0, event_count=3)


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (CALLED_BACK, PASSED, EventType.RETRIEVED),
        (CALLED_BACK, FAILED, EventType.FAILED),
        (CALLED_BACK, EXPIRED, EventType.EXPIRED),
        (CALLED_BACK, lifecycle.erased(CALLED_BACK, NOW), EventType.ERASED),
        (PASSED, lifecycle.erased(PASSED, NOW), EventType.ERASED),
        (PASSED, AGAIN, EventType.UPDATED),
        (PROVISIONAL, replace(PROVISIONAL, provisional=False), EventType.UPDATED),
        (PASSED, replace(PASSED, subject_ref="loan-4711"), EventType.UPDATED),
        (PASSED, replace(PASSED, rule_id="2"), EventType.UPDATED),
        (EXPIRED, CALLED_BACK, EventType.UPDATED),
        (CALLED_BACK, lifecycle.expiry_announced(CALLED_BACK), EventType.EXPIRING),
        (PASSED, replace(PASSED, due_at=NOW, purpose="credit", legal_hold=True), None),
        (REGISTERED, replace(REGISTERED, subject_ref="loan-4711", received_at=NOW), None),
        (CALLED_BACK, CLAIMED, None),
        (ERASED, replace(ERASED, received_at=NOW), None),
    ],
)
def test_change_is_the_event_that_a_receiver_must_know(
    before: Verification, after: Verification, kind: EventType | None
) -> None:
    assert change_of(before, after) is kind


def test_event_describes_the_verification_after_the_change() -> None:
    event = describe(EventType.UPDATED, WITH_ID, LATER)

    assert re.fullmatch("evt_[0-9a-f]{32}", event.public_id)
    assert event == Event(
        public_id=event.public_id,
        type=EventType.UPDATED,
        client="shop",
        at=LATER,
        verification_id=7,
        biz_token="token",
        rule_id="1",
        subject_ref="loan-4711",
        state=State.RETRIEVED,
        outcome=Outcome.PASSED,
        err_code=0,
        revision=3,
    )


def test_body_is_the_json_of_the_contract_in_one_line() -> None:
    event = describe(EventType.UPDATED, replace(WITH_ID, subject_ref="单号\u2028"), NOW + timedelta(microseconds=1999))

    assert body(event) == body(event)
    assert b"\n" not in body(event)
    assert json.loads(body(event)) == {
        "id": event.public_id,
        "type": "verification.updated",
        "timestamp": "2026-11-23T08:00:00.001Z",
        "data": {
            "biz_token": "token",
            "rule_id": "1",
            "subject_ref": "单号\u2028",
            "client": "shop",
            "state": "retrieved",
            "outcome": "passed",
            "provisional": False,
            "err_code": 0,
            "revision": 3,
            "href": "/v1/verifications/token",
        },
    }


def test_event_about_something_else_has_its_own_data() -> None:
    event = Event(public_id="evt_1", type=EventType.TEST, client="shop", at=NOW, details='{"endpoint": "we_1"}')

    assert body(event) == (
        b'{"id":"evt_1","type":"test","timestamp":"2026-11-23T08:00:00.000Z","data":{"endpoint":"we_1"}}'
    )


def test_frame_is_a_server_sent_event_with_the_position() -> None:
    event = replace(describe(EventType.UPDATED, WITH_ID, LATER), position=12)

    assert frame(event) == b"id: 12\nevent: verification.updated\ndata: " + body(event) + b"\n\n"


def test_event_of_an_erased_verification_has_no_reference_and_no_verdict() -> None:
    event = describe(EventType.UPDATED, replace(WITH_ID, provisional=True), LATER)

    assert forgotten(event) == replace(event, subject_ref=None, outcome=None, provisional=False, err_code=None)


@pytest.mark.parametrize(
    ("wanted", "is_match"),
    [
        (EventFilter(), True),
        (EventFilter(client="shop"), True),
        (EventFilter(client="bank"), False),
        (EventFilter(client="shop", types=(EventType.FAILED, EventType.UPDATED)), True),
        (EventFilter(types=(EventType.FAILED,)), False),
    ],
)
def test_filter_selects_by_client_and_type(wanted: EventFilter, *, is_match: bool) -> None:
    assert matches(wanted, describe(EventType.UPDATED, WITH_ID, LATER)) is is_match


class Reported(Life):
    """Any life, and a receiver that knows its events only."""

    def __init__(self) -> None:
        super().__init__()
        self.known: Event | None = None

    def become(self, row: Verification) -> None:
        kind = change_of(self.row, row)
        if kind:
            row = replace(row, event_count=self.row.event_count + 1)
            event = describe(kind, row, self.now)
            assert event.revision == (self.known.revision or 0 if self.known else 0) + 1
            self.known = event
        super().become(row)

    @invariant()
    def newest_event_says_what_a_reader_sees(self) -> None:
        assert (self.known is None) is (self.row.event_count == 0)
        if self.known is None:
            assert self.row.state is State.PENDING
        elif self.row.state is State.PENDING:
            assert self.known.state is State.PENDING
        else:
            fields = ("rule_id", "subject_ref", "state", "outcome", "provisional", "err_code")
            assert [getattr(self.known, name) for name in fields] == [getattr(self.row, name) for name in fields]


def test_receiver_of_all_events_knows_every_settled_verification() -> None:
    run_state_machine_as_test(Reported, settings=settings(max_examples=60, stateful_step_count=25))
