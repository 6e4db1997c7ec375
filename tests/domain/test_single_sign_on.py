"""Decisions of the single sign-on that need no provider: faults of claims, roles and the names of people."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.api_key import Caller, Scope
from app.domain.single_sign_on import Role, caller_of, fault_of, new_flow, role_of, values_of

NOW = datetime(2026, 11, 26, 8, tzinfo=UTC)
AT = NOW.timestamp()
EXPECTED = {"issuer": "https://id.test", "client_id": "console", "nonce": "n"}
RIGHT: Mapping[str, object] = {
    "iss": "https://id.test",
    "sub": "person-1",
    "aud": "console",
    "exp": AT + 300,
    "iat": AT,
    "nonce": "n",
}
READ, REVEAL = frozenset({Scope.RESULTS_READ}), frozenset({Scope.RESULTS_REVEAL})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def fault(**changes: object) -> str | None:
    return fault_of({**RIGHT, **changes}, **EXPECTED, now=NOW)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, None),
        ({"sub": "CN=Anna Example,OU=Staff"}, None),
        ({"sub": "密"}, "sub"),
        ({"aud": ["console"]}, None),
        ({"aud": ["console", "other"], "azp": "console"}, None),
        ({"aud": ["console", "other"]}, "azp"),
        ({"aud": {"console": 1}}, "aud"),
        ({"azp": None}, "azp"),
        ({"nonce": "\ud800"}, "nonce"),
        ({"nonce": 1}, "nonce"),
        ({"exp": AT - 59.9}, None),
        ({"exp": AT - 60}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": math.nan}, "exp"),
        ({"exp": math.inf}, None),
        ({"exp": 10**400}, None),
        ({"iat": AT + 60}, None),
        ({"iat": AT + 61}, "iat"),
        ({"iat": AT - 660}, None),
        ({"iat": AT - 661}, "iat"),
        ({"iat": -math.inf}, "iat"),
        ({"nbf": AT + 60}, None),
        ({"nbf": AT + 61}, "nbf"),
        ({"nbf": None}, "nbf"),
    ],
    ids=str,
)
def test_claims_have_the_fault_that_the_table_says(changes: dict[str, object], found: str | None) -> None:
    assert fault(**changes) == found


@given(st.dictionaries(st.sampled_from([*RIGHT, "azp", "nbf"]), JSON))
def test_no_json_value_is_an_error_of_the_program(changes: dict[str, object]) -> None:
    assert fault(**changes) in {None, *RIGHT, "azp", "nbf"}


@pytest.mark.parametrize(
    ("found", "values"),
    [("a", ["a"]), (["a", 1, "b"], ["a", "b"]), ([], []), (None, None), ({"a": 1}, None), (1, None)],
)
def test_values_of_a_claim_are_texts(found: object, values: list[str] | None) -> None:
    assert values_of({"groups": found}, "groups") == values


@pytest.mark.parametrize(
    ("values", "role"),
    [
        ([], None),
        (["d"], None),
        (["a"], Role("shop", READ)),
        (["c", "a"], Role("shop", READ | REVEAL)),
        (["b"], Role("bank", REVEAL)),
        (["c", "b"], Role("bank", REVEAL)),
        (["b", "a"], Role("shop", READ)),
    ],
)
def test_first_role_decides_the_client_and_others_of_it_add_scopes(values: list[str], role: Role | None) -> None:
    roles = {"a": Role("shop", READ), "b": Role("bank", REVEAL), "c": Role("shop", REVEAL)}

    assert role_of(values, roles) == role


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"name": "张伟"}, "张伟"),
        ({"name": " Anna \n\u202eExample\x00 "}, "Anna Example"),
        ({"name": "\u200b", "preferred_username": "anna"}, "anna"),
        ({"name": 1, "preferred_username": None}, "oidc:7"),
        ({"name": "x" * 100}, "x" * 64),
        ({}, "oidc:7"),
    ],
    ids=str,
)
def test_name_of_a_person_is_clean_and_bounded(claims: dict[str, object], name: str) -> None:
    caller = caller_of({"sub": "7"} | claims, Role("shop", READ))

    assert caller == Caller(id="oidc:7", name=name, client="shop", scopes=READ)


def test_secrets_of_a_flow_are_not_in_its_repr() -> None:
    flow = new_flow("/admin", NOW)

    assert len({flow.state, flow.nonce, flow.verifier}) == 3
    assert not any(secret in repr(flow) for secret in (flow.state, flow.nonce, flow.verifier))
