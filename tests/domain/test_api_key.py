"""API keys: how they are created, parsed and rejected, what they allow and whose verifications they can see."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.api_key import DESTROYED, EXPIRY_WARNING, OPERATOR, ApiKey, Scope, digest, new_key, parse

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
MOMENT = timedelta.resolution
TEXT = "frk_0123456789ab_" + "0123456789abcdef" * 3 + "10c5bc1e"
KEY = ApiKey(
    id="0123456789ab",
    name="shop's back end",
    client="shop",
    scopes=frozenset({Scope.RESULTS_READ, Scope.CALLBACKS_WRITE}),
    sealed_digest=digest("secret"),
    created_at=NOW - timedelta(days=1),
    expires_at=NOW + timedelta(days=1),
)


def test_published_key_is_still_parsed() -> None:
    assert parse(TEXT) == ("0123456789ab", "0123456789abcdef" * 3)


def test_new_key_is_parsed_into_its_id_and_secret() -> None:
    key_id, secret, text = new_key()

    assert parse(text) == (key_id, secret)


def test_new_keys_differ() -> None:
    keys = [new_key() for _ in range(100)]

    assert [len(set(column)) for column in zip(*keys, strict=True)] == [100, 100, 100]


@given(at=st.integers(0, len(TEXT) - 1), character=st.sampled_from("0123456789abcdef") | st.characters())
def test_key_with_one_altered_character_is_rejected(at: int, character: str) -> None:
    tampered = TEXT[:at] + character + TEXT[at + 1 :]

    assert (parse(tampered) is None) is (tampered != TEXT)


@given(at=st.integers(0, len(TEXT) - 2))
def test_key_with_two_swapped_characters_is_rejected(at: int) -> None:
    swapped = TEXT[:at] + TEXT[at + 1] + TEXT[at] + TEXT[at + 2 :]

    assert (parse(swapped) is None) is (swapped != TEXT)


@pytest.mark.parametrize("text", ["", "frk_", TEXT[:-1], TEXT + "0", TEXT + "\n", " " + TEXT, TEXT.upper(), TEXT * 2])
def test_malformed_key_is_rejected(text: str) -> None:
    assert parse(text) is None


@given(text=st.text())
def test_any_text_is_rejected_without_an_exception(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("key", "is_active"),
    [
        pytest.param(KEY, True, id="good"),
        pytest.param(replace(KEY, expires_at=NOW + MOMENT), True, id="about to expire"),
        pytest.param(replace(KEY, expires_at=NOW), False, id="expired"),
        pytest.param(replace(KEY, revoked_at=NOW), False, id="revoked"),
        pytest.param(replace(KEY, revoked_at=NOW + MOMENT), True, id="to be revoked"),
    ],
)
def test_key_is_active_until_it_expires_or_is_revoked(key: ApiKey, is_active: bool) -> None:
    assert key.is_active(NOW) is is_active


@pytest.mark.parametrize(
    ("networks", "address", "is_allowed"),
    [
        ([], "192.0.2.1", True),
        ([], None, True),
        (["10.0.0.0/8"], "10.255.255.255", True),
        (["10.0.0.0/8"], "11.0.0.0", False),
        (["10.0.0.0/8"], "::ffff:10.0.0.1", True),
        (["10.0.0.0/8"], "::10.0.0.1", False),
        (["10.0.0.0/8"], None, False),
        (["10.0.0.0/8"], "", False),
        (["0.0.0.0/0", "::/0"], "testclient", False),
        (["10.0.0.0/8", "2001:db8::/32"], "2001:db8::1", True),
        (["10.0.0.0/8", "2001:db8::/32"], "2001:db9::1", False),
        (["192.0.2.1/32"], "192.0.2.1", True),
        (["192.0.2.1/32"], "192.0.2.2", False),
    ],
)
def test_key_with_networks_is_valid_within_them(networks: Sequence[str], address: str | None, is_allowed: bool) -> None:
    key = replace(KEY, networks=tuple(map(ip_network, networks)))

    assert key.allows_address(address) is is_allowed


def test_key_allows_only_its_scopes() -> None:
    assert {scope for scope in Scope if KEY.allows(scope)} == {Scope.RESULTS_READ, Scope.CALLBACKS_WRITE}


def test_admin_includes_every_scope() -> None:
    assert {scope for scope in Scope if OPERATOR.allows(scope)} == set(Scope)


def test_key_can_see_only_its_own_client() -> None:
    assert (KEY.visible_client, KEY.can_see("shop"), KEY.can_see("bank"), KEY.can_see("")) == (
        "shop",
        True,
        False,
        False,
    )


def test_admin_can_see_every_client() -> None:
    assert (OPERATOR.visible_client, OPERATOR.can_see("shop"), OPERATOR.can_see("default")) == (None, True, True)


def test_secret_and_its_digest_stay_out_of_repr() -> None:
    _, secret, text = new_key()
    key = replace(KEY, sealed_digest=digest(secret))

    assert not any(hidden in repr(key) for hidden in (secret, text, str(key.sealed_digest)))


OTHERS = {
    "id": "another",
    "name": "another",
    "client": "another",
    "scopes": frozenset({Scope.ADMIN}),
    "created_at": NOW,
    "expires_at": NOW + timedelta(days=9),
}


@pytest.mark.parametrize("name", OTHERS)
def test_every_right_is_a_bound_value(name: str) -> None:
    changed: dict[str, Any] = {name: OTHERS[name]}

    assert replace(KEY, **changed).bound_values != KEY.bound_values


@pytest.mark.parametrize(("left", "is_soon"), [(EXPIRY_WARNING, True), (EXPIRY_WARNING + MOMENT, False)])
def test_key_expires_soon_within_14_days(left: timedelta, is_soon: bool) -> None:
    assert replace(KEY, expires_at=NOW + left).expires_soon(NOW) is is_soon


@pytest.mark.parametrize(("digest_of_secret", "has_digest"), [(b"digest", True), (DESTROYED, False)])
def test_revoked_key_has_no_digest(digest_of_secret: bytes, has_digest: bool) -> None:
    assert replace(KEY, sealed_digest=digest_of_secret).has_digest is has_digest
