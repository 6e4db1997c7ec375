"""Webhook signatures: each is valid for one message and five minutes, and authenticates one client."""

from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from standardwebhooks import Webhook

from app.domain.api_key import Caller, Scope
from app.errors import UnauthenticatedError
from app.services.webhook_signatures import CallbackSettings, SignatureService, SignatureSettings

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
SECRETS = {name: f"whsec_{b64encode(name.encode() * 8).decode()}" for name in ("old", "new", "shop", "else")}
SETTINGS = SignatureSettings(
    callback_secrets=SecretStr(f"{SECRETS['old']} {SECRETS['new']}"),
    callbacks={"shop": CallbackSettings(secrets=[SecretStr(SECRETS["shop"])])},
)
SERVICE = SignatureService(SETTINGS, lambda: NOW)
BODY = '{"BizToken": "a", "Extra": "张"}'


def signed(secret: str, *, at: datetime = NOW, body: str = BODY, message_id: str = "msg_1") -> dict[str, str]:
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(SECRETS[secret]).sign(message_id, at, body),
    }


def client_of(headers: dict[str, str], body: bytes = BODY.encode()) -> str | None:
    try:
        return SERVICE.authenticate(headers, body).client
    except UnauthenticatedError:
        return None


@pytest.mark.parametrize(("secret", "client"), [("old", "default"), ("new", "default"), ("shop", "shop")])
def test_signature_authenticates_the_client_of_its_secret(secret: str, client: str) -> None:
    assert SERVICE.authenticate(signed(secret), BODY.encode()) == Caller(
        id="signature", name="signature", client=client, scopes=frozenset({Scope.CALLBACKS_WRITE})
    )


def test_one_valid_signature_among_others_is_enough() -> None:
    valid = signed("new")["webhook-signature"]
    others = [signed("else")["webhook-signature"], "v1a,AAAA", "nonsense", ""]

    assert client_of(signed("new") | {"webhook-signature": " ".join([*others, valid])}) == "default"
    assert client_of(signed("new") | {"webhook-signature": " ".join(others)}) is None


@pytest.mark.parametrize(
    ("age", "client"),
    [
        (timedelta(minutes=5), "default"),
        (timedelta(minutes=-5), "default"),
        (timedelta(minutes=5, seconds=1), None),
        (timedelta(minutes=-5, seconds=-1), None),
        (timedelta(days=365), None),
    ],
)
def test_signature_is_valid_for_five_minutes_before_and_after(age: timedelta, client: str | None) -> None:
    assert client_of(signed("old", at=NOW - age)) == client


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@given(text=st.text() | st.sampled_from(["nan", "inf", "-1", "1e9", "9" * 11, "9" * 400, "v1,", ",", "v1", "\udcff"]))
def test_any_other_header_text_is_rejected(name: str, text: str) -> None:
    headers = signed("old") | {name: text.encode(errors="replace").decode()}

    assert (client_of(headers) is None) is (headers != signed("old"))


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@given(data=st.data())
def test_header_with_one_changed_character_is_rejected(name: str, data: st.DataObject) -> None:
    valid = signed("old")[name]
    at = data.draw(st.integers(0, len(valid) - 1))
    tampered = valid[:at] + data.draw(st.characters(min_codepoint=33, max_codepoint=126)) + valid[at + 1 :]

    assert client_of(signed("old") | {name: tampered}) == ("default" if tampered == valid else None)


@given(body=st.binary())
def test_signature_of_another_body_is_rejected(body: bytes) -> None:
    assert client_of(signed("old"), body) is None


def test_signature_is_rejected_if_no_secrets_are_set() -> None:
    with pytest.raises(UnauthenticatedError):
        SignatureService(SignatureSettings(), lambda: NOW).authenticate(signed("old"), BODY.encode())
