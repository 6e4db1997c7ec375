"""The composition root, the only place that builds services: for the API, the worker, the command line and tests."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
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


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Services:
    """All services that need no credentials of Tencent, and what they are built on.

    Each service is built when it is first used. That cannot fail: what can is opened by `open_services`.
    """

    settings: Settings
    database: Database
    media_store: MediaStore
    cipher: PersonalDataCipher
    wakeups: Wakeups
    webhook_client: WebhookClient
    provider: OidcClient | None
    base_clock: Clock

    @property
    def clock(self) -> Clock:
        """The clock of all services."""
        return self.clocks.clock

    @cached_property
    def clocks(self) -> ClockService:
        return ClockService(
            database=self.database, clock=self.base_clock, accounts=self.settings.faceid.all_accounts.values()
        )

    @cached_property
    def limits(self) -> LimitService:
        return LimitService(settings=self.settings.limits)

    @cached_property
    def audit(self) -> AuditService:
        return AuditService(database=self.database, keyring=self.cipher.keyring, clock=self.clock, limits=self.limits)

    @cached_property
    def api_keys(self) -> ApiKeyService:
        return ApiKeyService(database=self.database, keyring=self.cipher.keyring, audit=self.audit, clock=self.clock)

    @cached_property
    def intake(self) -> IntakeService:
        return IntakeService(
            rules=self.settings.rules,
            cipher=self.cipher,
            audit=self.audit,
            database=self.database,
            wakeups=self.wakeups,
            clock=self.clock,
            limits=self.limits,
        )

    @cached_property
    def backfill(self) -> BackfillService:
        return BackfillService(intake=self.intake, database=self.database, wakeups=self.wakeups, clock=self.clock)

    @cached_property
    def redirects(self) -> RedirectService:
        return RedirectService(
            intake=self.intake,
            rules=self.settings.rules,
            keyring=self.cipher.keyring,
            database=self.database,
            wakeups=self.wakeups,
            clock=self.clock,
        )

    @cached_property
    def signatures(self) -> SignatureService:
        return SignatureService(self.settings.signatures, self.clock)

    @cached_property
    def read(self) -> ReadService:
        return ReadService(
            database=self.database,
            audit=self.audit,
            cipher=self.cipher,
            wakeups=self.wakeups,
            api_keys=self.api_keys,
            limits=self.limits,
        )

    @cached_property
    def history(self) -> HistoryService:
        return HistoryService(database=self.database, read=self.read)

    @cached_property
    def media(self) -> MediaService:
        return MediaService(read=self.read, store=self.media_store, cipher=self.cipher, audit=self.audit)

    @cached_property
    def media_guard(self) -> MediaGuard:
        return MediaGuard(database=self.database, store=self.media_store)

    @cached_property
    def orphans(self) -> OrphanService:
        return OrphanService(database=self.database, media=self.media_store, media_guard=self.media_guard)

    @cached_property
    def erase(self) -> EraseService:
        return EraseService(
            database=self.database,
            cipher=self.cipher,
            media=self.media_store,
            audit=self.audit,
            clocks=self.clocks,
            limits=self.limits,
        )

    @cached_property
    def disclosures(self) -> DisclosureService:
        return DisclosureService(
            database=self.database,
            read=self.read,
            media=self.media,
            cipher=self.cipher,
            keyring=self.cipher.keyring,
            audit=self.audit,
            clock=self.clock,
        )

    @cached_property
    def export(self) -> ExportService:
        return ExportService(read=self.read, audit=self.audit, limits=self.limits, clock=self.clock)

    @cached_property
    def counts(self) -> CountService:
        return CountService(database=self.database, limits=self.limits, clock=self.clock)

    @cached_property
    def overview(self) -> OverviewService:
        return OverviewService(
            database=self.database,
            read=self.read,
            health=self.health,
            clock=self.clock,
            zone=ZoneInfo(self.settings.console.console_time_zone),
        )

    @cached_property
    def events(self) -> EventService:
        return EventService(database=self.database, wakeups=self.wakeups, api_keys=self.api_keys, limits=self.limits)

    @cached_property
    def streams(self) -> StreamService:
        return StreamService(
            database=self.database, wakeups=self.wakeups, api_keys=self.api_keys, limits=self.limits, events=self.events
        )

    @cached_property
    def outbox(self) -> OutboxService:
        return OutboxService(
            database=self.database, wakeups=self.wakeups, clocks=self.clocks, on_positioned=[self.deliver.fan_out]
        )

    @cached_property
    def endpoint_secrets(self) -> SecretCipher:
        return SecretCipher(self.cipher.keyring)

    @cached_property
    def webhook_endpoints(self) -> WebhookEndpointService:
        return WebhookEndpointService(
            database=self.database,
            secrets=self.endpoint_secrets,
            client=self.webhook_client,
            audit=self.audit,
            limits=self.limits,
            wakeups=self.wakeups,
            clock=self.clock,
        )

    @cached_property
    def deliver(self) -> DeliverService:
        return DeliverService(
            database=self.database, secrets=self.endpoint_secrets, client=self.webhook_client, clock=self.clock
        )

    @cached_property
    def deliveries(self) -> DeliveryService:
        return DeliveryService(
            database=self.database, wakeups=self.wakeups, audit=self.audit, limits=self.limits, clock=self.clock
        )

    @cached_property
    def key_rotation(self) -> KeyRotationService:
        return KeyRotationService(
            database=self.database,
            cipher=self.cipher,
            api_keys=self.api_keys,
            endpoint_secrets=self.endpoint_secrets,
            clock=self.clock,
        )

    @cached_property
    def sessions(self) -> SessionService:
        return SessionService(
            database=self.database,
            keyring=self.cipher.keyring,
            api_keys=self.api_keys,
            audit=self.audit,
            clock=self.clock,
            grants_digest=self.settings.oidc.digest if self.provider else "",
        )

    @cached_property
    def single_sign_on(self) -> SingleSignOnService | None:
        if self.provider is None:
            return None
        return SingleSignOnService(
            settings=self.settings.oidc,
            provider=self.provider,
            sessions=self.sessions,
            keyring=self.cipher.keyring,
            clock=self.clock,
        )

    @cached_property
    def health(self) -> HealthService:
        return HealthService(database=self.database, clock=self.clock, folders=self.media_guard.folders().values())

    @cached_property
    def gauges(self) -> GaugeService:
        accounts = self.settings.faceid.all_accounts
        return GaugeService(
            database=self.database,
            health=self.health,
            clock=self.clock,
            rates={name: account.requests_per_second for name, account in accounts.items()},
            folders=self.media_guard.folders(),
        )

    @cached_property
    def workers(self) -> WorkerService:
        return WorkerService(database=self.database, clock=self.clock)


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
        services = Services(
            settings=settings,
            database=database,
            media_store=media_store,
            cipher=cipher,
            wakeups=wakeups,
            webhook_client=webhook_client,
            provider=_new_provider(settings),
            base_clock=clock or SteadyClock(),
        )
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


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"DATA_DIR cannot be created: {path.absolute()}: {error.strerror}.") from None
