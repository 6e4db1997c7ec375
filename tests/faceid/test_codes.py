"""Every error code that Tencent documents, those that stand for no answer at all, and those that nobody knows yet."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.decision import ErrorClass
from app.faceid import codes
from app.faceid.codes import classify

TABLE = {
    ErrorClass.RETRY: [
        codes.CRASHED,
        codes.CONNECTION_FAILED,
        codes.UNREADABLE,
        *(f"{codes.HTTP_STATUS}{status}" for status in (301, 400, 403, 413, 429, 500, 502, 503, 504)),
        "InternalError",
        "InternalError.DbError",
        "FailedOperation",
        "FailedOperation.UnKnown",
        "FailedOperation.LifePhotoSizeError",
        "ServiceUnavailable",
        "ResourceUnavailable",
        "ResourceUnavailable.NotExist",
    ],
    ErrorClass.TIMED_OUT: [codes.TIMED_OUT],
    ErrorClass.CLOCK: ["AuthFailure.SignatureExpire"],
    ErrorClass.SLOW_DOWN: [
        "ResourceInsufficient",
        "ResourceInsufficient.Memory",
        "RequestLimitExceeded",
        "RequestLimitExceeded.GlobalRegionUinLimitExceeded",
        "RequestLimitExceeded.IPLimitExceeded",
        "RequestLimitExceeded.UinLimitExceeded",
        "LimitExceeded",
    ],
    ErrorClass.ASK_FOR_LESS: [codes.TOO_LARGE, "ResponseSizeLimitExceeded"],
    ErrorClass.ACCOUNT: [
        "UnauthorizedOperation",
        "UnauthorizedOperation.ActivateError",
        "UnauthorizedOperation.Activating",
        "UnauthorizedOperation.Arrears",
        "UnauthorizedOperation.NonAuthorize",
        "UnauthorizedOperation.Nonactivated",
        "AuthFailure",
        "AuthFailure.InvalidAuthorization",
        "AuthFailure.InvalidSecretId",
        "AuthFailure.MFAFailure",
        "AuthFailure.SecretIdNotFound",
        "AuthFailure.SignatureFailure",
        "AuthFailure.TokenFailure",
        "AuthFailure.UnauthorizedOperation",
        "IpInBlacklist",
        "IpNotInWhitelist",
        "FailedOperation.StsUnAuthErrError",
    ],
    ErrorClass.RULE: ["InvalidParameterValue.RuleIdNotExist", "InvalidParameterValue.RuleIdDisabled"],
    ErrorClass.EXPIRED: ["InvalidParameterValue.BizTokenExpired"],
    ErrorClass.FINAL: [
        codes.FOREIGN,
        "InvalidParameterValue.BizTokenIllegal",
        "InvalidParameter",
        "InvalidParameter.Unheard",
        "InvalidParameterValue",
        "InvalidParameterValue.Unheard",
        "MissingParameter",
    ],
    ErrorClass.BUG: [
        "InvalidAction",
        "NoSuchVersion",
        "NoSuchProduct",
        "UnknownParameter",
        "UnsupportedOperation",
        "UnsupportedProtocol",
        "UnsupportedRegion",
        "RequestSizeLimitExceeded",
        "ActionOffline",
        "InvalidRequest",
    ],
}
CODES = [(code, error_class) for error_class, known in TABLE.items() for code in known]
FAMILIES = sorted(code for code, _ in CODES if code[0].isupper())  # ours are no prefixes of anything


@pytest.mark.parametrize(("code", "error_class"), CODES)
def test_a_code_has_the_class_that_tencent_documents(code: str, error_class: ErrorClass) -> None:
    assert classify(code) is error_class


def test_every_class_of_trouble_has_a_code() -> None:
    assert set(TABLE) == set(ErrorClass)


@pytest.mark.parametrize("code", ["", ".", "Unheard", "Unheard.Of", "invalidparameter", "InvalidParameterX", "http"])
def test_an_unknown_code_is_worth_another_try(code: str) -> None:
    assert classify(code) is ErrorClass.RETRY


@settings(deadline=None)
@given(family=st.sampled_from(FAMILIES), tails=st.lists(st.from_regex(r"[A-Z]{3}[a-z]{6}", fullmatch=True), max_size=3))
def test_an_unknown_code_falls_to_its_longest_known_prefix(family: str, tails: list[str]) -> None:
    assert classify(".".join([family, *tails])) is dict(CODES)[family]


@settings(deadline=None)
@given(code=st.text())
def test_no_text_whatsoever_ends_a_verification_but_what_tencent_documents(code: str) -> None:
    assert classify(code) is dict(CODES).get(code, ErrorClass.RETRY)
