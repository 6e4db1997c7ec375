"""What an operator does about an error of Tencent's, in a sentence: for the doctor, `/readyz` and the log."""

from app.faceid import codes

KEY_PAIR = "Copy both halves of a key pair anew from https://console.cloud.tencent.com/cam/capi."
CLOCK = "Synchronise this machine's clock by NTP: Tencent refuses signatures that are 300 s off."
ENDPOINT = "Check FACEID_ENDPOINT, and that name resolution and firewall let this machine reach it."
_ADVICE = {  # by the longest prefix of the code
    "AuthFailure": KEY_PAIR,
    "AuthFailure.SignatureExpire": CLOCK,
    "AuthFailure.SecretIdNotFound": "Check TENCENTCLOUD_SECRET_ID: the key is deleted, disabled or another site's.",
    "AuthFailure.SignatureFailure": "Check TENCENTCLOUD_SECRET_KEY: it does not belong to TENCENTCLOUD_SECRET_ID.",
    "AuthFailure.TokenFailure": "Renew the temporary credentials: TENCENTCLOUD_TOKEN is over or another key's.",
    "AuthFailure.UnauthorizedOperation": "Grant the sub-account faceid:GetDetectInfo in Tencent's access management.",
    "UnauthorizedOperation": "Grant the sub-account faceid:GetDetectInfo in Tencent's access management.",
    "UnauthorizedOperation.ActivateError": "Ask Tencent's support: activating FaceID for the account went wrong.",
    "UnauthorizedOperation.Activating": "Wait: Tencent is activating FaceID for the account.",
    "UnauthorizedOperation.Arrears": "Pay the Tencent Cloud account's bill.",
    "UnauthorizedOperation.NonAuthorize": "Verify the owner of the Tencent Cloud account by its real name.",
    "UnauthorizedOperation.Nonactivated": "Activate FaceID at https://console.cloud.tencent.com/faceid.",
    "FailedOperation.StsUnAuthErrError": "Grant FaceID's service role in Tencent's access management.",
    "IpInBlacklist": "Take this machine's address off the block list in Tencent's console.",
    "IpNotInWhitelist": "Put this machine's address on the allow list in Tencent's console.",
    "InvalidParameterValue.RuleId": "Use an enabled RuleId of https://console.cloud.tencent.com/faceid.",
    codes.TIMED_OUT: ENDPOINT,
    codes.CONNECTION_FAILED: ENDPOINT,
    codes.UNREADABLE: ENDPOINT,
    codes.HTTP_STATUS: ENDPOINT,
    "InvalidAction": ENDPOINT,
    "NoSuchProduct": ENDPOINT,
}


def advice(code: str) -> str | None:
    """What to do about this error code; None where nothing but waiting is known to help."""
    known = max((prefix for prefix in _ADVICE if code.startswith(prefix)), key=len, default=None)
    return known and _ADVICE[known]
