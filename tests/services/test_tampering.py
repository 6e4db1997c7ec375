"""Tampering by SQL: the reads that show a changed result detect it, or docs/security.md names the limit."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import httpx
import pytest
import structlog
from sqlalchemy import Boolean, Column, Integer, LargeBinary, String, text

from app.config import Settings
from app.domain.api_key import Scope
from app.domain.detection import Detection, LivenessAttempt, personal
from app.sealing.keyring import Ring
from app.storage.tables import detection, liveness_attempt, media, verification
from tests.support.api import get, retrieve_new, row_of, token, url
from tests.support.service import Running, actor, everything, running

TABLES = [verification, detection, liveness_attempt, media]
PERSONAL = {"detection": set(personal(Detection)), "liveness_attempt": set(personal(LivenessAttempt))}
# The progress of the retrieval, times of notices, retention and legal holds, and the numbers of events
# (docs/security.md). The result code is a copy; reads return the one of the result.
NOT_COVERED = {
    "verification": {
        *("account", "is_rule_assumed", "created_at", "registered_at", "received_at", "updated_at", "deadline_at"),
        *("due_at", "priority", "pulled", "one_by_one", "awaited_parts", "media_polls", "claim", "leased", "woken"),
        *("called_at", "attempts", "failures", "looks", "last_request_id", "last_error_code", "nonce"),
        *("retain_until", "retain_media_until", "erase_at", "erased_at", "legal_hold"),
        *("err_code", "event_count", "is_expiry_announced"),
    },
    "media": {"stored_at"},
}
# Reads that cannot find the row any more, or not for this caller, show nothing of it.
HIDING = {"id", "client", "biz_token"}
KEYS = {"verification_id", "position", "kind"}


class Scene:
    """Two retrieved verifications of one client, the first in two revisions, and the database as it was after each."""

    def __init__(self, service: Running, api: httpx.AsyncClient, victim: str, other: str, ids: tuple[int, int]) -> None:
        self._service = service
        self.api = api
        self.victim = victim
        self.other = other
        self.ids = ids

    async def execute(self, *statements: str) -> int:
        """Runs statements in which :id is the victim's row and :other the other one; returns the rows of the last."""
        count = 0
        async with self._service.services.database.write() as tx:
            for statement in statements:
                parameters = {"id": self.ids[0], "other": self.ids[1]}
                used = {name: value for name, value in parameters.items() if f":{name}" in statement}
                count = (await tx.connection.execute(text(statement), used)).rowcount
        return count

    async def save(self, name: str) -> None:
        """Copies all tables of results."""
        await self.execute(*(f"CREATE TABLE {name}_{table.name} AS SELECT * FROM {table.name}" for table in TABLES))

    async def restore(self, name: str) -> None:
        """Puts all tables of results back."""
        await self.execute(
            *(f"DELETE FROM {table.name}" for table in reversed(TABLES)),
            *(f"INSERT INTO {table.name} SELECT * FROM {name}_{table.name}" for table in TABLES),
        )

    async def drop(self, *names: str) -> None:
        """Removes the copies."""
        await self.execute(*(f"DROP TABLE {name}_{table.name}" for name in names for table in TABLES))

    async def alarms(self) -> set[str]:
        """Returns the reads of the victim that detect the tampering."""
        with structlog.testing.capture_logs():
            reads = {
                "alone": await self.api.get(url(self.victim)),
                "identity": await self.api.get(url(self.victim, "identity")),
                "media": await self.api.get(url(self.victim, "media", "best_frame")),
            }
            items = (await self.api.get("/v1/verifications")).json()["items"]
        found = {
            name for name, answer in reads.items() if answer.status_code == 500 and answer.json()["code"] == "altered"
        }
        listed = {item["biz_token"]: item["altered"] for item in items}
        assert not listed.get(self.other, False)
        return found | ({"list"} if listed.get(self.victim) else set())


@pytest.fixture
async def scene(service: Running) -> AsyncIterator[Scene]:
    async with service.client(await service.key(*everything())) as api:
        victim, other = token(), await retrieve_new(api)
        facts = {"subject_ref": "loan-4711", "purpose": "loan"}
        for each, changes in ((victim, {}), (other, {"subject_ref": "loan-4712", "purpose": "lease"})):
            await api.put(url(each), json=facts | changes)
            await api.post("/v1/callbacks", json={"BizToken": each, "Extra": f"case of {each}"})
        await get(api, victim, wait=20)
        rows = [await row_of(service.services, each) for each in (victim, other)]
        scene = Scene(service, api, victim, other, (rows[0].id, rows[1].id))
        await scene.save("first")
        await forget_calls(service)
        await api.post(url(victim, "retrieve"))
        await wait_for_attempt(api, victim, 2)
        await scene.save("second")
        assert await scene.alarms() == set()
        yield scene
        # The database is lent to other tests.
        await scene.drop("first", "second")


async def forget_calls(service: Running) -> None:
    """Lets results be retrieved again without the interval between two calls."""
    async with service.services.database.write() as tx:
        await tx.connection.execute(text("UPDATE verification SET called_at = NULL"))


async def wait_for_attempt(api: httpx.AsyncClient, biz_token: str, number: int) -> None:
    for _ in range(1000):
        if (await get(api, biz_token))["retrieval"]["attempts"] == number:
            return
        await asyncio.sleep(0.01)
    pytest.fail("The result was not retrieved again.")


def covered_columns() -> Iterator[tuple[str, Column[Any]]]:
    for table in TABLES:
        for column in table.columns:
            left_out = NOT_COVERED.get(table.name, set()) | KEYS | (HIDING if table is verification else set())
            if column.name not in left_out:
                yield table.name, column


def row_filter(table: str) -> str:
    """Returns the condition of one row of the victim in this table."""
    filters = {
        "verification": "id = :id",
        "liveness_attempt": "verification_id = :id AND position = 0",
        "media": "verification_id = :id AND kind = 'best_frame'",
    }
    return filters.get(table, "verification_id = :id")


def changes_of(table: str, column: Column[Any]) -> Iterator[str]:
    """Yields statements that change a column of the victim: to null, to another value, and to the other row's."""
    name, where = column.name, row_filter(table)
    if column.nullable:
        yield f"UPDATE {table} SET {name} = NULL WHERE {where} AND {name} IS NOT NULL"
    if isinstance(column.type, Boolean):
        yield f"UPDATE {table} SET {name} = NOT {name} WHERE {where}"
    elif isinstance(column.type, Integer):
        yield f"UPDATE {table} SET {name} = coalesce({name}, 0) + 1 WHERE {where}"
    elif name in {"state", "outcome"}:
        yield f"UPDATE {table} SET {name} = 'failed' WHERE {where}"
    elif name == "unreadable":
        yield f"UPDATE {table} SET {name} = 'best_frame=address' WHERE {where}"
    elif isinstance(column.type, String):
        yield f"UPDATE {table} SET {name} = 'other' WHERE {where}"
    if name != "object_key":  # is unique
        foreign = f"SELECT {name} FROM {table} WHERE {where.replace(':id', ':other')}"
        yield f"UPDATE {table} SET {name} = ({foreign}) WHERE {where} AND {name} <> ({foreign})"
    if isinstance(column.type, LargeBinary):
        earlier = f"SELECT {name} FROM first_{table} WHERE {where}"
        yield f"UPDATE {table} SET {name} = ({earlier}) WHERE {where} AND {name} <> ({earlier})"


def expected_alarms(table: str, column: str) -> set[str]:
    """Returns the reads that show the value."""
    if column in PERSONAL.get(table, set()):
        return {"identity"}
    if column == "state":
        # Lists scan the pairs of state and outcome that exist, so this one hides the row.
        return {"alone", "identity", "media"}
    if table == "media":
        # The wrapped key is verified when it is used.
        return {"media"} if column == "sealed_key" else {"alone", "list", "media"}
    return {"alone", "identity", "list", "media"}


async def test_every_changed_value_is_detected(scene: Scene) -> None:
    tried = set()
    for table, column in covered_columns():
        for statement in changes_of(table, column):
            if await scene.execute(statement):
                tried.add((table, column.name))
                assert await scene.alarms() == expected_alarms(table, column.name), statement
                await scene.restore("second")

    empty = {("detection", name) for name in ("extra", "further")} | {("liveness_attempt", "further")}
    assert {(table, column.name) for table, column in covered_columns()} - tried <= empty


REMOVED = [
    "DELETE FROM detection WHERE verification_id = :id",
    "DELETE FROM liveness_attempt WHERE verification_id = :id",
    "DELETE FROM media WHERE verification_id = :id",
    "DELETE FROM media WHERE verification_id = :id AND kind = 'id_card_front'",
    "DELETE FROM media WHERE verification_id = :id AND kind = 'liveness_video'",
]
_COPIED = ", ".join(
    column.name for column in media.columns if column.name not in {"verification_id", "kind", "object_key"}
)
ADDED = [
    *(
        f"INSERT INTO media (verification_id, kind, object_key, {_COPIED})"
        f" SELECT :id, 'best_frame_1', 'copy', {_COPIED} FROM media"
        f" WHERE verification_id = {source} AND kind = 'best_frame'"
        for source in (":id", ":other")
    ),
    (
        "INSERT INTO liveness_attempt SELECT verification_id, position + 1, err_code, err_msg, req_time, id_card, name,"
        " further FROM liveness_attempt WHERE verification_id = :id AND position = 0"
    ),
]
SWAPPED = [
    "UPDATE media SET kind = 'best_frame_2' WHERE verification_id = :id AND kind = 'best_frame'",
    "UPDATE verification SET sealed_key = (SELECT sealed_key FROM verification WHERE id = :other) WHERE id = :id",
]


def older(table: str, where: str) -> tuple[str, ...]:
    """Returns statements that replace rows of the victim by those of its first revision."""
    return (
        f"DELETE FROM {table} WHERE {where}",
        f"INSERT INTO {table} SELECT * FROM first_{table} WHERE {where}",
    )


REPLAYED = [
    older("detection", "verification_id = :id"),
    older("media", "verification_id = :id"),
    older("media", "verification_id = :id AND kind = 'best_frame'"),
    (*older("detection", "verification_id = :id"), *older("liveness_attempt", "verification_id = :id")),
    (
        *older("detection", "verification_id = :id"),
        *older("liveness_attempt", "verification_id = :id"),
        *older("media", "verification_id = :id"),
    ),
    *(
        (
            f"UPDATE verification SET {name} = (SELECT {name} FROM first_verification WHERE id = :id) WHERE id = :id",
            *older("detection", "verification_id = :id"),
            *older("liveness_attempt", "verification_id = :id"),
            *older("media", "verification_id = :id"),
        )
        for name in ("digest", "revision", "retrieved_at")
    ),
]
STRIPPED = [
    "UPDATE verification SET digest = NULL, revision = 0 WHERE id = :id",
    "UPDATE verification SET digest = substr(digest, 1, 64) WHERE id = :id",
    "UPDATE verification SET state = 'failed', outcome = '', digest = NULL WHERE id = :id",
    "UPDATE verification SET state = 'expired', outcome = '', digest = NULL, sealed_key = NULL WHERE id = :id",
]


async def test_removed_added_and_replayed_rows_are_detected(scene: Scene) -> None:
    for statements in (*((each,) for each in (*REMOVED, *ADDED, *SWAPPED, *STRIPPED)), *REPLAYED):
        assert await scene.execute(*statements) > 0

        assert {"alone", "list", "media"} <= await scene.alarms(), statements
        await scene.restore("second")


LIMITS = {
    "the progress, the times of notices and the retention": [
        "UPDATE verification SET attempts = 9, received_at = NULL, legal_hold = true WHERE id = :id",
    ],
    "the calls to Tencent": ["DELETE FROM upstream_call WHERE verification_id = :id"],
    "the state before the result": [
        "DELETE FROM detection WHERE verification_id = :id",
        "DELETE FROM liveness_attempt WHERE verification_id = :id",
        "DELETE FROM media WHERE verification_id = :id",
        "UPDATE verification SET state = 'pending', outcome = '', retrieved_at = NULL, digest = NULL WHERE id = :id",
    ],
}


async def test_limits_of_the_digest_are_those_of_the_documentation(scene: Scene) -> None:
    for name, statements in LIMITS.items():
        await scene.execute(*statements)

        assert await scene.alarms() == set(), name
        await scene.restore("second")

    await scene.restore("first")
    assert await scene.alarms() == set(), "the whole verification as it was before"


TAMPERINGS = {
    "verification": "UPDATE verification SET subject_ref = 'loan-4712' WHERE id = :id",
    "detection": "DELETE FROM detection WHERE verification_id = :id",
    "media": "DELETE FROM media WHERE verification_id = :id AND kind = 'best_frame'",
}


async def test_altered_row_is_not_made_good_by_a_later_change(scene: Scene, service: Running) -> None:
    services, api = service.services, scene.api
    for table, tampering in TAMPERINGS.items():
        await scene.execute(tampering)

        await api.put(url(scene.victim), json={"subject_ref": "loan-4712"} if table == "verification" else {})
        await api.post("/v1/callbacks", json={"BizToken": scene.victim, "Extra": "again"})
        for ring in Ring:
            assert [step async for step in services.key_rotation.rotate(ring)]
        assert {"alone", "list", "media"} <= await scene.alarms(), table
        await scene.execute("UPDATE verification SET erase_at = '2026-01-01 00:00:00.000000' WHERE id = :id")
        await services.erase.erase_overdue(actor())
        assert {"alone", "list"} <= await scene.alarms(), table
        await scene.restore("second")


async def test_altered_row_stays_altered_when_it_is_retrieved_again(scene: Scene) -> None:
    await scene.execute("UPDATE verification SET subject_ref = 'loan-4712' WHERE id = :id")

    await scene.execute("UPDATE verification SET called_at = NULL")
    await scene.api.post(url(scene.victim, "retrieve"))
    for _ in range(1000):
        if (await scene.execute("UPDATE verification SET nonce = NULL WHERE attempts = 3 AND id = :id")) == 1:
            break
        await asyncio.sleep(0.01)

    assert await scene.alarms() == {"alone", "identity", "list", "media"}


async def test_failed_and_expired_verifications_are_bound(service: Running) -> None:
    async with service.client(await service.key(*everything())) as api:
        biz_token = token("expired")
        await api.put(url(biz_token), json={"subject_ref": "loan-4711"})
        await api.post("/v1/callbacks", json={"BizToken": biz_token})
        before = await get(api, biz_token, wait=20)
        assert before["state"] in {"failed", "expired"}
        async with service.services.database.write() as tx:
            await tx.connection.execute(text("UPDATE verification SET subject_ref = 'loan-4712'"))
        altered = await api.get(url(biz_token))
        async with service.services.database.write() as tx:
            await tx.connection.execute(text("UPDATE verification SET subject_ref = 'loan-4711'"))

        assert (altered.status_code, await get(api, biz_token)) == (500, before)


@pytest.mark.parametrize("seed", range(2))
async def test_no_operation_makes_a_result_look_altered(service: Running, seed: int) -> None:
    dice = random.Random(seed)
    services = service.services
    scenarios = ("passed", "failed-2016", "passed")
    async with (
        service.client(await service.key(*everything())) as api,
        service.client(await service.key(Scope.ADMIN)) as admin,
    ):
        tokens = [await retrieve_new(api, scenario) for scenario in scenarios]

        async def rotate(_biz_token: str) -> None:
            assert [step async for step in services.key_rotation.rotate(dice.choice(list(Ring)))]

        async def retrieve(biz_token: str) -> None:
            number = (await get(api, biz_token))["retrieval"]["attempts"]
            await forget_calls(service)
            await api.post(url(biz_token, "retrieve"))
            await wait_for_attempt(api, biz_token, number + 1)

        async def erase_media(biz_token: str) -> None:
            async with services.database.write() as tx:
                await tx.connection.execute(
                    text("UPDATE verification SET erase_at = '2026-01-01 00:00:00.000000' WHERE biz_token = :token"),
                    {"token": biz_token},
                )
            await services.erase.erase_overdue(actor())

        requests: list[tuple[httpx.AsyncClient, str, str, dict[str, str] | None]] = [
            (api, "PUT", "", {"subject_ref": "case"}),
            (api, "PUT", "", {"purpose": "purpose"}),
            (api, "POST", "/retrieve", None),
            (admin, "PUT", "/legal-hold", None),
            (admin, "DELETE", "/legal-hold", None),
        ]

        async def send(biz_token: str) -> None:
            client, method, path, body = dice.choice(requests)
            assert (await client.request(method, url(biz_token) + path, json=body)).is_success

        async def notify(biz_token: str) -> None:
            await api.get("/v1/callbacks/redirect", params={"BizToken": biz_token})
            await api.post("/v1/callbacks", json={"BizToken": biz_token, "Extra": "case 7"})

        operations = [rotate, retrieve, erase_media, send, send, notify]
        for _ in range(30):
            await dice.choice(operations)(dice.choice(tokens))
            for biz_token in tokens:
                statuses = [(await api.get(url(biz_token, *path))).status_code for path in ((), ("identity",))]
                assert statuses == [200, 200]


def without_digests(settings: Settings) -> None:
    """Turns the new key ring into one that an earlier version of the service created."""
    path = settings.keyring.keyring_path
    rings: Mapping[str, list[dict[str, object]]] = json.loads(path.read_text())
    old = {
        ring: [{name: value for name, value in version.items() if name != "has_digests"} for version in versions]
        for ring, versions in rings.items()
        if ring != "audit"
    }
    path.write_text(json.dumps(old))


TAMPERING = text("UPDATE verification SET outcome = 'failed'")


async def test_rotation_binds_the_results_of_earlier_versions(settings: Settings) -> None:
    without_digests(settings)
    async with running(settings) as service, service.client(await service.key(*everything())) as api:
        database, rotation = service.services.database, service.services.key_rotation
        biz_token = await retrieve_new(api)
        view = await get(api, biz_token)
        old = await row_of(service.services, biz_token)
        assert old.digest is None

        async for _ in rotation.rotate(Ring.IDENTITY):
            pass

        new = await row_of(service.services, biz_token)
        assert (len(new.digest or b""), await get(api, biz_token)) == (80, view)
        assert (await api.get(url(biz_token, "identity"))).status_code == 200
        strip = text("UPDATE verification SET digest = NULL, sealed_key = :key")
        for statement, parameters in ((TAMPERING, {}), (strip, {"key": new.sealed_key})):
            async with database.write() as tx:
                await tx.connection.execute(statement, parameters)
            assert (await api.get(url(biz_token))).status_code == 500
            async with database.write() as tx:
                await tx.connection.execute(
                    text("UPDATE verification SET digest = :digest, outcome = 'passed'"), {"digest": new.digest}
                )
            assert (await get(api, biz_token)) == view

        # The earlier wrapped key removes the digest until its version is destroyed.
        async with database.write() as tx:
            await tx.connection.execute(strip, {"key": old.sealed_key})
        assert (await api.get(url(biz_token))).status_code == 200
        service.services.cipher.keyring.destroy(Ring.IDENTITY, 1)
        assert (await api.get(url(biz_token))).status_code == 500


async def test_results_of_an_earlier_key_ring_are_read_and_changed_as_before(settings: Settings) -> None:
    without_digests(settings)
    async with running(settings) as service, service.client(await service.key(*everything())) as api:
        biz_token = await retrieve_new(api)
        await api.put(url(biz_token), json={"subject_ref": "case"})
        await forget_calls(service)
        await api.post(url(biz_token, "retrieve"))
        await wait_for_attempt(api, biz_token, 2)

        row = await row_of(service.services, biz_token)
        assert (row.digest, row.revision, (await get(api, biz_token))["subject_ref"]) == (None, 2, "case")
