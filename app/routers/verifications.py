"""Step 7 of the story: business systems and admins register, wait, read, search, erase and retrieve again."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from app.domain.rate import RateClass
from app.routers.connections import while_connected
from app.routers.dependencies import AdminWithPurpose, ClientName, Eraser, Notifier, Reader, Revealer, services_of
from app.routers.problems import AUTH_ERRORS, declared
from app.routers.rates import limited
from app.routers.rejections import StrictRoute
from app.routers.schemas import (
    BizToken,
    Identity,
    ListQuery,
    PersonSearch,
    Registration,
    VerificationPage,
    VerificationStanding,
    VerificationView,
)

router = APIRouter(prefix="/v1/verifications", tags=["verifications"], route_class=StrictRoute)

Token = Annotated[BizToken, Path()]
_HOLD_ERRORS = declared(*AUTH_ERRORS, 404, 409)


@router.post("/search", responses=declared(*AUTH_ERRORS, 400), openapi_extra=limited(RateClass.SEARCHES))
async def search_verifications(request: Request, actor: Reader, wanted: PersonSearch) -> VerificationPage:
    """Finds one person's verifications by the exact ID number, or number and exact name. Audited."""
    page = await services_of(request).read.search_person(
        actor, wanted.filter(), wanted.person(), limit=wanted.limit, cursor=wanted.cursor
    )
    return VerificationPage.of(page, actor.caller.client)


@router.get("/{biz_token}", responses=declared(*AUTH_ERRORS, 404, 409, 410), openapi_extra=limited(RateClass.READS))
async def get_verification(
    request: Request,
    actor: Reader,
    biz_token: Token,
    wait: Annotated[float, Query(ge=0, le=60, description="Seconds to wait while the state is pending.")] = 0,
    client: ClientName = None,
) -> VerificationView:
    """Returns the state, verdict, masked identity, media and retrieval of one verification.

    A wait ends when its caller disconnects. Each key, and the service, holds a limited number of waits at a time; more
    are answered with 429 `too_many_waits`.
    """
    read = services_of(request).read.wait(actor, biz_token, wait, client=client)
    result = await (while_connected(request, read) if wait else read)
    return VerificationView.of(result, actor.caller.client)


@router.put(
    "/{biz_token}",
    responses={
        201: {"model": VerificationStanding, "description": "The token is new."},
        **declared(*AUTH_ERRORS, 400, 409),
    },
    openapi_extra=limited(RateClass.INTAKE),
)
async def register_verification(
    request: Request,
    actor: Notifier,
    biz_token: Token,
    response: Response,
    registration: Registration | None = None,
    client: ClientName = None,
) -> VerificationStanding:
    """Registers a token when DetectAuth returned it. Its result is then retrieved even without a callback."""
    facts = (registration or Registration()).facts()
    accepted = await services_of(request).intake.register(actor, biz_token, facts, client=client)
    response.status_code = 201 if accepted.is_new else 200
    return VerificationStanding.of(accepted.verification)


@router.get("", responses=declared(*AUTH_ERRORS, 400), openapi_extra=limited(RateClass.LISTS))
async def list_verifications(
    request: Request, actor: Reader, wanted: Annotated[ListQuery, Query()]
) -> VerificationPage:
    """Lists verifications, newest first. With a range of time and no subject, in the order of that time."""
    page = await services_of(request).read.list(actor, wanted.filter(), limit=wanted.limit, cursor=wanted.cursor)
    return VerificationPage.of(page, actor.caller.client)


@router.delete(
    "/{biz_token}",
    status_code=204,
    responses=declared(*AUTH_ERRORS, 404, 409),
    openapi_extra=limited(RateClass.ERASURES),
)
async def erase_verification(request: Request, actor: Eraser, biz_token: Token, client: ClientName = None) -> None:
    """Erases the text, the media and their keys. Only the fact that it was erased stays."""
    await services_of(request).erase.erase(actor, biz_token, client=client)


@router.put(
    "/{biz_token}/legal-hold", status_code=204, responses=_HOLD_ERRORS, openapi_extra=limited(RateClass.ERASURES)
)
async def set_legal_hold(
    request: Request, actor: AdminWithPurpose, biz_token: Token, client: ClientName = None
) -> None:
    """Sets the legal hold, which prevents every erasure."""
    await services_of(request).erase.hold(actor, biz_token, is_held=True, client=client)


@router.delete(
    "/{biz_token}/legal-hold", status_code=204, responses=_HOLD_ERRORS, openapi_extra=limited(RateClass.ERASURES)
)
async def lift_legal_hold(
    request: Request, actor: AdminWithPurpose, biz_token: Token, client: ClientName = None
) -> None:
    """Lifts the legal hold. Overdue data is erased within a minute."""
    await services_of(request).erase.hold(actor, biz_token, is_held=False, client=client)


@router.get(
    "/{biz_token}/identity", responses=declared(*AUTH_ERRORS, 404, 409, 410), openapi_extra=limited(RateClass.REVEALS)
)
async def get_identity(request: Request, actor: Revealer, biz_token: Token, client: ClientName = None) -> Identity:
    """Returns every text field unmasked. Audited before the response."""
    return Identity.of(await services_of(request).read.reveal(actor, biz_token, client=client))


@router.post(
    "/{biz_token}/retrieve",
    status_code=202,
    responses=declared(*AUTH_ERRORS, 404, 409, 410),
    openapi_extra=limited(RateClass.RETRIEVE),
)
async def retrieve_verification(
    request: Request, actor: Notifier, biz_token: Token, client: ClientName = None
) -> VerificationStanding:
    """Retrieves the result again now. A stored one stays readable until a newer one replaces it."""
    return VerificationStanding.of(await services_of(request).intake.retrieve_again(actor, biz_token, client=client))
