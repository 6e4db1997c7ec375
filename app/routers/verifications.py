"""Step 7 of the story: business systems and admins register, wait for, read and pull again."""

from typing import Annotated

import structlog
from fastapi import APIRouter, Header, Path, Query, Response

from app.domain.detection import Outcome
from app.domain.verification import Filter, State
from app.routers.dependencies import Notifier, Provided, Reader, Revealer
from app.routers.models import (
    BizToken,
    HeaderLine,
    Identity,
    Line,
    Moment,
    Registration,
    RuleId,
    VerificationPage,
    VerificationStanding,
    VerificationView,
)
from app.routers.problems import KEYED, declared

router = APIRouter(prefix="/v1/verifications", tags=["verifications"])

Token = Annotated[BizToken, Path()]


@router.put(
    "/{biz_token}",
    responses={
        201: {"model": VerificationStanding, "description": "It was not known before."},
        **declared(*KEYED, 400, 404, 409),
    },
)
async def register(
    services: Provided, caller: Notifier, biz_token: Token, response: Response, registration: Registration | None = None
) -> VerificationStanding:
    """Register a token when DetectAuth returned it: from then on its result is retrieved even without a callback."""
    facts = (registration or Registration()).facts()
    verification, is_new = await services.receive.register(caller, biz_token, facts)
    response.status_code = 201 if is_new else 200
    return VerificationStanding.of(verification)


@router.get("/{biz_token}", responses=declared(*KEYED, 404))
async def get(
    services: Provided,
    caller: Reader,
    biz_token: Token,
    wait: Annotated[float, Query(ge=0, le=60, description="Seconds to wait while the state is pending.")] = 0,
) -> VerificationView:
    """State, verdict, masked identity, media and retrieval of one verification."""
    return VerificationView.of(await services.query.wait(caller, biz_token, wait))


@router.get("", responses=declared(*KEYED, 400))
async def search(
    services: Provided,
    caller: Reader,
    state: State | None = None,
    outcome: Outcome | None = None,
    rule_id: RuleId | None = None,
    subject_ref: Line | None = None,
    received_from: Annotated[Moment | None, Query(description="Called back at this instant or later.")] = None,
    received_to: Annotated[Moment | None, Query(description="Called back before this instant.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> VerificationPage:
    """The newest first, a page at a time."""
    wanted = Filter(
        state=state,
        outcome=outcome,
        rule_id=rule_id,
        subject_ref=subject_ref,
        received_from=received_from,
        received_to=received_to,
    )
    page = await services.query.search(caller, wanted, limit=limit, cursor=cursor)
    return VerificationPage(
        items=[VerificationView.of(result) for result in page.results], next_cursor=page.next_cursor
    )


@router.get("/{biz_token}/identity", responses=declared(*KEYED, 404))
async def reveal(
    services: Provided,
    caller: Revealer,
    biz_token: Token,
    x_purpose: Annotated[HeaderLine, Header(description="Why this is looked at; goes on record.")],
) -> Identity:
    """Every text field unmasked. The look is on record before it is answered."""
    request_id = structlog.contextvars.get_contextvars()["request_id"]
    return Identity.of(await services.query.reveal(caller, biz_token, purpose=x_purpose, request_id=request_id))


@router.post("/{biz_token}/retrieve", status_code=202, responses=declared(*KEYED, 404))
async def retrieve_again(services: Provided, caller: Notifier, biz_token: Token) -> VerificationStanding:
    """Pull the result again now. A stored one stays readable until a newer one takes its place."""
    return VerificationStanding.of(await services.receive.retrieve_again(caller, biz_token))
