"""Error codes of calls to Tencent: how the service reacts, and what an operator can do.

Sources: the error pages of GetDetectInfo and of the common part of Tencent's API. An unknown code has the meaning of
its longest known prefix, cut at a dot. Without one it is retried: results stay available for 72 h, and treating an
error as final by mistake would lose them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from app.domain.decision import ErrorClass
from app.domain.redirect_state import FOREIGN

# Our own codes, for calls without an answer of Tencent's or whose answer was not used.
TIMED_OUT = "network.timeout"
CONNECT_TIMED_OUT = "network.connect_timeout"
CONNECTION_FAILED = "network.connection"
PROXY_FAILED = "network.proxy"
UNREADABLE = "reply.unreadable"
TOO_LARGE = "reply.too_large"
# Tencent's code for a RuleId that its account does not have.
RULE_MISSING = "InvalidParameterValue.RuleIdNotExist"
# Followed by a dot and the status.
HTTP_STATUS = "http"
# Our own media store failed while a good answer arrived, or after that.
MEDIA_NOT_STORED = "storage.media"
# A bug of ours, for any answer.
CRASHED = "internal.crash"

KEY_PAIR = "Copy secret id and secret key again from https://console.cloud.tencent.com/cam/capi."
CLOCK = "Synchronise this machine's clock by NTP: Tencent rejects signatures that are more than 300 s off."
ENDPOINT = "Check FACEID_ENDPOINT, and that DNS and firewall let this machine reach it; FACEID_CA_FILE must match it."
PROXY = "Check FACEID_PROXY, and that the proxy accepts this machine and allows connections to FACEID_ENDPOINT."
_PERMISSION = "Grant the sub-account faceid:GetDetectInfo in Tencent's access management."
_RULE = "Use an enabled RuleId of https://console.cloud.tencent.com/faceid."


@dataclass(frozen=True, slots=True)
class Meaning:
    """The reaction to an error code. `advice` is a sentence for the operator, None if only waiting helps."""

    error_class: ErrorClass
    advice: str | None = None


_UNKNOWN = Meaning(ErrorClass.RETRY)
_CODES: Mapping[ErrorClass, Mapping[str, str | None]] = {
    ErrorClass.RETRY: {
        "InternalError": None,
        "FailedOperation": None,
        "ServiceUnavailable": None,
        "ResourceUnavailable": None,
        CONNECTION_FAILED: ENDPOINT,
        # It says nothing about the size of the answer.
        CONNECT_TIMED_OUT: ENDPOINT,
        PROXY_FAILED: PROXY,
        UNREADABLE: ENDPOINT,
        HTTP_STATUS: ENDPOINT,
        MEDIA_NOT_STORED: None,
        CRASHED: None,
    },
    ErrorClass.TIMED_OUT: {TIMED_OUT: ENDPOINT},
    ErrorClass.CLOCK: {"AuthFailure.SignatureExpire": CLOCK},
    ErrorClass.SLOW_DOWN: {
        "RequestLimitExceeded": None,
        "FailedOperation.RequestLimitExceeded": None,
        "LimitExceeded": None,
        "ResourceInsufficient": None,
    },
    ErrorClass.ASK_FOR_LESS: {"ResponseSizeLimitExceeded": None, TOO_LARGE: None},
    ErrorClass.ACCOUNT: {
        "AuthFailure": KEY_PAIR,
        "AuthFailure.SecretIdNotFound": "Check TENCENTCLOUD_SECRET_ID: the key is deleted, disabled or another site's.",
        "AuthFailure.SignatureFailure": "Check TENCENTCLOUD_SECRET_KEY: it does not belong to TENCENTCLOUD_SECRET_ID.",
        "AuthFailure.TokenFailure": "Renew the temporary credentials: TENCENTCLOUD_TOKEN expired or is another key's.",
        "AuthFailure.UnauthorizedOperation": _PERMISSION,
        "UnauthorizedOperation": _PERMISSION,
        "UnauthorizedOperation.ActivateError": "Ask Tencent's support: activating FaceID for the account failed.",
        "UnauthorizedOperation.Activating": "Wait: Tencent is activating FaceID for the account.",
        "UnauthorizedOperation.Arrears": "Pay the Tencent Cloud account's bill.",
        "UnauthorizedOperation.ChargeStatusException": "Check the billing of FaceID in Tencent's console.",
        "UnauthorizedOperation.NonAuthorize": "Complete the real-name verification of the Tencent Cloud account.",
        "UnauthorizedOperation.Nonactivated": "Activate FaceID at https://console.cloud.tencent.com/faceid.",
        "FailedOperation.StsUnAuthErrError": "Grant FaceID's service role in Tencent's access management.",
        "IpInBlacklist": "Remove this machine's address from the block list in Tencent's console.",
        "IpNotInWhitelist": "Add this machine's address to the allow list in Tencent's console.",
    },
    ErrorClass.RULE: {
        RULE_MISSING: _RULE,
        "InvalidParameterValue.RuleIdDisabled": _RULE,
    },
    ErrorClass.EXPIRED: {"InvalidParameterValue.BizTokenExpired": None},
    ErrorClass.FINAL: {
        "InvalidParameterValue": None,
        "InvalidParameter": None,
        "MissingParameter": None,
        "FailedOperation.InvalidTokenParameter": None,
        FOREIGN: None,
    },
    ErrorClass.BUG: {
        "InvalidParameter.UnsupportEncryptField": None,
        "InvalidAction": ENDPOINT,
        "NoSuchProduct": ENDPOINT,
        "NoSuchVersion": None,
        "UnknownParameter": None,
        "UnsupportedOperation": None,
        "UnsupportedProtocol": None,
        "UnsupportedRegion": None,
        "RequestSizeLimitExceeded": None,
        "ActionOffline": None,
        "InvalidRequest": None,
    },
}
_MEANINGS = {
    code: Meaning(error_class, advice) for error_class, codes in _CODES.items() for code, advice in codes.items()
}
KNOWN = frozenset(_MEANINGS)
"""All known codes."""


def meaning_of(code: str) -> Meaning:
    """Returns the meaning of an error code, Tencent's or ours."""
    while code not in _MEANINGS and "." in code:
        code = code.rpartition(".")[0]
    return _MEANINGS.get(code, _UNKNOWN)


def classify(code: str) -> ErrorClass:
    """Returns the class of an error code."""
    return meaning_of(code).error_class


def advice(code: str) -> str | None:
    """Returns what an operator can do about an error code: for the doctor, `/readyz` and the log."""
    return meaning_of(code).advice
