"""API keys: how they are made, read and refused, what they allow and whose verifications they see."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.access import OPERATOR, ApiKey, Scope, digest, mint, parse

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


def test_a_published_key_is_read_as_ever() -> None:
    assert parse(TEXT) == ("0123456789ab", "0123456789abcdef" * 3)


def test_a_minted_key_is_read_as_its_id_and_secret() -> None:
    key_id, secret, text = mint()

    assert parse(text) == (key_id, secret)


def test_no_two_minted_keys_are_alike() -> None:
    minted = [mint() for _ in range(100)]

    assert [len(set(column)) for column in zip(*minted, strict=True)] == [100, 100, 100]


@settings(deadline=None)
@given(at=st.integers(0, len(TEXT) - 1), character=st.sampled_from("0123456789abcdef") | st.characters())
def test_a_key_with_one_altered_character_is_none(at: int, character: str) -> None:
    altered = TEXT[:at] + character + TEXT[at + 1 :]

    assert (parse(altered) is None) is (altered != TEXT)


@settings(deadline=None)
@given(at=st.integers(0, len(TEXT) - 2))
def test_a_key_with_two_neighbours_swapped_is_none(at: int) -> None:
    swapped = TEXT[:at] + TEXT[at + 1] + TEXT[at] + TEXT[at + 2 :]

    assert (parse(swapped) is None) is (swapped != TEXT)


@pytest.mark.parametrize("text", ["", "frk_", TEXT[:-1], TEXT + "0", TEXT + "\n", " " + TEXT, TEXT.upper(), TEXT * 2])
def test_a_text_of_another_shape_is_no_key(text: str) -> None:
    assert parse(text) is None


@settings(deadline=None)
@given(text=st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("key", "is_alive"),
    [
        pytest.param(KEY, True, id="good"),
        pytest.param(replace(KEY, expires_at=NOW + MOMENT), True, id="about to expire"),
        pytest.param(replace(KEY, expires_at=NOW), False, id="expired"),
        pytest.param(replace(KEY, revoked_at=NOW), False, id="revoked"),
        pytest.param(replace(KEY, revoked_at=NOW + MOMENT), True, id="to be revoked"),
    ],
)
def test_a_key_lives_until_it_expires_or_is_revoked(key: ApiKey, is_alive: bool) -> None:
    assert key.is_alive(NOW) is is_alive


@pytest.mark.parametrize(
    ("networks", "address", "is_good"),
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
def test_a_key_with_networks_is_good_from_within_them(
    networks: Sequence[str], address: str | None, is_good: bool
) -> None:
    key = replace(KEY, networks=tuple(map(ip_network, networks)))

    assert key.is_good_from(address) is is_good


def test_a_key_allows_its_scopes_alone() -> None:
    assert {scope for scope in Scope if KEY.allows(scope)} == {Scope.RESULTS_READ, Scope.CALLBACKS_WRITE}


def test_admin_includes_every_scope() -> None:
    assert {scope for scope in Scope if OPERATOR.allows(scope)} == set(Scope)


def test_a_key_sees_its_own_client_alone() -> None:
    assert (KEY.scope_of_sight, KEY.sees("shop"), KEY.sees("bank"), KEY.sees("")) == ("shop", True, False, False)


def test_admin_sees_every_client() -> None:
    assert (OPERATOR.scope_of_sight, OPERATOR.sees("shop"), OPERATOR.sees("default")) == (None, True, True)


def test_what_stands_for_the_secret_stays_out_of_repr() -> None:
    _, secret, text = mint()
    key = replace(KEY, sealed_digest=digest(secret))

    assert not any(hidden in repr(key) for hidden in (secret, text, str(key.sealed_digest)))


RIGHTS = {
    "id": "another",
    "name": "another",
    "client": "another",
    "scopes": frozenset({Scope.ADMIN}),
    "created_at": NOW,
    "expires_at": NOW + timedelta(days=9),
}


@pytest.mark.parametrize("right", RIGHTS)
def test_a_key_of_other_rights_is_another_key(right: str) -> None:
    changed: dict[str, Any] = {right: RIGHTS[right]}

    assert replace(KEY, **changed).rights != KEY.rights
