"""What was acknowledged against what is there: the database, the media store, the people, FaceID's own ledger.

Rows are read by statements of their own and files by their names, not through the services that wrote them; what is
sealed in them is opened with the key ring.
"""

import hashlib
import os
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.cobblestone import Cobblestone256Decryptor
from sqlalchemy import Table, func, or_, select

from app.config import Settings
from app.domain.detection import Detection, LivenessAttempt, MediaKind, Medium, Outcome
from app.domain.verification import State, Verification
from app.factory import open_services
from app.sealing.aead import AlteredError, context_of
from app.sealing.keyring import KeyRing
from app.services.vault import Vault
from app.storage import tables
from app.storage.database import Database
from app.storage.results import SealedText
from app.storage.verifications import as_verification
from simulator.ledger import Entry
from simulator.media import media_of
from simulator.people import person_of
from tests.chaos.plan import Token
from tests.chaos.upstream import VIDEO_BYTES

_SOON = timedelta(minutes=5)  # a provisional verdict is looked at again in about two hours
_AGED_SECONDS = 2 * 3600  # older than any fetch, and than what the sweeper leaves alone
_NEVER_ANSWERS = {"cut", "garbage"}  # and the gateways: the ledger has them, whoever called got nothing

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What the service answered of one token: the instants by which it named its first callback."""

    received: frozenset[datetime]
    is_registered: bool


@dataclass(kw_only=True)
class Findings:
    """Tokens with what is the matter with them, and the objects and drafts that no row names."""

    lost: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    dangling: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    calls: int = 0
    refused: int = 0
    media: int = 0
    objects_before: int = 0
    objects_after: int = 0
    drafts_before: int = 0
    drafts_after: int = 0


@dataclass(frozen=True, slots=True)
class Store:
    """The folder of the media store."""

    root: Path

    def objects(self) -> set[str]:
        """The keys of all objects."""
        return {f"{file.parent.name}/{file.name}" for file in self.root.glob("[0-9a-f][0-9a-f]/*")}

    def drafts(self) -> set[Path]:
        """What somebody began to write."""
        return set((self.root / ".spool").glob("*"))

    def age(self) -> None:
        """Makes everything old enough to be swept."""
        then = time.time() - _AGED_SECONDS
        for file in (*self.drafts(), *(self.root / key for key in self.objects())):
            os.utime(file, (then, then))


@dataclass(frozen=True, slots=True)
class _Stored:
    """Everything that the database has."""

    vault: Vault
    verifications: Mapping[str, Verification]
    texts: Mapping[int, SealedText]
    media: Mapping[int, Sequence[Row]]
    calls: Mapping[int, Sequence[Row]]

    def text(self, owner: Verification) -> Detection | None:
        """The text of a verification.

        Raises:
            AlteredError: it cannot be opened.
        """
        sealed = self.texts.get(owner.id)
        return self.vault.open_text(owner, sealed) if sealed else None

    @property
    def keys(self) -> set[str]:
        """The objects that rows name."""
        return {row["object_key"] for rows in self.media.values() for row in rows}


async def count_open(database: Database) -> int:
    """How many verifications are being worked on, or will be within minutes."""
    table = tables.verification
    soon = table.c.due_at < datetime.now(UTC) + _SOON
    statement = select(func.count()).where(or_(table.c.state == "pending", table.c.leased, soon))
    async with database.read() as tx:
        return (await tx.execute(statement)).scalar_one()


async def reconcile(
    tokens: Sequence[Token],
    acknowledged: Mapping[str, Acknowledged],
    settings: Settings,
    store: Store,
    ledger: Sequence[Entry],
) -> Findings:
    """Compares it all, and sweeps in between: what rows name must be there afterwards, and nothing else."""
    stored = await _read(settings)
    findings = Findings(
        calls=len(ledger),
        refused=sum(entry.code == "RequestLimitExceeded" and entry.scenario is None for entry in ledger),
        media=len(stored.keys),
        objects_before=len(store.objects() - stored.keys),
        drafts_before=len(store.drafts()),
    )
    store.age()
    async with open_services(settings) as services:
        await services.sweep.sweep()
    findings.objects_after = len(store.objects() - stored.keys)
    findings.drafts_after = len(store.drafts())
    answered = _answered(ledger)
    for token in tokens:
        if token.biz_token in acknowledged:
            _judge(findings, token, acknowledged[token.biz_token], stored, store, answered)
    strangers = {*stored.verifications, *answered} - {token.biz_token for token in tokens}
    findings.wrong += [f"{biz_token}: nobody told of it" for biz_token in strangers]
    return findings


def _answered(ledger: Collection[Entry]) -> Counter[str]:
    """How many answers FaceID gave for each token that its caller could read."""
    return Counter(
        entry.biz_token
        for entry in ledger
        if entry.biz_token
        and entry.scenario
        and entry.code is None
        and entry.scenario not in _NEVER_ANSWERS
        and not entry.scenario.startswith("http")
    )


def _judge(
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
    if owner.state is State.PENDING or owner.leased:
        findings.open.append(f"{token.biz_token}: {owner.state}, due at {owner.due_at}, {owner.last_error_code}")
        return
    media, calls = stored.media.get(owner.id, ()), stored.calls.get(owner.id, ())
    try:
        row = asdict(owner) | {"callback_extra": stored.vault.open_extra(owner)}
        found = [
            *_differences("row", row, _expected_row(token, acknowledged)),
            *_wrong_texts(token, stored.text(owner)),
            *_wrong_media(token, media, stored.vault, owner, store),
            *_wrong_calls(row, calls, answered[token.biz_token]),
        ]
    except AlteredError as error:
        found = [str(error)]
    findings.wrong += [f"{token.biz_token}: {text}" for text in found]
    findings.dangling += [f"{token.biz_token}: {text}" for text in _dangling(media, store)]
    begun_at = owner.received_at or owner.registered_at
    if owner.outcome is Outcome.PASSED and owner.retrieved_at and begun_at:
        # A poll may come before the callback.
        findings.seconds[token.biz_token] = max((owner.retrieved_at - begun_at).total_seconds(), 0)


def _differences(where: str, found: Row, expected: Row) -> Iterator[str]:
    for name, value in expected.items():
        if found[name] != value:
            yield f"{where} has {name} {found[name]!r}, not {value!r}"


def _expected_row(token: Token, acknowledged: Acknowledged) -> Row:
    is_retrieved = token.story.state == "retrieved"
    outcome = "failed" if token.story.err_code else "passed"
    values: dict[str, Any] = {
        "state": token.story.state,
        "outcome": outcome if is_retrieved else None,
        "provisional": token.story.err_code != 0,
        "leased": False,
    }
    if acknowledged.received:
        values["callback_extra"] = token.extra
    if acknowledged.is_registered:
        values["subject_ref"] = token.subject_ref
    return values


def _wrong_texts(token: Token, text: Detection | None) -> Iterator[str]:
    if (text is None) == (token.story.state == "retrieved"):
        yield "there is a text" if text else "there is no text"
    if text:
        yield from _differences("text", asdict(text), _expected_text(token))
        yield from _wrong_attempts(token, text.liveness_attempts)


def _expected_text(token: Token) -> Row:
    person = person_of(token.biz_token)
    return {
        "err_code": token.story.err_code,
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
    expected = 3 if token.story.err_code else 1
    if len(attempts) != expected:
        yield f"{len(attempts)} liveness attempts, not {expected}"
    person = person_of(token.biz_token)
    for attempt in attempts:
        yield from _differences("attempt", asdict(attempt), {"id_card": person.id_card, "name": person.name})


def _wrong_media(token: Token, media: Sequence[Row], vault: Vault, owner: Verification, store: Store) -> Iterator[str]:
    contents = media_of(token.biz_token, video_bytes=VIDEO_BYTES) if token.story.state == "retrieved" else {}
    if not token.story.has_video:
        del contents[MediaKind.LIVENESS_VIDEO]
    if {row["kind"]: _content(vault, owner, row, store) for row in media} != {**contents}:
        yield f"other media: {sorted(row['kind'] for row in media)}"


def _content(vault: Vault, owner: Verification, row: Row, store: Store) -> bytes | None:
    """The medium's bytes, opened by the library alone; None if the object is not there."""
    path = store.root / row["object_key"]
    if not path.is_file():
        return None
    names = [known.name for known in fields(Medium)]
    medium = Medium(**{name: row[name] for name in names} | {"kind": MediaKind(row["kind"])})
    decryptor = Cobblestone256Decryptor(vault.medium_key(owner, medium), context_of("blob"))
    return decryptor.update(path.read_bytes()) + decryptor.finalize()


def _wrong_calls(row: Row, calls: Sequence[Row], answered: int) -> Iterator[str]:
    if sum(call["error_code"] is None for call in calls) > answered:
        yield f"more answers on record than the {answered} that FaceID gave"
    if row["attempts"] > len(calls):
        yield f"{row['attempts']} attempts, and {len(calls)} calls on record"


def _dangling(media: Sequence[Row], store: Store) -> Iterator[str]:
    for row in media:
        path = store.root / row["object_key"]
        content = path.read_bytes() if path.is_file() else None
        if content is None:
            yield f"{row['kind']} is not there"
        elif hashlib.sha256(content).hexdigest() != row["sha256"]:
            yield f"{row['kind']} is another file"


async def _read(settings: Settings) -> _Stored:
    database = Database(settings)
    try:
        async with database.read() as tx:
            owners = [as_verification(row) for row in await tx.execute(select(tables.verification))]
        texts, attempts, media, calls = [
            _by_verification(await _rows(database, table))
            for table in (tables.detection, tables.liveness_attempt, tables.media, tables.upstream_call)
        ]
    finally:
        await database.aclose()
    return _Stored(
        Vault(KeyRing(settings.keyring_path)),
        {owner.biz_token: owner for owner in owners},
        {key: SealedText(rows[0], attempts.get(key, ())) for key, rows in texts.items()},
        media,
        calls,
    )


async def _rows(database: Database, table: Table) -> list[Row]:
    """All rows in the order of their keys: the position of an attempt is part of what it is sealed for."""
    async with database.read() as tx:
        return [row._asdict() for row in await tx.execute(select(table).order_by(*table.primary_key))]


def _by_verification(rows: Sequence[Row]) -> Mapping[int, Sequence[Row]]:
    grouped = defaultdict(list)
    for row in rows:
        grouped[row["verification_id"]].append(row)
    return grouped
