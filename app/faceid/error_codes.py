"""Error codes of calls to Tencent: how the service reacts, and what an operator can do.

Sources: the error pages of GetDetectInfo and of the common part of Tencent's API. An unknown code has the meaning of
its longest known prefix, cut at a dot. Without one it is retried: results stay available for 72 h, and treating an
error as final by mistake would lose them.
"""

from dataclasses import dataclass

from app.domain.decision import ErrorClass

# Our own codes, for calls without an answer of Tencent's or whose answer was not used.
TIMED_OUT = "network.timeout"
CONNECTION_FAILED = "network.connection"
UNREADABLE = "reply.unreadable"
TOO_LARGE = "reply.too_large"
# Followed by a dot and the status.
HTTP_STATUS = "http"
# The result lacks the nonce of the redirect state that came with its token (`app.domain.redirect`).
FOREIGN = "reply.foreign"
# Our own media store failed while a good answer arrived, or after that.
MEDIA_NOT_STORED = "storage.media"
# A bug of ours, whatever the answer was.
CRASHED = "internal.crash"

KEY_PAIR = "Copy secret id and secret key again from https://console.cloud.tencent.com/cam/capi."
CLOCK = "Synchronise this machine's clock by NTP: Tencent rejects signatures that are more than 300 s off."
ENDPOINT = "Check FACEID_ENDPOINT, and that DNS and firewall let this machine reach it."
_PERMISSION = "Grant the sub-account faceid:GetDetectInfo in Tencent's access management."
_RULE = "Use an enabled RuleId of https://console.cloud.tencent.com/faceid."


@dataclass(frozen=True, slots=True)
class Meaning:
    """The reaction to an error code. `advice` is a sentence for the operator, None where waiting is all one can do."""

    error_class: ErrorClass
    advice: str | None = None


_UNKNOWN = Meaning(ErrorClass.RETRY)
_MEANINGS = {
    "InternalError": Meaning(ErrorClass.RETRY),
    "FailedOperation": Meaning(ErrorClass.RETRY),
    "ServiceUnavailable": Meaning(ErrorClass.RETRY),
    "ResourceUnavailable": Meaning(ErrorClass.RETRY),
    CONNECTION_FAILED: Meaning(ErrorClass.RETRY, ENDPOINT),
    UNREADABLE: Meaning(ErrorClass.RETRY, ENDPOINT),
    HTTP_STATUS: Meaning(ErrorClass.RETRY, ENDPOINT),
    MEDIA_NOT_STORED: Meaning(ErrorClass.RETRY),
    CRASHED: Meaning(ErrorClass.RETRY),
    TIMED_OUT: Meaning(ErrorClass.TIMED_OUT, ENDPOINT),
    "AuthFailure.SignatureExpire": Meaning(ErrorClass.CLOCK, CLOCK),
    "RequestLimitExceeded": Meaning(ErrorClass.SLOW_DOWN),
    "LimitExceeded": Meaning(ErrorClass.SLOW_DOWN),
    "ResourceInsufficient": Meaning(ErrorClass.SLOW_DOWN),
    "ResponseSizeLimitExceeded": Meaning(ErrorClass.ASK_FOR_LESS),
    TOO_LARGE: Meaning(ErrorClass.ASK_FOR_LESS),
    "AuthFailure": Meaning(ErrorClass.ACCOUNT, KEY_PAIR),
    "AuthFailure.SecretIdNotFound": Meaning(
        ErrorClass.ACCOUNT, "Check TENCENTCLOUD_SECRET_ID: the key is deleted, disabled or of another Tencent site."
    ),
    "AuthFailure.SignatureFailure": Meaning(
        ErrorClass.ACCOUNT, "Check TENCENTCLOUD_SECRET_KEY: it does not belong to TENCENTCLOUD_SECRET_ID."
    ),
    "AuthFailure.TokenFailure": Meaning(
        ErrorClass.ACCOUNT, "Renew the temporary credentials: TENCENTCLOUD_TOKEN has expired or is of another key."
    ),
    "AuthFailure.UnauthorizedOperation": Meaning(ErrorClass.ACCOUNT, _PERMISSION),
    "UnauthorizedOperation": Meaning(ErrorClass.ACCOUNT, _PERMISSION),
    "UnauthorizedOperation.ActivateError": Meaning(
        ErrorClass.ACCOUNT, "Ask Tencent's support: activating FaceID for the account failed."
    ),
    "UnauthorizedOperation.Activating": Meaning(
        ErrorClass.ACCOUNT, "Wait: Tencent is activating FaceID for the account."
    ),
    "UnauthorizedOperation.Arrears": Meaning(ErrorClass.ACCOUNT, "Pay the Tencent Cloud account's bill."),
    "UnauthorizedOperation.NonAuthorize": Meaning(
        ErrorClass.ACCOUNT, "Complete the real-name verification of the Tencent Cloud account's owner."
    ),
    "UnauthorizedOperation.Nonactivated": Meaning(
        ErrorClass.ACCOUNT, "Activate FaceID at https://console.cloud.tencent.com/faceid."
    ),
    "FailedOperation.StsUnAuthErrError": Meaning(
        ErrorClass.ACCOUNT, "Grant FaceID's service role in Tencent's access management."
    ),
    "IpInBlacklist": Meaning(
        ErrorClass.ACCOUNT, "Remove this machine's address from the block list in Tencent's console."
    ),
    "IpNotInWhitelist": Meaning(
        ErrorClass.ACCOUNT, "Add this machine's address to the allow list in Tencent's console."
    ),
    "InvalidParameterValue.RuleIdNotExist": Meaning(ErrorClass.RULE, _RULE),
    "InvalidParameterValue.RuleIdDisabled": Meaning(ErrorClass.RULE, _RULE),
    "InvalidParameterValue.BizTokenExpired": Meaning(ErrorClass.EXPIRED),
    "InvalidParameterValue": Meaning(ErrorClass.FINAL),
    "InvalidParameter": Meaning(ErrorClass.FINAL),
    "MissingParameter": Meaning(ErrorClass.FINAL),
    FOREIGN: Meaning(ErrorClass.FINAL),
    "InvalidAction": Meaning(ErrorClass.BUG, ENDPOINT),
    "NoSuchProduct": Meaning(ErrorClass.BUG, ENDPOINT),
    "NoSuchVersion": Meaning(ErrorClass.BUG),
    "UnknownParameter": Meaning(ErrorClass.BUG),
    "UnsupportedOperation": Meaning(ErrorClass.BUG),
    "UnsupportedProtocol": Meaning(ErrorClass.BUG),
    "UnsupportedRegion": Meaning(ErrorClass.BUG),
    "RequestSizeLimitExceeded": Meaning(ErrorClass.BUG),
    "ActionOffline": Meaning(ErrorClass.BUG),
    "InvalidRequest": Meaning(ErrorClass.BUG),
}


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
