"""Step 7 of the story: business systems and admins register, wait for, read and pull again."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from app.domain.detection import Outcome
from app.domain.verification import Filter, State
from app.routers.dependencies import Admin, Eraser, Notifier, Purpose, Reader, RequestId, Revealer, services_of
from app.routers.models import (
    BizToken,
    Identity,
    Line,
    Moment,
    PersonSearch,
    Registration,
    RuleId,
    VerificationPage,
    VerificationStanding,
    VerificationView,
)
from app.routers.problems import KEYED, declared

router = APIRouter(prefix="/v1/verifications", tags=["verifications"])

Token = Annotated[BizToken, Path()]


@router.post("/search", responses=declared(*KEYED, 400, 429))
async def find(request: Request, caller: Reader, request_id: RequestId, wanted: PersonSearch) -> VerificationPage:
    """One person's verifications by the exact ID number, or by it and the exact name. The search goes on record."""
    page = await services_of(request).query.find(
        caller, wanted.filter(), wanted.person(), limit=wanted.limit, cursor=wanted.cursor, request_id=request_id
    )
    return VerificationPage(
        items=[VerificationView.of(result) for result in page.results], next_cursor=page.next_cursor
    )


@router.get("/{biz_token}", responses=declared(*KEYED, 404, 410))
async def get(
    request: Request,
    caller: Reader,
    biz_token: Token,
    wait: Annotated[float, Query(ge=0, le=60, description="Seconds to wait while the state is pending.")] = 0,
) -> VerificationView:
    """State, verdict, masked identity, media and retrieval of one verification."""
    return VerificationView.of(await services_of(request).query.wait(caller, biz_token, wait))


@router.put(
    "/{biz_token}",
    responses={
        201: {"model": VerificationStanding, "description": "It was not known before."},
        **declared(*KEYED, 400, 404, 409),
    },
)
async def register(
    request: Request, caller: Notifier, biz_token: Token, response: Response, registration: Registration | None = None
) -> VerificationStanding:
    """Register a token when DetectAuth returned it: from then on its result is retrieved even without a callback."""
    facts = (registration or Registration()).facts()
    verification, is_new = await services_of(request).receive.register(caller, biz_token, facts)
    response.status_code = 201 if is_new else 200
    return VerificationStanding.of(verification)


@router.get("", responses=declared(*KEYED, 400))
async def search(
    request: Request,
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
    """The newest first, a page at a time; in a range of receipt, what was received last, unless a subject is named."""
    wanted = Filter(
        state=state,
        outcome=outcome,
        rule_id=rule_id,
        subject_ref=subject_ref,
        received_from=received_from,
        received_to=received_to,
    )
    page = await services_of(request).query.search(caller, wanted, limit=limit, cursor=cursor)
    return VerificationPage(
        items=[VerificationView.of(result) for result in page.results], next_cursor=page.next_cursor
    )


@router.delete("/{biz_token}", status_code=204, responses=declared(*KEYED, 404, 409))
async def erase(request: Request, caller: Eraser, biz_token: Token, request_id: RequestId) -> None:
    """Erase text, media and the keys to them. What stays is the fact that it was erased."""
    await services_of(request).erase.erase(caller, biz_token, request_id=request_id)


@router.put("/{biz_token}/legal-hold", status_code=204, responses=declared(*KEYED, 404))
async def hold(request: Request, caller: Admin, biz_token: Token, purpose: Purpose, request_id: RequestId) -> None:
    """Keep a verification from every erasure."""
    await services_of(request).erase.hold(caller, biz_token, is_held=True, purpose=purpose, request_id=request_id)


@router.delete("/{biz_token}/legal-hold", status_code=204, responses=declared(*KEYED, 404))
async def release(request: Request, caller: Admin, biz_token: Token, purpose: Purpose, request_id: RequestId) -> None:
    """Let a verification go again; what is overdue is erased within a minute."""
    await services_of(request).erase.hold(caller, biz_token, is_held=False, purpose=purpose, request_id=request_id)


@router.get("/{biz_token}/identity", responses=declared(*KEYED, 404, 410))
async def reveal(
    request: Request,
    caller: Revealer,
    biz_token: Token,
    purpose: Purpose,
    request_id: RequestId,
) -> Identity:
    """Every text field unmasked. The look is on record before it is answered."""
    return Identity.of(
        await services_of(request).query.reveal(caller, biz_token, purpose=purpose, request_id=request_id)
    )


@router.post("/{biz_token}/retrieve", status_code=202, responses=declared(*KEYED, 404, 410))
async def retrieve_again(request: Request, caller: Notifier, biz_token: Token) -> VerificationStanding:
    """Pull the result again now. A stored one stays readable until a newer one takes its place."""
    return VerificationStanding.of(await services_of(request).receive.retrieve_again(caller, biz_token))
