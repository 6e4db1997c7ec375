"""The composition root: builds the services from the settings, for the API, the worker, the command line and tests."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from app.config import Settings
from app.errors import SetUpError
from app.faceid.client import FaceIdClient
from app.services.access import AccessService
from app.services.audit import AuditService
from app.services.claim import Account, ClaimService
from app.services.erase import EraseService
from app.services.health import HealthService
from app.services.newcomers import Newcomers
from app.services.query import QueryService
from app.services.receive import ReceiveService
from app.services.reconcile import ReconcileService
from app.services.record import RecordService
from app.services.redirect import RedirectService
from app.services.retrieve import RetrieveService
from app.services.rotate import RotateService
from app.services.signatures import SignatureService
from app.services.sweep import SweepService
from app.services.vault import Vault, open_keyring
from app.storage import schema
from app.storage.audit import AuditStore
from app.storage.database import Database
from app.storage.keys import KeyStore
from app.storage.media import MediaStore, open_media_store
from app.storage.pauses import PauseStore
from app.storage.queue import Queue
from app.storage.quota import QuotaStore
from app.storage.reconciliations import ReconciliationStore
from app.storage.results import ResultStore
from app.storage.sealed import SealedStore
from app.storage.signals import Signals, open_signals
from app.storage.verifications import VerificationStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything that the API answers with, and the stores below for whoever builds more."""

    settings: Settings
    database: Database
    media: MediaStore
    vault: Vault
    signals: Signals
    access: AccessService
    audit: AuditService
    erase: EraseService
    health: HealthService
    query: QueryService
    receive: ReceiveService
    redirect: RedirectService
    signatures: SignatureService
    sweep: SweepService


def now() -> datetime:
    """The service's clock: aware, UTC."""
    return datetime.now(UTC)


@asynccontextmanager
async def open_services(settings: Settings, *, clock: Callable[[], datetime] = now) -> AsyncIterator[Services]:
    """The services over open stores, which close in reverse order. Within a running event loop.

    The embedded database is brought to the schema of this version.

    Raises:
        SetUpError: a setting is wrong, the key ring is missing or another database's, or a database that others share
            has another schema.
        UnavailableError: the database does not answer.
    """
    async with AsyncExitStack() as stack:
        if settings.database_url is None or settings.media_url is None:
            _make_folder(settings.data_dir)
        database = Database(settings)
        stack.push_async_callback(database.aclose)
        if database.is_embedded:
            await schema.migrate(database)
        else:
            await schema.require_current(database)
        vault = Vault(await open_keyring(settings.keyring_path, database))
        media = open_media_store(settings)
        stack.push_async_callback(media.aclose)
        signals = open_signals(database)
        stack.push_async_callback(signals.aclose)
        services = _compose(settings, database, media, vault, signals, clock)
        stack.push_async_callback(services.redirect.aclose)
        yield services


@asynccontextmanager
async def open_retrieval(services: Services, *, clock: Callable[[], datetime] = now) -> AsyncIterator[RetrieveService]:
    """The service that talks to Tencent; only workers need it, and only they need credentials.

    Raises:
        SetUpError: the credentials are missing, or the endpoint is no address.
    """
    async with open_accounts(services.settings) as accounts:
        yield retrieval(services, accounts, clock=clock)


@asynccontextmanager
async def open_accounts(settings: Settings) -> AsyncIterator[Sequence[Account]]:
    """The accounts, each with its client of Tencent. Raises as `open_retrieval`."""
    async with AsyncExitStack() as stack:
        yield [
            Account(
                name=name,
                faceid=await stack.enter_async_context(
                    FaceIdClient(settings, name, connections=settings.worker_concurrency)
                ),
                interval=timedelta(seconds=1 / account.requests_per_second),
            )
            for name, account in settings.all_accounts.items()
        ]


def reconciliation(
    services: Services, accounts: Sequence[Account], *, clock: Callable[[], datetime] = now
) -> ReconcileService:
    """The service that reads Tencent's bills."""
    return ReconcileService(
        accounts=accounts,
        rules=services.settings,
        newcomers=Newcomers(services.settings, services.vault),
        receive=services.settings,
        database=services.database,
        verifications=VerificationStore(),
        reconciliations=ReconciliationStore(),
        signals=services.signals,
        clock=clock,
    )


def retrieval(
    services: Services, accounts: Sequence[Account], *, clock: Callable[[], datetime] = now
) -> RetrieveService:
    """The service that retrieves."""
    quota, pauses = QuotaStore(), PauseStore()
    claims = ClaimService(
        accounts=accounts,
        rules=services.settings,
        database=services.database,
        queue=Queue(),
        quota=quota,
        pauses=pauses,
        clock=clock,
    )
    records = RecordService(
        database=services.database,
        verifications=VerificationStore(),
        results=ResultStore(),
        quota=quota,
        pauses=pauses,
        signals=services.signals,
        clock=clock,
    )
    return RetrieveService(
        claims=claims,
        rules=services.settings,
        records=records,
        media=services.media,
        vault=services.vault,
        signals=services.signals,
        clock=clock,
    )


def rotation(services: Services, *, clock: Callable[[], datetime] = now) -> RotateService:
    """The service that rotates the key ring."""
    return RotateService(
        database=services.database,
        vault=services.vault,
        sealed=SealedStore(),
        keys=KeyStore(),
        results=ResultStore(),
        clock=clock,
    )


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SetUpError(f"DATA_DIR cannot be made: {error.strerror}.") from None


def _compose(
    settings: Settings,
    database: Database,
    media: MediaStore,
    vault: Vault,
    signals: Signals,
    clock: Callable[[], datetime],
) -> Services:
    verifications, results = VerificationStore(), ResultStore()
    audit = AuditService(database=database, audit=AuditStore(), clock=clock)
    return Services(
        settings=settings,
        database=database,
        media=media,
        vault=vault,
        signals=signals,
        access=AccessService(database=database, keys=KeyStore(), keyring=vault.keyring, audit=audit, clock=clock),
        audit=audit,
        erase=EraseService(
            database=database, verifications=verifications, results=results, media=media, audit=audit, clock=clock
        ),
        health=HealthService(
            database=database, verifications=verifications, pauses=PauseStore(), results=results, clock=clock
        ),
        query=QueryService(
            database=database,
            verifications=verifications,
            results=results,
            audit=audit,
            quota=QuotaStore(),
            media=media,
            vault=vault,
            signals=signals,
            clock=clock,
        ),
        receive=ReceiveService(
            settings=settings,
            newcomers=Newcomers(settings, vault),
            vault=vault,
            database=database,
            verifications=verifications,
            signals=signals,
            clock=clock,
        ),
        redirect=RedirectService(
            settings=settings,
            rules=settings,
            newcomers=Newcomers(settings, vault),
            keyring=vault.keyring,
            database=database,
            verifications=verifications,
            signals=signals,
            clock=clock,
        ),
        signatures=SignatureService(settings, clock),
        sweep=SweepService(database=database, results=results, media=media, clock=clock),
    )
