"""Results are read from both databases as they were written, and only the newest version is kept."""

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from app.domain.detection import Detection, LivenessAttempt
from app.domain.media import MediaItem, MediaKind
from app.domain.verification import UpstreamCall
from app.errors import ServiceError
from app.sealing.keyring import KeyRing
from app.sealing.personal_data import PersonalDataCipher
from app.storage.database import Database
from tests.storage.rows import add
from tests.support.rows import MINIMAL, NOW

NUMBERS = count()
with TemporaryDirectory() as folder:
    CIPHER = PersonalDataCipher(KeyRing.create(Path(folder) / "keyring.json"))
OWNER = replace(MINIMAL, sealed_key=CIPHER.new_key(MINIMAL.client, MINIMAL.biz_token))

texts = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
codes = st.none() | st.integers(-999_999_999, 999_999_999)
json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text("aÄ丁\"'\\"), children, max_size=3),
    max_leaves=5,
)
furthers = st.dictionaries(st.text("aÄ丁\"'\\"), json, max_size=3)


def built(cls: type[Any], **others: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Builds values of a class of Tencent's fields, by the types of the fields."""
    by_type: dict[object, st.SearchStrategy[Any]] = {int | None: codes, str | None: texts}
    known = {field.name: by_type[field.type] for field in fields(cls) if field.type in by_type}
    return st.builds(cls, **known, further=furthers, **others)


detections = built(Detection, liveness_attempts=st.lists(built(LivenessAttempt), max_size=4).map(tuple))


def item(kind: MediaKind, digit: str = "0") -> MediaItem:
    return MediaItem(
        kind=kind,
        object_key=f"{digit * 2}/{next(NUMBERS):030x}",
        content_type="image/jpeg",
        size_bytes=2**40,
        sha256=digit * 64,
        sealed_key=b"sealed",
        stored_at=NOW,
    )


async def add_verification(database: Database) -> int:
    (row,) = await add(database, replace(MINIMAL, biz_token=f"token-{next(NUMBERS)}"))
    return row.id


async def replace_media(database: Database, number: int, media: Sequence[MediaItem]) -> set[str]:
    async with database.write() as tx:
        outdated = await tx.results.remove(number, text=False, kinds=[each.kind for each in media])
        await tx.results.add_all([(number, None, media)])
    return {row.object_key for row in outdated}


async def stored_media(database: Database, number: int) -> Sequence[MediaItem]:
    async with database.read() as tx:
        return (await tx.results.media([number])).get(number) or []


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=detections, second=detections)
async def test_every_field_of_a_text_is_read_as_it_was_written(
    database: Database, first: Detection, second: Detection
) -> None:
    one, other = await add_verification(database), await add_verification(database)
    async with database.write() as tx:
        await tx.results.add_all(
            [(one, CIPHER.seal_text(OWNER, first), []), (other, CIPHER.seal_text(OWNER, second), [])]
        )

    async with database.read() as tx:
        texts = await tx.results.texts([other, one, 0], sealed=True)
    assert {key: CIPHER.open_text(OWNER, text) for key, text in texts.items()} == {one: first, other: second}


async def test_newest_text_replaces_the_older_and_its_attempts(database: Database) -> None:
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
            assert await tx.results.remove(number, text=True, kinds=[]) == []
            await tx.results.add_all([(number, CIPHER.seal_text(OWNER, detection), [])])

        async with database.read() as tx:
            (stored,) = (await tx.results.texts([number], sealed=True)).values()
        assert CIPHER.open_text(OWNER, stored) == detection


async def test_media_are_in_the_order_of_their_kinds(database: Database) -> None:
    number = await add_verification(database)
    media = [item(kind) for kind in MediaKind]

    assert await replace_media(database, number, media[::-1]) == set()

    assert await stored_media(database, number) == media


async def test_newer_media_replace_their_kind_and_return_the_old_keys(database: Database) -> None:
    one, other = await add_verification(database), await add_verification(database)
    front, frame, foreign = (
        item(MediaKind.ID_CARD_FRONT),
        item(MediaKind.BEST_FRAME),
        item(MediaKind.BEST_FRAME),
    )
    await replace_media(database, one, [front, frame])
    await replace_media(database, other, [foreign])
    newer = [item(MediaKind.BEST_FRAME, "1"), item(MediaKind.LIVENESS_VIDEO, "1")]

    assert await replace_media(database, one, newer) == {frame.object_key}
    assert await replace_media(database, one, []) == set()

    assert await stored_media(database, one) == [front, *newer]
    assert await stored_media(database, other) == [foreign]


async def test_object_is_referenced_once(database: Database) -> None:
    one, other = await add_verification(database), await add_verification(database)
    frame = item(MediaKind.BEST_FRAME)
    await replace_media(database, one, [frame])

    with pytest.raises(ServiceError):
        await replace_media(database, other, [frame])

    assert await stored_media(database, other) == []


async def test_referenced_keys_exclude_orphans(database: Database) -> None:
    number = await add_verification(database)
    frame = item(MediaKind.BEST_FRAME)
    await replace_media(database, number, [frame])

    async with database.read() as tx:
        assert await tx.results.referenced([frame.object_key, "00/orphan"]) == {frame.object_key}
        assert await tx.results.referenced([]) == frozenset()


async def test_media_of_an_unknown_verification_are_rejected(database: Database) -> None:
    with pytest.raises(ServiceError):
        await replace_media(database, 4711, [item(MediaKind.BEST_FRAME)])


async def test_every_upstream_call_is_recorded(database: Database) -> None:
    number = await add_verification(database)
    call = UpstreamCall(
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
        await tx.results.add_calls([(number, each) for each in both])

    async with database.read() as tx:
        rows = [row._asdict() for row in await tx.connection.execute(text("SELECT * FROM upstream_call ORDER BY id"))]
    stored = [{name: row[name] for name in asdict(call) if name != "called_at"} for row in rows]
    assert stored == [{name: value for name, value in asdict(each).items() if name != "called_at"} for each in both]
    assert {row["verification_id"] for row in rows} == {number}


async def test_deleted_verification_takes_its_results_along(database: Database) -> None:
    number = await add_verification(database)
    await replace_media(database, number, [item(MediaKind.BEST_FRAME)])
    async with database.write() as tx:
        await tx.results.add_all(
            [(number, CIPHER.seal_text(OWNER, Detection(liveness_attempts=(LivenessAttempt(),))), [])]
        )

        await tx.connection.execute(text("DELETE FROM verification"))

        assert await tx.results.texts([number]) == {}
        assert await tx.results.media([number]) == {}
        assert await tx.connection.scalar(text("SELECT count(*) FROM liveness_attempt")) == 0
