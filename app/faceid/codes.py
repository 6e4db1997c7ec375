"""What Tencent's error codes mean for us, after the error pages of GetDetectInfo and of the API's common part.

An unknown code falls to its prefix, and then to "retry": the result is kept for 72 h, and a wrong "final" loses it.
"""

from app.domain.decision import ErrorClass

# What stands in the place of Tencent's code where no answer came.
TIMED_OUT = "network.timeout"
CONNECTION_FAILED = "network.connection"
UNREADABLE = "reply.unreadable"
TOO_LARGE = "reply.too_large"
HTTP_STATUS = "http."  # and the status
FOREIGN = "reply.foreign"  # it lacks the nonce of the state that came with the token (`app.domain.redirect`)
CRASHED = "internal.crash"  # a fault of our own, at whatever the answer was

_CLASSES = {
    "InternalError": ErrorClass.RETRY,
    "FailedOperation": ErrorClass.RETRY,
    "ServiceUnavailable": ErrorClass.RETRY,
    "ResourceUnavailable": ErrorClass.RETRY,
    "AuthFailure.SignatureExpire": ErrorClass.CLOCK,
    "RequestLimitExceeded": ErrorClass.SLOW_DOWN,
    "LimitExceeded": ErrorClass.SLOW_DOWN,
    "ResourceInsufficient": ErrorClass.SLOW_DOWN,
    "ResponseSizeLimitExceeded": ErrorClass.ASK_FOR_LESS,
    "UnauthorizedOperation": ErrorClass.ACCOUNT,
    "AuthFailure": ErrorClass.ACCOUNT,
    "IpInBlacklist": ErrorClass.ACCOUNT,
    "IpNotInWhitelist": ErrorClass.ACCOUNT,
    "InvalidParameterValue.RuleIdNotExist": ErrorClass.RULE,
    "InvalidParameterValue.RuleIdDisabled": ErrorClass.RULE,
    "FailedOperation.StsUnAuthErrError": ErrorClass.ACCOUNT,
    "InvalidParameterValue.BizTokenExpired": ErrorClass.EXPIRED,
    "InvalidParameterValue": ErrorClass.FINAL,
    "InvalidParameter": ErrorClass.FINAL,
    "MissingParameter": ErrorClass.FINAL,
    "InvalidAction": ErrorClass.BUG,
    "NoSuchVersion": ErrorClass.BUG,
    "NoSuchProduct": ErrorClass.BUG,
    "UnknownParameter": ErrorClass.BUG,
    "UnsupportedOperation": ErrorClass.BUG,
    "UnsupportedProtocol": ErrorClass.BUG,
    "UnsupportedRegion": ErrorClass.BUG,
    "RequestSizeLimitExceeded": ErrorClass.BUG,
    "ActionOffline": ErrorClass.BUG,
    "InvalidRequest": ErrorClass.BUG,
    FOREIGN: ErrorClass.FINAL,
    TOO_LARGE: ErrorClass.ASK_FOR_LESS,
    TIMED_OUT: ErrorClass.TIMED_OUT,
}


def classify(code: str) -> ErrorClass:
    """The class of an error code, Tencent's or one of ours: that of its longest known prefix, cut at a dot."""
    while code not in _CLASSES and "." in code:
        code = code.rpartition(".")[0]
    return _CLASSES.get(code, ErrorClass.RETRY)
