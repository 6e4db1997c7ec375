"""Compares the acknowledgements with what is stored, with the simulated persons, FaceID's ledger and the webhooks.

Rows are read by separate statements and files by their names, not through the services that wrote them. Encrypted
values are decrypted with the key ring.
"""

import hashlib
import os
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import obstore
from cryptography.cobblestone import Cobblestone256Decryptor
from sqlalchemy import Table, func, or_, select

from app.config import Settings
from app.domain.decision import TOKEN_LIFETIME
from app.domain.detection import Detection, LivenessAttempt, Outcome, SealedText
from app.domain.media import MediaItem, MediaKind
from app.domain.verification import Priority, State, Verification
from app.factory import Services, open_services
from app.sealing.aead import TamperedDataError, context_of
from app.sealing.keyring import KeyRing
from app.sealing.personal_data import PersonalDataCipher
from app.storage import tables
from app.storage.database import Database
from app.storage.media.s3 import BucketStore
from app.storage.verifications import as_verification
from app.storage.webhook_tables import delivery
from simulator.ledger import Entry
from simulator.media import media_of
from simulator.people import person_of
from tests.chaos.inbox import Inbox
from tests.chaos.plan import Token
from tests.chaos.upstream import VIDEO_BYTES
from tests.support.servers import S3

_SOON = timedelta(minutes=5)
# Older than any fetch, and than the files that the sweeper keeps.
_AGED_SECONDS = 2 * 3600
# The ledger has these calls, and those with gateway errors, but their callers got no answer.
_NEVER_ANSWERS = {"cut", "garbage"}

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The acknowledgements of one token: every `received_at`, and whether a registration was among them."""

    received: frozenset[datetime]
    is_registered: bool


@dataclass(kw_only=True)
class Findings:
    """The problems of tokens, and the numbers of calls, media, events, deliveries, and files that no row names.

    A token is unreported if its events or their deliveries are not what happened to it.
    """

    lost: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    dangling: list[str] = field(default_factory=list)
    unreported: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    calls: int = 0
    refused: int = 0
    media: int = 0
    events: int = 0
    deliveries: int = 0
    objects_before: int = 0
    objects_after: int = 0
    spool_files_before: int = 0
    spool_files_after: int = 0


class Store(Protocol):
    """The media store, read without the code that wrote it."""

    async def objects(self) -> set[str]:
        """Returns the keys of all objects."""
        ...

    async def read(self, key: str) -> bytes | None:
        """Returns the bytes of an object; None if it does not exist."""
        ...

    def spool_files(self) -> set[Path]:
        """Returns the spool files."""
        ...

    async def sweep(self, services: Services) -> None:
        """Sweeps orphans as if all files were old enough."""
        ...


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder of a media store."""

    root: Path

    async def objects(self) -> set[str]:
        """See `Store`."""
        return {f"{file.parent.name}/{file.name}" for file in self.root.glob("[0-9a-f][0-9a-f]/*")}

    async def read(self, key: str) -> bytes | None:
        """See `Store`."""
        path = self.root / key
        return path.read_bytes() if path.is_file() else None

    def spool_files(self) -> set[Path]:
        """See `Store`."""
        return set((self.root / ".spool").glob("*"))

    async def sweep(self, services: Services) -> None:
        """See `Store`."""
        _age([*self.spool_files(), *self.root.glob("[0-9a-f][0-9a-f]/*")])
        await services.orphans.sweep()


@dataclass(frozen=True, slots=True)
class Bucket:
    """The bucket of a media store, below a prefix, and the folder of its spool."""

    server: S3
    prefix: str
    spool: Path

    async def objects(self) -> set[str]:
        """See `Store`."""
        listed = [found["path"] async for page in obstore.list(self.server.store(), self.prefix) for found in page]
        keys = {path.removeprefix(f"{self.prefix}/") for path in listed}
        return {key for key in keys if "/" in key}

    async def read(self, key: str) -> bytes | None:
        """See `Store`."""
        try:
            found = await obstore.get_async(self.server.store(), f"{self.prefix}/{key}")
        except FileNotFoundError:
            return None
        return bytes(await found.bytes_async())

    def spool_files(self) -> set[Path]:
        """See `Store`."""
        return set(self.spool.glob("*"))

    async def sweep(self, services: Services) -> None:
        """See `Store`."""
        _age([*self.spool_files()])
        await replace(services.orphans, media=_LaterBucket(services.settings.media)).sweep()


class _LaterBucket(BucketStore):
    """A bucket whose clock is ahead of the one that dated its objects: their age cannot be changed."""

    async def mark(self, owner: str) -> datetime:
        """See `MediaStore`."""
        return await super().mark(owner) + timedelta(seconds=_AGED_SECONDS)


def _age(files: Collection[Path]) -> None:
    then = time.time() - _AGED_SECONDS
    for file in files:
        os.utime(file, (then, then))


@dataclass(frozen=True, slots=True)
class _Stored:
    """The content of the database."""

    cipher: PersonalDataCipher
    verifications: Mapping[str, Verification]
    texts: Mapping[int, SealedText]
    media: Mapping[int, Sequence[Row]]
    calls: Mapping[int, Sequence[Row]]
    events: Mapping[int, Sequence[Row]]

    def text(self, owner: Verification) -> Detection | None:
        """Returns the text of a verification.

        Raises:
            TamperedDataError: the text cannot be decrypted.
        """
        sealed = self.texts.get(owner.id)
        return self.cipher.open_text(owner, sealed) if sealed else None

    @property
    def keys(self) -> set[str]:
        """The keys of the objects that rows name."""
        return {row["object_key"] for rows in self.media.values() for row in rows}


async def count_open(database: Database) -> int:
    """Returns how many verifications are pending, leased or due within minutes, and how many events are to be reported.

    A video that stays away may be due, and so may a provisional verdict, which is settled after its token has ended.
    """
    table, event = tables.verification, tables.event
    soon = (table.c.due_at < datetime.now(UTC) + _SOON) & (table.c.priority < Priority.LAST) & ~table.c.provisional
    statements = [
        select(func.count()).where(or_(table.c.state == "pending", table.c.is_leased, soon)),
        select(func.count()).where(event.c.position.is_(None)),
        select(func.count()).where(delivery.c.state == "pending"),
    ]
    async with database.read() as tx:
        return sum([(await tx.connection.execute(statement)).scalar_one() for statement in statements])


async def reconcile(
    tokens: Sequence[Token],
    acknowledged: Mapping[str, Acknowledged],
    settings: Settings,
    store: Store,
    ledger: Sequence[Entry],
    inbox: Inbox,
) -> Findings:
    """Compares everything, and sweeps in between. After the sweep the store must have the named objects only."""
    stored = await _read(settings)
    findings = Findings(
        calls=len(ledger),
        refused=sum(entry.code == "RequestLimitExceeded" and entry.scenario is None for entry in ledger),
        media=len(stored.keys),
        events=sum(map(len, stored.events.values())),
        deliveries=sum(map(len, inbox.arrived.values())),
        objects_before=len(await store.objects() - stored.keys),
        spool_files_before=len(store.spool_files()),
    )
    async with open_services(settings) as services:
        await store.sweep(services)
    findings.objects_after = len(await store.objects() - stored.keys)
    findings.spool_files_after = len(store.spool_files())
    answered = _answered(ledger)
    for token in tokens:
        if token.biz_token in acknowledged:
            await _check(findings, token, acknowledged[token.biz_token], stored, store, answered)
            findings.unreported += _unreported(token, stored, inbox)
    unsent = {*stored.verifications, *answered} - {token.biz_token for token in tokens}
    findings.wrong += [f"{biz_token}: was never sent" for biz_token in unsent]
    findings.unreported += [
        f"{row['public_id']}: it has no position"
        for rows in stored.events.values()
        for row in rows
        if row["position"] is None
    ]
    findings.unreported += ["a message has a wrong signature"] * inbox.forged
    return findings


def _unreported(token: Token, stored: _Stored, inbox: Inbox) -> Iterator[str]:
    """Yields what is wrong with the events of a token, and with their deliveries."""
    owner, arrived = stored.verifications.get(token.biz_token), inbox.arrived[token.biz_token]
    if owner is None:
        return
    events = sorted(stored.events.get(owner.id, ()), key=lambda row: row["position"] or 0)
    if [row["revision"] for row in events] != list(range(1, owner.event_count + 1)):
        yield f"{token.biz_token}: {owner.event_count} events, with the revisions {[row['revision'] for row in events]}"
    if owner.state is not State.PENDING and (not events or events[-1]["state"] is not owner.state):
        yield f"{token.biz_token}: no event reports that it is {owner.state}"
    # At least once, and a repetition before the next one.
    if list(dict.fromkeys(arrived)) != [(row["revision"], row["public_id"]) for row in events]:
        yield f"{token.biz_token}: other messages than events: {arrived}"
    if arrived != sorted(arrived, key=lambda message: message[0]):
        yield f"{token.biz_token}: an older event after a newer one: {arrived}"


def _answered(ledger: Collection[Entry]) -> Counter[str]:
    """Counts FaceID's answers that their callers could read, by token."""
    return Counter(
        entry.biz_token
        for entry in ledger
        if entry.biz_token
        and entry.scenario
        and entry.code is None
        and entry.scenario not in _NEVER_ANSWERS
        and not entry.scenario.startswith("http")
    )


async def _check(
    findings: Findings,
    token: Token,
    acknowledged: Acknowledged,
    stored: _Stored,
    store: Store,
    answered: Mapping[str, int],
) -> None:
    owner = stored.verifications.get(token.biz_token)
    if owner is None or acknowledged.received - {owner.received_at}:
        findings.lost.append(f"{token.biz_token}: {'received at another instant' if owner else 'there is no row'}")
        return
    if acknowledged.is_registered and owner.registered_at is None:
        findings.lost.append(f"{token.biz_token}: it was registered")
    if owner.state is State.PENDING or owner.is_leased:
        findings.open.append(f"{token.biz_token}: {owner.state}, due at {owner.due_at}, {owner.last_error_code}")
        return
    media, calls = stored.media.get(owner.id, ()), stored.calls.get(owner.id, ())
    contents = {row["kind"]: await store.read(row["object_key"]) for row in media}
    try:
        row = asdict(owner) | {"callback_extra": stored.cipher.open_extra(owner)}
        found = [
            *_differences("row", row, _expected_row(token, acknowledged, owner)),
            *_wrong_texts(token, stored.text(owner)),
            *_wrong_media(token, media, stored.cipher, owner, contents),
            *_wrong_calls(row, calls, answered[token.biz_token]),
        ]
    except TamperedDataError as error:
        found = [str(error)]
    findings.wrong += [f"{token.biz_token}: {text}" for text in found]
    findings.dangling += [f"{token.biz_token}: {text}" for text in _dangling(media, contents)]
    begun_at = owner.received_at or owner.registered_at
    if owner.outcome is Outcome.PASSED and owner.retrieved_at and begun_at:
        # A poll may come before the callback.
        findings.seconds[token.biz_token] = max((owner.retrieved_at - begun_at).total_seconds(), 0)


def _differences(where: str, found: Row, expected: Row) -> Iterator[str]:
    for name, value in expected.items():
        if found[name] != value:
            yield f"{where} has {name} {found[name]!r}, not {value!r}"


def _expected_row(token: Token, acknowledged: Acknowledged, owner: Verification) -> Row:
    # The person of an old token can no longer change a verdict.
    is_settled = owner.retrieved_at is not None and owner.retrieved_at >= owner.born_at + TOKEN_LIFETIME
    is_retrieved = token.scenario.state == "retrieved"
    outcome = "failed" if token.scenario.err_code else "passed"
    values: dict[str, Any] = {
        "state": token.scenario.state,
        "outcome": outcome if is_retrieved else None,
        "provisional": token.scenario.err_code != 0 and not is_settled,
        "is_leased": False,
    }
    if acknowledged.received:
        values["callback_extra"] = token.extra
    if acknowledged.is_registered:
        values["subject_ref"] = token.subject_ref
    return values


def _wrong_texts(token: Token, text: Detection | None) -> Iterator[str]:
    if (text is None) == (token.scenario.state == "retrieved"):
        yield "there is a text" if text else "there is no text"
    if text:
        yield from _differences("text", asdict(text), _expected_text(token))
        yield from _wrong_attempts(token, text.liveness_attempts)


def _expected_text(token: Token) -> Row:
    person = person_of(token.biz_token)
    return {
        "err_code": token.scenario.err_code,
        "id_card": person.id_card,
        "name": person.name,
        "ocr_nation": person.nation,
        "ocr_address": person.address,
        "ocr_authority": person.authority,
        "ocr_valid_date": person.valid_date,
        "ocr_name": person.name,
        "ocr_id_card": person.id_card,
        "ocr_gender": person.gender,
        "location": person.location,
    }


def _wrong_attempts(token: Token, attempts: Sequence[LivenessAttempt]) -> Iterator[str]:
    expected = 3 if token.scenario.err_code else 1
    if len(attempts) != expected:
        yield f"{len(attempts)} liveness attempts, not {expected}"
    person = person_of(token.biz_token)
    for attempt in attempts:
        yield from _differences("attempt", asdict(attempt), {"id_card": person.id_card, "name": person.name})


def _wrong_media(
    token: Token,
    media: Sequence[Row],
    cipher: PersonalDataCipher,
    owner: Verification,
    contents: Mapping[str, bytes | None],
) -> Iterator[str]:
    expected = media_of(token.biz_token, video_bytes=VIDEO_BYTES) if token.scenario.state == "retrieved" else {}
    if not token.scenario.has_video:
        del expected[MediaKind.LIVENESS_VIDEO]
    if {row["kind"]: _decrypted(cipher, owner, row, contents[row["kind"]]) for row in media} != {**expected}:
        yield f"other media: {sorted(row['kind'] for row in media)}"


def _decrypted(cipher: PersonalDataCipher, owner: Verification, row: Row, content: bytes | None) -> bytes | None:
    """Returns the bytes of an item, decrypted by the library alone, or None if the object is missing."""
    if content is None:
        return None
    names = [known.name for known in fields(MediaItem)]
    item = MediaItem(**{name: row[name] for name in names} | {"kind": MediaKind(row["kind"])})
    decryptor = Cobblestone256Decryptor(cipher.media_key(owner, item), context_of("blob"))
    return decryptor.update(content) + decryptor.finalize()


def _wrong_calls(row: Row, calls: Sequence[Row], answered: int) -> Iterator[str]:
    if sum(call["error_code"] is None for call in calls) > answered:
        yield f"more recorded answers than the {answered} of FaceID"
    if row["attempts"] > len(calls):
        yield f"{row['attempts']} attempts, and {len(calls)} recorded calls"


def _dangling(media: Sequence[Row], contents: Mapping[str, bytes | None]) -> Iterator[str]:
    for row in media:
        content = contents[row["kind"]]
        if content is None:
            yield f"{row['kind']} is missing"
        elif hashlib.sha256(content).hexdigest() != row["sha256"]:
            yield f"{row['kind']} has another hash"


async def _read(settings: Settings) -> _Stored:
    database = Database(settings.database)
    try:
        async with database.read() as tx:
            owners = [as_verification(row) for row in await tx.connection.execute(select(tables.verification))]
        texts, attempts, media, calls, events = [
            _by_verification(await _rows(database, table))
            for table in (tables.detection, tables.liveness_attempt, tables.media, tables.upstream_call, tables.event)
        ]
    finally:
        await database.aclose()
    return _Stored(
        PersonalDataCipher(KeyRing(settings.keyring.keyring_path)),
        {owner.biz_token: owner for owner in owners},
        {key: SealedText(rows[0], attempts.get(key, ())) for key, rows in texts.items()},
        media,
        calls,
        events,
    )


async def _rows(database: Database, table: Table) -> list[Row]:
    """Returns all rows in key order, because the position of an attempt is part of its encryption context."""
    async with database.read() as tx:
        return [row._asdict() for row in await tx.connection.execute(select(table).order_by(*table.primary_key))]


def _by_verification(rows: Sequence[Row]) -> Mapping[int, Sequence[Row]]:
    grouped = defaultdict(list)
    for row in rows:
        grouped[row["verification_id"]].append(row)
    return grouped
