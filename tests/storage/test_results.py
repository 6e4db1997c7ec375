"""A result comes out of either database as it went in, and its newest version is the only one."""

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from app.domain.detection import Detection, LivenessAttempt, MediaKind, Medium
from app.domain.verification import Call, Verification
from app.errors import ServiceError
from app.sealing.keyring import KeyRing
from app.services.vault import Vault
from app.storage.database import Database
from app.storage.results import ResultStore
from app.storage.verifications import VerificationStore

RESULTS = ResultStore()
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
NUMBERS = count()
with TemporaryDirectory() as folder:
    VAULT = Vault(KeyRing.create(Path(folder) / "keyring.json"))
OWNER = Verification(
    client="default",
    biz_token="owner",
    rule_id="1",
    sealed_key=VAULT.new_key("default", "owner"),
    due_at=None,
    deadline_at=NOW,
)

texts = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
codes = st.none() | st.integers(-999_999_999, 999_999_999)
json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text("aÄ丁\"'\\"), children, max_size=3),
    max_leaves=5,
)
furthers = st.dictionaries(st.text("aÄ丁\"'\\"), json, max_size=3)


def built(cls: type[Any], **others: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values of a class of Tencent's fields, by their types."""
    by_type: dict[object, st.SearchStrategy[Any]] = {int | None: codes, str | None: texts}
    known = {field.name: by_type[field.type] for field in fields(cls) if field.type in by_type}
    return st.builds(cls, **known, further=furthers, **others)


detections = built(Detection, liveness_attempts=st.lists(built(LivenessAttempt), max_size=4).map(tuple))


def medium(kind: MediaKind, digit: str = "0") -> Medium:
    return Medium(
        kind=kind,
        object_key=f"{digit * 2}/{next(NUMBERS):030x}",
        content_type="image/jpeg",
        size_bytes=2**40,
        sha256=digit * 64,
        sealed_key=b"sealed",
        stored_at=NOW,
    )


async def add_verification(database: Database) -> int:
    row = Verification(client="default", biz_token=f"token-{next(NUMBERS)}", rule_id="1", due_at=None, deadline_at=NOW)
    async with database.write() as tx:
        added = await VerificationStore().add(tx, row)
    assert added is not None
    return added.id


async def replace_media(database: Database, number: int, media: Sequence[Medium]) -> set[str]:
    async with database.write() as tx:
        outdated = await RESULTS.remove(tx, number, text=False, kinds=[each.kind for each in media])
        await RESULTS.add_all(tx, [(number, None, media)])
    return {*outdated}


async def stored_media(database: Database, number: int) -> Sequence[Medium]:
    async with database.read() as tx:
        return (await RESULTS.media(tx, [number])).get(number, [])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=detections, second=detections)
async def test_every_field_of_a_text_is_read_as_it_was_written(
    database: Database, first: Detection, second: Detection
) -> None:
    one, other = await add_verification(database), await add_verification(database)
    async with database.write() as tx:
        await RESULTS.add_all(
            tx, [(one, VAULT.seal_text(OWNER, first), []), (other, VAULT.seal_text(OWNER, second), [])]
        )

    async with database.read() as tx:
        texts = await RESULTS.texts(tx, [other, one, 0], sealed=True)
    assert {key: VAULT.open_text(OWNER, text) for key, text in texts.items()} == {one: first, other: second}


async def test_the_newest_text_takes_the_place_of_the_older_with_all_its_attempts(database: Database) -> None:
    number = await add_verification(database)
    older = Detection(
        err_code=1001,
        name="样甲",
        further={"New": [1]},
        liveness_attempts=tuple(LivenessAttempt(req_time=str(place)) for place in range(12)),
    )
    newer = Detection(err_code=0, liveness_attempts=(LivenessAttempt(req_time="5"), LivenessAttempt(req_time="1")))

    for detection in (older, newer):
        async with database.write() as tx:
            assert await RESULTS.remove(tx, number, text=True, kinds=[]) == []
            await RESULTS.add_all(tx, [(number, VAULT.seal_text(OWNER, detection), [])])

        async with database.read() as tx:
            (stored,) = (await RESULTS.texts(tx, [number], sealed=True)).values()
        assert VAULT.open_text(OWNER, stored) == detection


async def test_media_come_in_the_order_of_their_kinds(database: Database) -> None:
    number = await add_verification(database)
    media = [medium(kind) for kind in MediaKind]

    assert await replace_media(database, number, media[::-1]) == set()

    assert await stored_media(database, number) == media


async def test_newer_media_replace_those_of_their_kind_whose_keys_are_told(database: Database) -> None:
    one, other = await add_verification(database), await add_verification(database)
    front, frame, foreign = (
        medium(MediaKind.ID_CARD_FRONT),
        medium(MediaKind.BEST_FRAME),
        medium(MediaKind.BEST_FRAME),
    )
    await replace_media(database, one, [front, frame])
    await replace_media(database, other, [foreign])
    newer = [medium(MediaKind.BEST_FRAME, "1"), medium(MediaKind.LIVENESS_VIDEO, "1")]

    assert await replace_media(database, one, newer) == {frame.object_key}
    assert await replace_media(database, one, []) == set()

    assert await stored_media(database, one) == [front, *newer]
    assert await stored_media(database, other) == [foreign]


async def test_an_object_is_named_once(database: Database) -> None:
    one, other = await add_verification(database), await add_verification(database)
    frame = medium(MediaKind.BEST_FRAME)
    await replace_media(database, one, [frame])

    with pytest.raises(ServiceError):
        await replace_media(database, other, [frame])

    assert await stored_media(database, other) == []


async def test_the_keys_that_some_row_names_are_told_from_the_others(database: Database) -> None:
    number = await add_verification(database)
    frame = medium(MediaKind.BEST_FRAME)
    await replace_media(database, number, [frame])

    async with database.read() as tx:
        assert await RESULTS.named(tx, [frame.object_key, "00/orphan"]) == {frame.object_key}
        assert await RESULTS.named(tx, []) == frozenset()


async def test_nothing_is_stored_of_a_verification_that_is_not_there(database: Database) -> None:
    with pytest.raises(ServiceError):
        await replace_media(database, 4711, [medium(MediaKind.BEST_FRAME)])


async def test_every_call_stays_on_record(database: Database) -> None:
    number = await add_verification(database)
    call = Call(
        called_at=NOW,
        action="GetDetectInfo",
        info_type="0",
        request_id="0f96cf39",
        error_code=None,
        duration_ms=812,
        bytes_received=2**33,
    )
    second = replace(call, called_at=NOW + timedelta(microseconds=1), request_id=None, error_code="network.timeout")
    both = [call, second]
    async with database.write() as tx:
        await RESULTS.add_calls(tx, [(number, each) for each in both])

    async with database.read() as tx:
        rows = [row._asdict() for row in await tx.execute(text("SELECT * FROM upstream_call ORDER BY id"))]
    told = [{name: row[name] for name in asdict(call) if name != "called_at"} for row in rows]
    assert told == [{name: value for name, value in asdict(each).items() if name != "called_at"} for each in both]
    assert {row["verification_id"] for row in rows} == {number}


async def test_a_verification_takes_all_that_hangs_on_it_along(database: Database) -> None:
    number = await add_verification(database)
    await replace_media(database, number, [medium(MediaKind.BEST_FRAME)])
    async with database.write() as tx:
        await RESULTS.add_all(
            tx, [(number, VAULT.seal_text(OWNER, Detection(liveness_attempts=(LivenessAttempt(),))), [])]
        )

        await tx.execute(text("DELETE FROM verification"))

        assert await RESULTS.texts(tx, [number]) == {}
        assert await RESULTS.media(tx, [number]) == {}
        assert await tx.scalar(text("SELECT count(*) FROM liveness_attempt")) == 0
