"""Redirects: issued and followed over HTTP, and the redirect service without the rest of the service."""

import asyncio
from collections.abc import Callable
from datetime import datetime

import httpx

from app.sealing.keyring import KeyRing
from app.sealing.personal_data import PersonalDataCipher
from app.services.audit import AuditService
from app.services.intake import IntakeService
from app.services.limits import LimitService, LimitSettings
from app.services.redirects import RedirectService
from app.services.rule_settings import RuleSettings, RulesSettings
from app.storage.database import Database
from app.storage.wakeups import Wakeups
from tests.support.api import PAGE, STATEFUL
from tests.support.service import Running
from tests.support.simulator import Caller, LiveSimulator

PATH = "/v1/redirects"


async def issue_redirect(api: httpx.AsyncClient) -> dict[str, str]:
    """Returns a new state, and the nonce for the Extra of its run."""
    answer = await api.post(PATH, json={"rule_id": STATEFUL})
    assert answer.status_code == 201
    redirect: dict[str, str] = answer.json()
    return redirect


async def browse(service: Running, biz_token: str, state: str | None = None) -> None:
    """Calls the redirect endpoint like a browser that returns from Tencent."""
    params = {"BizToken": biz_token} | ({} if state is None else {"state": state})
    async with service.client(None) as browser:
        answer = await browser.get("/v1/callbacks/redirect", params=params)
    assert (answer.status_code, answer.headers["Location"], answer.content) == (303, PAGE, b"")


async def detect_auth(faceid: LiveSimulator, extra: str) -> str:
    """Begins a run with this Extra like a merchant's back end; returns its token."""
    answer = await Caller(faceid.simulator).call("DetectAuth", {"RuleId": STATEFUL, "Extra": extra})
    biz_token: str = answer["BizToken"]
    return biz_token


async def wait_for_hints() -> None:
    """Returns when all hints have been processed."""
    async with asyncio.timeout(20):
        while tasks := [task for task in asyncio.all_tasks() if task.get_name() == "hints"]:
            await asyncio.wait(tasks)


def redirect_service(database: Database, keyring: KeyRing, clock: Callable[[], datetime]) -> RedirectService:
    """Returns a redirect service whose default rule has redirect_state."""
    rules = RulesSettings(faceid_rule_id="1", rules={"1": RuleSettings(redirect_state=True)})
    wakeups = Wakeups()
    intake = IntakeService(
        rules=rules,
        cipher=PersonalDataCipher(keyring),
        audit=AuditService(database=database, keyring=keyring, clock=clock),
        database=database,
        wakeups=wakeups,
        clock=clock,
        limits=LimitService(settings=LimitSettings()),
    )
    return RedirectService(intake=intake, rules=rules, keyring=keyring, database=database, wakeups=wakeups, clock=clock)
