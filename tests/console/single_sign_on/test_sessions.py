"""Sessions of people: when they end."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import update

from app.config import Settings
from app.console.visits import COOKIE
from app.domain.api_key import Scope
from app.domain.session import GRANTED_LIFETIME
from app.storage.tables import console_session
from tests.support.clocks import ShiftedClock
from tests.support.console import browser
from tests.support.oidc import CLAIM, Provider, signed_in
from tests.support.service import Running, running


async def test_session_of_a_person_ends_after_its_lifetime_however_much_it_is_used(
    clocked: tuple[Running, ShiftedClock], provider: Provider
) -> None:
    service, clock = clocked
    async with browser(service) as client:
        await signed_in(client, provider)
        found = []
        while clock.ahead < GRANTED_LIFETIME:
            found.append((await client.get("/admin")).status_code)
            clock.ahead += timedelta(minutes=20)
        end = await client.get("/admin")

    assert found == [200] * 12
    assert (end.status_code, end.headers["Location"]) == (303, "/admin/login")


@pytest.mark.parametrize(
    "change",
    [{"oidc_admin_values": "others"}, {"oidc_roles": {}}, {"oidc_issuer": None}, {"oidc_client_id": "other"}],
    ids=lambda change: next(iter(change)),
)
async def test_sessions_of_people_end_when_the_roles_change(
    settings: Settings, provider: Provider, change: dict[str, object]
) -> None:
    async with running(settings, with_worker=False) as service, browser(service) as client:
        await signed_in(client, provider)
        cookies = {COOKIE: client.cookies[COOKIE]}
    other = replace(settings, oidc=settings.oidc.model_copy(update=change))
    found = []
    for each in (settings, other):
        async with running(each, with_worker=False) as service, browser(service) as client:
            client.cookies.update(cookies)
            found.append((await client.get("/admin")).status_code)

    assert found == [200, 303]


async def test_session_of_a_person_that_was_changed_in_the_database_ends(service: Running, provider: Provider) -> None:
    provider.claims = {CLAIM: ["support"]}
    async with browser(service) as client:
        await signed_in(client, provider)
        async with service.services.database.write() as tx:
            await tx.connection.execute(update(console_session).values(scopes=[Scope.ADMIN]))
        answer = await client.get("/admin")

    assert answer.status_code == 303
