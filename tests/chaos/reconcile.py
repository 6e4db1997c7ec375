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
from app.domain.detection import MediaKind, Medium
from app.domain.verification import Verification
from app.factory import open_services
from app.sealing.aead import context_of
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
    owners: Mapping[int, Verification]
    verifications: Mapping[str, Row]
    detections: Mapping[int, Sequence[Row]]
    attempts: Mapping[int, Sequence[Row]]
    media: Mapping[int, Sequence[Row]]
    calls: Mapping[int, Sequence[Row]]

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
    row = stored.verifications.get(token.biz_token)
    if row is None or acknowledged.received - {row["received_at"]}:
        findings.lost.append(f"{token.biz_token}: {'received at another instant' if row else 'there is no row'}")
        return
    if acknowledged.is_registered and row["registered_at"] is None:
        findings.lost.append(f"{token.biz_token}: it was registered")
    if row["state"] == "pending" or row["leased"]:
        findings.open.append(f"{token.biz_token}: {row['state']}, due at {row['due_at']}, {row['last_error_code']}")
        return
    key = row["id"]
    media = stored.media.get(key, ())
    found = [
        *_differences("row", row, _expected_row(token, acknowledged)),
        *_wrong_texts(token, stored.detections.get(key, ())),
        *_wrong_attempts(token, stored.attempts.get(key, ())),
        *_wrong_media(token, media, stored.vault, stored.owners[key], store),
        *_wrong_calls(row, stored.calls.get(key, ()), answered[token.biz_token]),
    ]
    findings.wrong += [f"{token.biz_token}: {text}" for text in found]
    findings.dangling += [f"{token.biz_token}: {text}" for text in _dangling(media, store)]
    if row["outcome"] == "passed":
        waited = row["retrieved_at"] - (row["received_at"] or row["registered_at"])
        findings.seconds[token.biz_token] = max(waited.total_seconds(), 0)  # a poll may come before the callback


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


def _wrong_texts(token: Token, texts: Sequence[Row]) -> Iterator[str]:
    if len(texts) != (token.story.state == "retrieved"):
        yield f"{len(texts)} detections"
    for text in texts:
        yield from _differences("text", text, _expected_text(token))


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


def _wrong_attempts(token: Token, attempts: Sequence[Row]) -> Iterator[str]:
    expected = 0 if token.story.state != "retrieved" else 3 if token.story.err_code else 1
    if len(attempts) != expected:
        yield f"{len(attempts)} liveness attempts, not {expected}"
    person = person_of(token.biz_token)
    for attempt in attempts:
        yield from _differences("attempt", attempt, {"id_card": person.id_card, "name": person.name})


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
            owners = {row.id: as_verification(row) for row in await tx.execute(select(tables.verification))}
        vault = Vault(KeyRing(settings.keyring_path))
        texts, attempts, media, calls = [
            _by_verification(await _rows(database, table))
            for table in (tables.detection, tables.liveness_attempt, tables.media, tables.upstream_call)
        ]
        opened = {
            key: vault.open_text(owners[key], SealedText(rows[0], attempts.get(key, ()))) for key, rows in texts.items()
        }
        return _Stored(
            vault,
            owners,
            {owner.biz_token: asdict(owner) | {"callback_extra": vault.open_extra(owner)} for owner in owners.values()},
            {key: [asdict(text)] for key, text in opened.items()},
            {key: [asdict(attempt) for attempt in text.liveness_attempts] for key, text in opened.items()},
            media,
            calls,
        )
    finally:
        await database.aclose()


async def _rows(database: Database, table: Table) -> list[Row]:
    async with database.read() as tx:
        return [row._asdict() for row in await tx.execute(select(table))]


def _by_verification(rows: Sequence[Row]) -> Mapping[int, Sequence[Row]]:
    grouped = defaultdict(list)
    for row in rows:
        grouped[row["verification_id"]].append(row)
    return grouped
