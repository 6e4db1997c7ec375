"""Signed states of redirects: accepted as they were issued, and rejected when changed, expired or signed otherwise."""

import hashlib
import string
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from itsdangerous import URLSafeSerializer

from app.domain.api_key import Caller, Scope
from app.domain.redirect_state import LIFETIME
from app.domain.verification import Verification
from app.sealing.keyring import KeyRing, Ring
from app.storage.database import Database
from tests.support.databases import opened
from tests.support.redirects import redirect_service
from tests.support.rows import find_row
from tests.support.service import actor

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
NUMBERS = count()
WITH_FIXTURES = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Scene:
    """The service on an embedded database, with a clock that tests set."""

    def __init__(self, database: Database, keyring: KeyRing) -> None:
        self.now = NOW
        self.database = database
        self.keyring = keyring
        self.service = redirect_service(database, keyring, self.clock)

    def clock(self) -> datetime:
        return self.now

    def issue(self, client: str = "shop") -> str:
        """Issues a state to a caller of this client."""
        caller = Caller(id="key", name="key", client=client, scopes=frozenset({Scope.CALLBACKS_WRITE}))
        return self.service.issue(actor(caller), None)[0]

    async def accepted(self, signed_state: str) -> Verification | None:
        """Accepts a redirect of an unknown token; returns the row that a valid state creates."""
        biz_token = f"token-{next(NUMBERS)}"
        await self.service.accept(biz_token, signed_state)
        async with self.database.read() as tx:
            return await find_row(tx, biz_token)


@pytest.fixture
async def scene(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Scene]:
    async with opened(sqlite_url) as database:
        scene = Scene(database, KeyRing.create(tmp_path / "keyring.json"))
        yield scene
        await scene.service.aclose()


@WITH_FIXTURES
@given(client=st.text(min_size=1, max_size=64))
@example(client="\0" * 64)
@example(client="\N{MATHEMATICAL FRAKTUR SMALL N}" * 64)
async def test_state_is_accepted_as_it_was_issued(scene: Scene, client: str) -> None:
    caller = Caller(id="key", name="key", client=client, scopes=frozenset())
    signed_state, state = scene.service.issue(actor(caller), None)

    row = await scene.accepted(signed_state)

    assert row is not None
    assert (row.client, row.rule_id, row.nonce) == (client, "1", state.nonce)
    assert (state.client, state.rule_id, state.expires_at) == (client, "1", NOW + LIFETIME)


@pytest.mark.parametrize(("age", "is_valid"), [(LIFETIME - timedelta(seconds=1), True), (LIFETIME, False)])
async def test_state_expires_after_a_day(scene: Scene, age: timedelta, is_valid: bool) -> None:
    signed_state = scene.issue()

    scene.now += age

    assert (await scene.accepted(signed_state) is not None) is is_valid


@WITH_FIXTURES
@given(text=st.text() | st.from_regex(r"[A-Za-z0-9_-]{1,99}\.[A-Za-z0-9_-]{1,99}", fullmatch=True))
async def test_any_other_text_is_rejected(scene: Scene, text: str) -> None:
    assert await scene.accepted(text) is None


@WITH_FIXTURES
@given(place=st.floats(0, 1, exclude_max=True), character=st.characters(min_codepoint=33, max_codepoint=126))
async def test_state_with_one_altered_character_is_rejected(scene: Scene, place: float, character: str) -> None:
    signed_state = scene.issue()
    at = int(place * len(signed_state))
    altered = signed_state[:at] + character + signed_state[at + 1 :]

    assert (await scene.accepted(altered) is not None) is (altered == signed_state)


async def test_other_spelling_of_the_signature_is_rejected(scene: Scene) -> None:
    signed_state = scene.issue()
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    # The last character carries two bits that do not belong to the signature.
    last = alphabet.index(signed_state[-1])

    for unused_bits in range(4):
        spelling = signed_state[:-1] + alphabet[last & ~3 | unused_bits]
        assert (await scene.accepted(spelling) is not None) is (spelling == signed_state)


async def test_state_is_accepted_until_its_key_is_destroyed(scene: Scene) -> None:
    before, after = scene.issue(), scene.issue()

    scene.keyring.add(Ring.INDEX)
    assert await scene.accepted(before) is not None

    scene.keyring.destroy(Ring.INDEX, 1)
    assert await scene.accepted(after) is None


async def test_state_of_another_key_ring_is_rejected(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Scene(scene.database, KeyRing.create(tmp_path / "other" / "keyring.json"))

    assert await scene.accepted(other.issue()) is None


@pytest.mark.parametrize(
    ("purpose", "salt", "is_valid"),
    [
        ("redirect_state", "redirect_state", True),
        ("another", "redirect_state", False),
        ("redirect_state", "another", False),
    ],
)
async def test_signature_for_another_purpose_is_rejected(scene: Scene, purpose: str, salt: str, is_valid: bool) -> None:
    keys = list(scene.keyring.macs(purpose))
    serializer = URLSafeSerializer(keys, salt=salt, signer_kwargs={"digest_method": hashlib.sha256})
    expires_at = int((NOW + LIFETIME).timestamp())

    signed_state = serializer.dumps(["shop", "1", "0" * 32, expires_at])

    assert (await scene.accepted(signed_state) is not None) is is_valid
