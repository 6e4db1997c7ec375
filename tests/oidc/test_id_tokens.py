"""The signature of an ID token: no text is an error of the program, and no changed token is valid."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import OctKey
from joserfc.jws import JWSRegistry

from app.errors import UnauthenticatedError
from app.oidc.id_tokens import IdTokenVerifier
from tests.support.oidc import encoded, new_key, unsigned

KEY = new_key("first")
VERIFIER = IdTokenVerifier()
VERIFIER.replace_keys([KEY.as_dict(private=False)])
TEXT = unsigned({"alg": "ES256", "kid": "first"}, {"sub": "person-1"})
TOKEN = f"{TEXT}.{encoded(JWSRegistry.algorithms['ES256'].sign(TEXT.encode(), KEY))}"
PART = st.binary(max_size=200).map(encoded) | st.text(max_size=50)


def is_refused(token: str) -> bool:
    with pytest.raises(UnauthenticatedError):
        VERIFIER.verify(token)
    return True


def test_signed_token_returns_its_claims() -> None:
    assert VERIFIER.verify(TOKEN) == {"sub": "person-1"}


def test_symmetric_key_does_not_replace_the_one_with_its_id() -> None:
    shared = OctKey.import_key("0" * 32, {"kid": "first"})
    verifier = IdTokenVerifier()
    verifier.replace_keys([shared.as_dict(private=True), KEY.as_dict(private=False)])

    assert verifier.verify(TOKEN) == {"sub": "person-1"}


@given(st.text() | st.tuples(PART, PART, PART).map(".".join))
def test_no_text_is_an_error_of_the_program(token: str) -> None:
    assert is_refused(token)


@pytest.mark.parametrize(
    "header",
    [
        "[]",
        "1",
        '"alg"',
        "null",
        '{"alg": []}',
        '{"alg": null}',
        '{"alg": "ES256", "kid": []}',
        "{" * 300,
        '{"alg": {}}',
    ],
)
def test_strange_header_is_refused(header: str) -> None:
    assert is_refused(f"{encoded(header.encode())}.e30.AAAA")


@pytest.mark.parametrize("payload", ["[]", "1", "[" * 50_000, "x", '{"a": NaN', "9" * 5000])
def test_strange_payload_is_refused(payload: str) -> None:
    text = f"{TEXT.partition('.')[0]}.{encoded(payload.encode())}"

    assert is_refused(f"{text}.{encoded(JWSRegistry.algorithms['ES256'].sign(text.encode(), KEY))}")


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from("AQgw09-_.="))
def test_token_with_a_changed_character_is_refused_or_the_same(place: int, letter: str) -> None:
    changed = TOKEN[:place] + letter + TOKEN[place + 1 :]
    # Base64 ignores the last bits of the last character of the signature.
    if changed != TOKEN and place < len(TOKEN) - 1:
        assert is_refused(changed)
