"""The composition root, the only place that builds services: for the API, the worker, the command line and tests."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from app.config import Settings
from app.domain.api_key import ApiKey
from app.domain.verification import Verification
from app.domain.webhook_endpoint import WebhookEndpoint
from app.errors import ConfigurationError
from app.faceid.client import FaceIdClient
from app.oidc.client import OidcClient
from app.sealing.aead import TamperedDataError
from app.sealing.endpoint_secrets import SecretCipher
from app.sealing.keyring import KeyRing, Ring, is_open_to_others
from app.sealing.personal_data import PersonalDataCipher
from app.services.api_keys import ApiKeyService
from app.services.audit import AuditService
from app.services.backfill import BackfillService
from app.services.billing import BillingService
from app.services.claim import Account, ClaimService
from app.services.clock import Clock, ClockService, SteadyClock
from app.services.counts import CountService
from app.services.deliver import DeliverService
from app.services.deliveries import DeliveryService
from app.services.disclosures import DisclosureService
from app.services.erase import EraseService
from app.services.events import EventService
from app.services.export import ExportService
from app.services.gauges import GaugeService
from app.services.health import HealthService
from app.services.history import HistoryService
from app.services.intake import IntakeService
from app.services.key_rotation import KeyRotationService
from app.services.limits import LimitService
from app.services.media import MediaService
from app.services.media_guard import MediaGuard
from app.services.orphans import OrphanService
from app.services.outbox import OutboxService
from app.services.overview import OverviewService
from app.services.pauses import PauseService
from app.services.read import ReadService
from app.services.record import RecordService
from app.services.redirects import RedirectService
from app.services.retrieve import RetrieveService
from app.services.sessions import SessionService
from app.services.single_sign_on import SingleSignOnService
from app.services.streams import StreamService
from app.services.webhook_endpoints import WebhookEndpointService
from app.services.webhook_signatures import SignatureService
from app.services.workers import WorkerService
from app.storage import schema
from app.storage.database import Database
from app.storage.media import MediaStore, open_media_store
from app.storage.wakeups import EVENTS, Wakeups, open_wakeups
from app.webhooks.client import WebhookClient

# So many altered rows in a row would make the right key ring look wrong.
_SAMPLES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """All services that need no credentials of Tencent, and what they are built on."""

    settings: Settings
    clocks: ClockService
    database: Database
    media_store: MediaStore
    cipher: PersonalDataCipher
    wakeups: Wakeups
    api_keys: ApiKeyService
    audit: AuditService
    backfill: BackfillService
    deliver: DeliverService
    deliveries: DeliveryService
    disclosures: DisclosureService
    counts: CountService
    erase: EraseService
    events: EventService
    export: ExportService
    gauges: GaugeService
    health: HealthService
    history: HistoryService
    intake: IntakeService
    key_rotation: KeyRotationService
    limits: LimitService
    media: MediaService
    media_guard: MediaGuard
    orphans: OrphanService
    outbox: OutboxService
    overview: OverviewService
    read: ReadService
    redirects: RedirectService
    sessions: SessionService
    signatures: SignatureService
    single_sign_on: SingleSignOnService | None
    streams: StreamService
    webhook_client: WebhookClient
    webhook_endpoints: WebhookEndpointService
    workers: WorkerService

    @property
    def clock(self) -> Clock:
        """The clock of all services."""
        return self.clocks.clock


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalServices:
    """The services that call Tencent. Only workers need them, and only they need credentials."""

    claims: ClaimService
    retrieve: RetrieveService
    pauses: PauseService
    billing: BillingService


@asynccontextmanager
async def open_services(settings: Settings, *, clock: Clock | None = None) -> AsyncIterator[Services]:
    """Opens the stores and builds the services. Call it within a running event loop.

    The embedded database is migrated to the schema of this version. Without a `clock` the services use the database's
    time, or with an embedded database the machine's.

    Raises:
        ConfigurationError: a setting is wrong, the key ring is missing or belongs to another database, or a shared
            database has another schema.
        UnavailableError: the database does not answer.
    """
    async with AsyncExitStack() as stack:
        if settings.database.database_url is None or settings.media.media_url is None:
            _make_folder(settings.database.data_dir)
        database = Database(settings.database)
        stack.push_async_callback(database.aclose)
        if database.is_embedded:
            await schema.migrate(database)
        else:
            await schema.require_current(database)
        cipher = PersonalDataCipher(await open_keyring(settings.keyring.keyring_path, database))
        media_store = open_media_store(settings.media)
        stack.push_async_callback(media_store.aclose)
        wakeups = open_wakeups(database)
        database.on_events = lambda: wakeups.send(EVENTS)
        stack.push_async_callback(wakeups.aclose)
        webhook_client = WebhookClient(settings.webhooks)
        stack.callback(webhook_client.close)
        services = build(settings, database, media_store, cipher, wakeups, webhook_client, clock or SteadyClock())
        await services.clocks.follow()
        stack.push_async_callback(services.audit.aclose)
        stack.push_async_callback(services.redirects.aclose)
        stack.push_async_callback(services.streams.aclose)
        yield services


@asynccontextmanager
async def open_retrieval(services: Services) -> AsyncIterator[RetrievalServices]:
    """Opens a client for each account of Tencent and builds the services that need them.

    Raises:
        ConfigurationError: credentials are missing, or an endpoint is malformed.
    """
    settings = services.settings
    async with AsyncExitStack() as stack:
        accounts = {name: await _open_account(stack, services, name) for name in settings.faceid.all_accounts}
        claims = ClaimService(
            accounts=accounts.values(),
            rules=settings.rules,
            database=services.database,
            clocks=services.clocks,
            media_guard=services.media_guard,
        )
        records = RecordService(
            database=services.database, cipher=services.cipher, wakeups=services.wakeups, clock=services.clock
        )
        yield RetrievalServices(
            claims=claims,
            retrieve=RetrieveService(
                claims=claims,
                records=records,
                rules=settings.rules,
                database=services.database,
                media=services.media_store,
                cipher=services.cipher,
                wakeups=services.wakeups,
                clocks=services.clocks,
                media_guard=services.media_guard,
            ),
            pauses=PauseService(
                database=services.database, cipher=services.cipher, wakeups=services.wakeups, clocks=services.clocks
            ),
            billing=BillingService(
                accounts=accounts,
                rules=settings.rules,
                intake=services.intake,
                database=services.database,
                wakeups=services.wakeups,
                clocks=services.clocks,
            ),
        )


async def _open_account(stack: AsyncExitStack, services: Services, name: str) -> Account:
    """Opens the client of an account of Tencent, until the stack is closed."""
    faceid, process = services.settings.faceid, services.settings.process
    client = FaceIdClient(faceid, name, connections=process.worker_concurrency, clock=services.clocks.signing_clock)
    interval = timedelta(seconds=1 / faceid.all_accounts[name].requests_per_second)
    return Account(name=name, faceid=await stack.enter_async_context(client), interval=interval)


async def has_sealed_rows(database: Database) -> bool:
    """Returns whether the database contains anything that only its key ring can decrypt."""
    return any(await _sealed_samples(database))


async def open_keyring(path: Path, database: Database) -> KeyRing:
    """Opens the key ring of a database. Only the first start of the embedded database creates one.

    Raises:
        ConfigurationError: the key ring is missing, belongs to another database, or can be read by other users.
    """
    keyring = await _open_keyring(path, database)
    if is_open_to_others(path):
        raise ConfigurationError(f"Other users may read KEYRING_FILE. Run `chmod 600 {path}`.")
    return keyring


async def _open_keyring(path: Path, database: Database) -> KeyRing:
    if not await has_sealed_rows(database):
        return KeyRing.create(path) if database.is_embedded else KeyRing(path)
    try:
        keyring = KeyRing(path)
    except ConfigurationError:
        raise ConfigurationError(
            f"KEYRING_FILE ({path}) does not exist or is not a key ring, and the database contains data that only its "
            "key ring decrypts. Restore the key ring from its copy."
        ) from None
    if not _decrypts(keyring, *await _sealed_samples(database)):
        raise ConfigurationError("KEYRING_FILE is not the key ring that this database was encrypted with.")
    return keyring


async def _sealed_samples(
    database: Database,
) -> tuple[Sequence[Verification], Sequence[ApiKey], Sequence[WebhookEndpoint]]:
    """Returns values that only the key ring of the database decrypts: verifications, API keys and endpoints."""
    async with database.read() as tx:
        verifications = await tx.verifications.list_newest_sealed(limit=_SAMPLES)
        keys = [key for key in await tx.api_keys.list() if key.has_digest]
        return verifications, keys, await tx.webhook_endpoints.list(limit=_SAMPLES)


def _decrypts(
    keyring: KeyRing,
    verifications: Iterable[Verification],
    api_keys: Iterable[ApiKey],
    endpoints: Iterable[WebhookEndpoint],
) -> bool:
    """Returns whether the key ring decrypts any of the values. Altered ones do not prove that it is the wrong one."""
    for verification in verifications:
        with suppress(TamperedDataError):
            PersonalDataCipher(keyring).rewrapped(verification)
            return True
    for key in api_keys:
        with suppress(TamperedDataError):
            keyring.unwrap(Ring.IDENTITY, key.sealed_digest, *key.bound_values)
            return True
    for endpoint in endpoints:
        with suppress(TamperedDataError):
            keyring.unwrap(Ring.IDENTITY, endpoint.sealed_secret, *endpoint.bound_values)
            return True
    return False


def _new_provider(settings: Settings) -> OidcClient | None:
    """Returns a client of the provider of single sign-on; None if the console has none."""
    has_provider = settings.console.console and settings.oidc.oidc_issuer is not None
    return OidcClient(settings.oidc) if has_provider else None


def build(
    settings: Settings,
    database: Database,
    media_store: MediaStore,
    cipher: PersonalDataCipher,
    wakeups: Wakeups,
    webhook_client: WebhookClient,
    clock: Clock,
) -> Services:
    """Builds the services on open stores."""
    clocks = ClockService(database=database, clock=clock, accounts=settings.faceid.all_accounts.values())
    limits = LimitService(settings=settings.limits)
    audit = AuditService(database=database, keyring=cipher.keyring, clock=clock, limits=limits)
    api_keys = ApiKeyService(database=database, keyring=cipher.keyring, audit=audit, clock=clock)
    media_guard = MediaGuard(database=database, store=media_store)
    endpoint_secrets = SecretCipher(cipher.keyring)
    deliver = DeliverService(database=database, secrets=endpoint_secrets, client=webhook_client, clock=clock)
    read = ReadService(database=database, audit=audit, cipher=cipher, wakeups=wakeups, api_keys=api_keys, limits=limits)
    events = EventService(database=database, wakeups=wakeups, api_keys=api_keys, limits=limits)
    media = MediaService(read=read, store=media_store, cipher=cipher, audit=audit)
    health = HealthService(database=database, clock=clock, folders=media_guard.folders().values())
    provider = _new_provider(settings)
    sessions = SessionService(
        database=database,
        keyring=cipher.keyring,
        api_keys=api_keys,
        audit=audit,
        clock=clock,
        grants_digest=settings.oidc.digest if provider else "",
    )
    intake = IntakeService(
        rules=settings.rules,
        cipher=cipher,
        audit=audit,
        database=database,
        wakeups=wakeups,
        clock=clock,
        limits=limits,
    )
    return Services(
        settings=settings,
        clocks=clocks,
        database=database,
        media_store=media_store,
        cipher=cipher,
        wakeups=wakeups,
        api_keys=api_keys,
        audit=audit,
        backfill=BackfillService(intake=intake, database=database, wakeups=wakeups, clock=clock),
        deliver=deliver,
        deliveries=DeliveryService(database=database, wakeups=wakeups, audit=audit, limits=limits, clock=clock),
        disclosures=DisclosureService(
            database=database,
            read=read,
            media=media,
            cipher=cipher,
            keyring=cipher.keyring,
            audit=audit,
            clock=clock,
        ),
        counts=CountService(database=database, limits=limits, clock=clock),
        erase=EraseService(
            database=database, cipher=cipher, media=media_store, audit=audit, clocks=clocks, limits=limits
        ),
        events=events,
        export=ExportService(read=read, audit=audit, limits=limits, clock=clock),
        gauges=GaugeService(
            database=database,
            health=health,
            clock=clock,
            rates={name: account.requests_per_second for name, account in settings.faceid.all_accounts.items()},
            folders=media_guard.folders(),
        ),
        health=health,
        history=HistoryService(database=database, read=read),
        intake=intake,
        key_rotation=KeyRotationService(
            database=database, cipher=cipher, api_keys=api_keys, endpoint_secrets=endpoint_secrets, clock=clock
        ),
        limits=limits,
        media=media,
        media_guard=media_guard,
        orphans=OrphanService(database=database, media=media_store, media_guard=media_guard),
        outbox=OutboxService(database=database, wakeups=wakeups, clocks=clocks, on_positioned=[deliver.fan_out]),
        overview=OverviewService(
            database=database, read=read, health=health, clock=clock, zone=ZoneInfo(settings.console.console_time_zone)
        ),
        read=read,
        redirects=RedirectService(
            intake=intake,
            rules=settings.rules,
            keyring=cipher.keyring,
            database=database,
            wakeups=wakeups,
            clock=clock,
        ),
        sessions=sessions,
        signatures=SignatureService(settings.signatures, clock),
        single_sign_on=SingleSignOnService(
            settings=settings.oidc, provider=provider, sessions=sessions, keyring=cipher.keyring, clock=clock
        )
        if provider
        else None,
        streams=StreamService(database=database, wakeups=wakeups, api_keys=api_keys, limits=limits, events=events),
        webhook_client=webhook_client,
        webhook_endpoints=WebhookEndpointService(
            database=database,
            secrets=endpoint_secrets,
            client=webhook_client,
            audit=audit,
            limits=limits,
            wakeups=wakeups,
            clock=clock,
        ),
        workers=WorkerService(database=database, clock=clock),
    )


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"DATA_DIR cannot be created: {path.absolute()}: {error.strerror}.") from None
