"""States of redirects: read as they were made, and by nobody else; and whose result it is that came."""

import hmac
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.domain.detection import Detection
from app.domain.redirect import LIFETIME, Ticket, is_foreign, seal, unseal
from app.domain.verification import Verification

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
TICKET = Ticket(client="shop", rule_id="1", nonce="0" * 32, expires_at=NOW + LIFETIME)
CALLED_BACK = Verification(
    client="shop", biz_token="a", rule_id="1", received_at=NOW, deadline_at=NOW, due_at=NOW, nonce="0" * 32
)


def mac(*names: str, key: bytes = b"key") -> bytes:
    return hmac.digest(key, "|".join(names).encode(), "sha256")


def macs(*names: str) -> list[bytes]:
    """By a newer key, and by the one that signed."""
    return [mac(*names, key=b"newer"), mac(*names)]


STATE = seal(TICKET, mac)


@given(client=st.text(max_size=64), nonce=st.text(max_size=64))
@example(client="\0" * 64, nonce="𝔫" * 64)  # the longest that they can be written
def test_a_state_is_read_as_it_was_made(client: str, nonce: str) -> None:
    ticket = replace(TICKET, client=client, nonce=nonce)

    assert unseal(seal(ticket, mac), macs, NOW) == ticket


@pytest.mark.parametrize(("age", "is_good"), [(LIFETIME - timedelta(seconds=1), True), (LIFETIME, False)])
def test_a_state_is_good_for_a_day(age: timedelta, is_good: bool) -> None:
    assert unseal(STATE, macs, NOW + age) == (TICKET if is_good else None)


@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]{1,99}\.[A-Za-z0-9_-]{1,99}", fullmatch=True))
def test_any_other_text_is_none(text: str) -> None:
    assert unseal(text, macs, NOW) is None


@given(at=st.integers(0, len(STATE) - 1), character=st.characters(min_codepoint=33, max_codepoint=126))
def test_a_state_with_one_altered_character_is_none(at: int, character: str) -> None:
    altered = STATE[:at] + character + STATE[at + 1 :]

    assert unseal(altered, macs, NOW) == (TICKET if altered == STATE else None)


def test_a_state_of_another_key_is_none() -> None:
    assert unseal(STATE, lambda *names: macs(*names)[:1], NOW) is None


def test_what_the_key_signed_for_another_purpose_is_none() -> None:
    assert unseal(seal(TICKET, lambda _, payload: mac("another", payload)), macs, NOW) is None


@pytest.mark.parametrize(
    ("nonce", "detection", "foreign"),
    [
        pytest.param(None, Detection(err_code=0), False, id="nobody gave a nonce"),
        pytest.param("n", None, False, id="without the text there is nothing to compare"),
        pytest.param("n", Detection(err_code=0, extra="n"), False, id="passed, with the nonce"),
        pytest.param("n", Detection(err_code=0, extra="m"), True, id="passed, with another"),
        pytest.param("n", Detection(err_code=0), True, id="passed, without any"),
        pytest.param("n", Detection(err_code=2016), True, id="failed, without any"),
        pytest.param("n", Detection(), False, id="not finished, and absent like all else"),
        pytest.param("n", Detection(err_code=17, extra="n"), False, id="not finished, with the nonce"),
        pytest.param("n", Detection(err_code=17, extra="m"), True, id="not finished, with another"),
    ],
)
def test_a_result_without_the_nonce_is_foreign(nonce: str | None, detection: Detection | None, foreign: bool) -> None:
    assert is_foreign(replace(CALLED_BACK, nonce=nonce), detection) is foreign
