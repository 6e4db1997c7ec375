"""The redirect service without the rest of the service."""

from collections.abc import Callable
from datetime import datetime

from app.sealing.keyring import KeyRing
from app.sealing.personal_data import PersonalDataCipher
from app.services.audit import AuditService
from app.services.intake import IntakeService
from app.services.limits import LimitService, LimitSettings
from app.services.redirects import RedirectService
from app.services.rule_settings import RuleSettings, RulesSettings
from app.storage.database import Database
from app.storage.wakeups import Wakeups


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
