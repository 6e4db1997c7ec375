"""Tencent's codes in words: the result codes of a person, and the error codes of calls.

Tencent's own message comes first on a page, because it belongs to the result. These words explain it. Sources: the
pages 31082, 33560 and 103606 of Tencent's documentation. An unknown code has the words of its group or longest prefix.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from app.console.language import Language


@dataclass(frozen=True, slots=True)
class Words:
    """A text in both languages."""

    zh: str
    en: str

    def of(self, language: Language) -> str:
        """Returns the text in a language."""
        return self.zh if language.code == "zh" else self.en

    def short(self, language: Language) -> str:
        """Returns the text up to its first stop."""
        return re.split("[：。]|[:.] ", self.of(language), maxsplit=1)[0].rstrip(".")


@dataclass(frozen=True, slots=True)
class Meaning:
    """The meaning of a result code: its group, and an explanation if there is one."""

    group: Words
    text: Words | None = None


_SYSTEM = Words("系统返回码", "System")
_WECHAT = Words("微信相关返回码", "WeChat and ID card")
_LIVENESS = Words("活体检测返回码", "Liveness detection")
_COMPARISON = Words("证件图像比对返回码", "Comparison with the ID photo")
_OTHER = Words("其他返回码", "Other")

_SERVICE = Words(
    "腾讯云服务异常：可稍后重新发起核身；若反复出现，请联系腾讯云客服。",
    "A fault at Tencent. Let the person try again later; ask Tencent's support if it persists.",
)
_FACE = Words(
    "人脸验证失败：请在光线均匀处正对镜头，露出全脸后重试。",
    "The face could not be verified. Let the person try again in even light, with the whole face visible.",
)
_DIGITS = Words(
    "数字活体未通过：请按提示清晰朗读数字后重试。", "The digits were not read correctly. Let the person try again."
)
_ACTIONS = Words(
    "动作活体未通过：请按提示完成动作后重试。", "The movements were not recognised. Let the person try again."
)
_SILENT = Words(
    "静默活体未通过：请正对镜头、保持静止后重试。", "The still face was not accepted. Let the person try again."
)

RESULT_CODES: Mapping[int, Meaning] = {
    0: Meaning(_SYSTEM, Words("核身通过。", "The person passed.")),
    **dict.fromkeys((4, 8, 10, 12, 13), Meaning(_SYSTEM, _SERVICE)),
    14: Meaning(_SYSTEM, Words("本次校验已完成。", "This check was finished before.")),
    15: Meaning(
        _SYSTEM, Words("BizToken 已过期：请重新发起核身。", "The token has expired. Start a new verification.")
    ),
    16: Meaning(
        _SYSTEM, Words("已达到重试次数上限：请重新发起核身。", "No attempts are left. Start a new verification.")
    ),
    17: Meaning(_SYSTEM, Words("本次流程未完成：被核身人尚未做完。", "The person has not finished yet.")),
    **dict.fromkeys(
        (201, 202, 203, 204),
        Meaning(
            _WECHAT,
            Words("微信环境或授权异常：请在微信中重新进入流程。", "WeChat interrupted the flow. Enter it again."),
        ),
    ),
    301: Meaning(
        _WECHAT,
        Words(
            "证件上的号码与业务传入的身份证号不符：请核对传入信息，或请本人使用自己的证件。",
            "The number on the card is not the one that was passed in. Check the data, or whose card it is.",
        ),
    ),
    302: Meaning(_WECHAT, Words("身份证已过期：请使用有效证件。", "The ID card has expired. A valid one is needed.")),
    303: Meaning(
        _WECHAT,
        Words(
            "证件识别失败：请在光线充足处重新拍摄，避免反光和遮挡。",
            "The ID card could not be read. Photograph it again.",
        ),
    ),
    1001: Meaning(_LIVENESS, Words("活体引擎超时：请稍后重试。", "Liveness detection timed out. Try again later.")),
    1002: Meaning(
        _LIVENESS,
        Words(
            "疑似非真人录制：可能使用了照片、屏幕或面具。", "Probably no living person: a photo, a screen or a mask."
        ),
    ),
    **dict.fromkeys((1003, 1004, 1005), Meaning(_LIVENESS, _FACE)),
    1008: Meaning(_LIVENESS, Words("网络不稳定：请在网络良好处重试。", "The network was unstable. Try again.")),
    2002: Meaning(_COMPARISON, Words("姓名有误：请核对姓名。", "The name is wrong. Check it.")),
    2003: Meaning(_COMPARISON, Words("身份证号有误：请核对号码。", "The ID number is wrong. Check it.")),
    2005: Meaning(
        _COMPARISON,
        Words("未查询到身份信息：权威库中无此人照片。", "The authority has no record or no photo of this person."),
    ),
    2006: Meaning(
        _COMPARISON,
        Words("姓名和身份证号不匹配：请核对两者。", "Name and ID number do not belong together. Check both."),
    ),
    2016: Meaning(
        _COMPARISON,
        Words(
            "无法判断为同一人：相似度未达到 70 分的通过阈值。请本人在光线均匀处重试，或人工复核照片。",
            "Not the same person for certain: the similarity is below the threshold of 70. Let the person try again in "
            "even light, or review the pictures.",
        ),
    ),
}
_RANGES: tuple[tuple[range, Meaning], ...] = (
    (range(200, 400), Meaning(_WECHAT)),
    (range(1100, 1200), Meaning(_LIVENESS, _DIGITS)),
    (range(1200, 1300), Meaning(_LIVENESS, _ACTIONS)),
    (range(1300, 1400), Meaning(_LIVENESS, _SILENT)),
    (range(1000, 2000), Meaning(_LIVENESS)),
    (range(2000, 3000), Meaning(_COMPARISON)),
    (range(200), Meaning(_SYSTEM)),
)

_WAIT = Words("无需处理：将自动重试。", "Nothing to do: it is retried.")
_NETWORK = Words(
    "请检查 FACEID_ENDPOINT、DNS 与防火墙，以及 FACEID_CA_FILE。",
    "Check FACEID_ENDPOINT, DNS and the firewall, and FACEID_CA_FILE.",
)
_KEYS = Words(
    "请在腾讯云控制台的“API 密钥管理”核对 SecretId 与 SecretKey。",
    "Check SecretId and SecretKey in Tencent Cloud's console, under API keys.",
)
_PERMISSION = Words("请为子账号授予 faceid:GetDetectInfo 权限。", "Grant the sub-account faceid:GetDetectInfo.")
_RULE = Words(
    "请使用该账号下已启用的业务流程 ID (RuleId)。",
    "Use an enabled RuleId of this account; see Tencent's FaceID console.",
)
_REJECTED = Words(
    "腾讯云拒绝了此 BizToken，重试无效：请核对 BizToken 与账号。",
    "Tencent rejects this token for good. Check the token and its account.",
)
_REPORT = Words("请联系本服务的维护者。", "Report this to the maintainers of the service.")

ERROR_CODES: Mapping[str, Words] = {
    "InternalError": _WAIT,
    "FailedOperation": _WAIT,
    "ServiceUnavailable": _WAIT,
    "ResourceUnavailable": _WAIT,
    "network": _NETWORK,
    "network.proxy": Words("请检查 FACEID_PROXY 及代理服务器。", "Check FACEID_PROXY and the proxy."),
    "reply.unreadable": _NETWORK,
    "reply.too_large": _WAIT,
    "http": _NETWORK,
    "storage.media": Words(
        "影像未能写入存储：请检查影像存储。", "The media could not be stored. Check the media store."
    ),
    "internal.crash": _REPORT,
    "AuthFailure": _KEYS,
    "AuthFailure.SignatureExpire": Words("请用 NTP 校准本机时钟。", "Synchronise this machine's clock by NTP."),
    "AuthFailure.SecretIdNotFound": Words(
        "SecretId 不存在、已禁用或属于其他站点。", "The SecretId is deleted, disabled or another site's."
    ),
    "AuthFailure.SignatureFailure": Words(
        "SecretKey 与 SecretId 不匹配。", "The SecretKey does not belong to the SecretId."
    ),
    "AuthFailure.TokenFailure": Words(
        "临时凭证已过期：请更新。", "The temporary credentials have expired. Renew them."
    ),
    "AuthFailure.UnauthorizedOperation": _PERMISSION,
    "RequestLimitExceeded": Words(
        "超过频率限制：将自动放慢并重试。", "The rate limit was exceeded. It is retried, slower."
    ),
    "FailedOperation.RequestLimitExceeded": Words(
        "超过频率限制：将自动放慢并重试。", "The rate limit was exceeded. It is retried, slower."
    ),
    "LimitExceeded": _WAIT,
    "ResourceInsufficient": _WAIT,
    "ResponseSizeLimitExceeded": Words(
        "结果过大：将分次获取。", "The answer is too large. Its parts are fetched separately."
    ),
    "UnauthorizedOperation": _PERMISSION,
    "UnauthorizedOperation.ActivateError": Words(
        "人脸核身服务开通失败：请联系腾讯云客服。", "Activating FaceID failed. Ask Tencent's support."
    ),
    "UnauthorizedOperation.Activating": Words("腾讯云正在开通服务：请等待。", "Tencent is activating FaceID. Wait."),
    "UnauthorizedOperation.Arrears": Words(
        "腾讯云账号欠费：请在腾讯云控制台的“费用中心”充值。一分钟内自动恢复，无需其他操作；结果在腾讯云保留 72 小时。",
        "The Tencent Cloud account is in arrears. Pay in the Billing Center of Tencent Cloud's console. Retrieval then "
        "resumes within a minute by itself. Tencent keeps the results for 72 hours.",
    ),
    "UnauthorizedOperation.ChargeStatusException": Words(
        "计费状态异常：请在腾讯云控制台检查人脸核身的计费。", "Check the billing of FaceID in Tencent's console."
    ),
    "UnauthorizedOperation.NonAuthorize": Words(
        "腾讯云账号未实名认证：请完成认证。", "Complete the real-name verification of the Tencent Cloud account."
    ),
    "UnauthorizedOperation.Nonactivated": Words(
        "未开通人脸核身：请在腾讯云控制台开通。", "Activate FaceID in Tencent Cloud's console."
    ),
    "FailedOperation.StsUnAuthErrError": Words("请授予人脸核身的服务角色。", "Grant FaceID's service role."),
    "IpInBlacklist": Words("本机 IP 在黑名单中：请移除。", "Remove this machine's address from the block list."),
    "IpNotInWhitelist": Words("本机 IP 不在白名单中：请加入。", "Add this machine's address to the allow list."),
    "InvalidParameterValue.RuleIdNotExist": _RULE,
    "InvalidParameterValue.RuleIdDisabled": _RULE,
    "InvalidParameterValue.BizTokenExpired": Words(
        "腾讯云已删除结果（超过 72 小时）：无法再获取，需重新核身。",
        "Tencent has deleted the result after 72 hours. It cannot be retrieved any more; verify the person again.",
    ),
    "InvalidParameterValue": _REJECTED,
    "InvalidParameter": _REJECTED,
    "MissingParameter": _REJECTED,
    "FailedOperation.InvalidTokenParameter": _REJECTED,
    "reply.foreign": Words(
        "结果属于另一次流程（Extra 不符），未保存：由业务系统用密钥登记此 BizToken 后将重新获取。",
        "The result belongs to another run (its Extra differs), so it was not stored. Register the token with a key.",
    ),
    "InvalidParameter.UnsupportEncryptField": _REPORT,
    "InvalidAction": _NETWORK,
    "NoSuchProduct": _NETWORK,
    "NoSuchVersion": _REPORT,
    "UnknownParameter": _REPORT,
    "UnsupportedOperation": _REPORT,
    "UnsupportedProtocol": _REPORT,
    "UnsupportedRegion": _REPORT,
    "RequestSizeLimitExceeded": _REPORT,
    "ActionOffline": _REPORT,
    "InvalidRequest": _REPORT,
}


def meaning_of_result(code: int) -> Meaning:
    """Returns the meaning of a result code."""
    known = RESULT_CODES.get(code)
    return known or next((meaning for codes, meaning in _RANGES if code in codes), Meaning(_OTHER))


def words_of_error(code: str) -> Words | None:
    """Returns what to do about the error code of a call, Tencent's or ours; None for an unknown one."""
    while code not in ERROR_CODES and "." in code:
        code = code.rpartition(".")[0]
    return ERROR_CODES.get(code)
