"""Parameters of each action, and Tencent's error answers to invalid ones."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated

import msgspec

_ShortText = Annotated[str, msgspec.Meta(max_length=1024)]


class TencentError(Exception):
    """An answer with an `Error` object. `code` is one of Tencent's error codes."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class _Request(msgspec.Struct, rename="pascal", frozen=True, kw_only=True):
    """Base of the parameters. In Pascal case the field names are Tencent's."""


class DetectAuthRequest(_Request, frozen=True):
    """DetectAuth: starts a verification. Parameters without a meaning for the simulator are accepted and ignored."""

    rule_id: _ShortText
    terminal_type: _ShortText = ""
    id_card: _ShortText = ""
    name: _ShortText = ""
    redirect_url: _ShortText = ""
    extra: _ShortText = ""
    image_base64: str = ""
    encryption: dict[str, object] | None = None
    intention_verify_text: _ShortText = ""
    intention_questions: list[dict[str, object]] | None = None
    intention_actions: list[dict[str, object]] | None = None
    config: dict[str, object] | None = None


class DetectInfoRequest(_Request, frozen=True):
    """GetDetectInfo: returns the result of a verification, a JSON document inside a JSON string."""

    biz_token: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_.-]{1,128}\Z")]
    rule_id: _ShortText
    info_type: _ShortText = "0"


class DetectInfoEnhancedRequest(DetectInfoRequest, frozen=True):
    """GetDetectInfoEnhanced: returns the result as objects, with more fields and pictures."""

    best_frames_count: Annotated[int, msgspec.Meta(ge=0)] = 0
    is_cut_id_card_image: bool = False
    is_need_id_card_avatar: bool = False
    is_encrypt: bool = False
    encryption: dict[str, object] | None = None
    is_encrypt_response: bool = False
    is_return_all_video: bool = False


class BillDetailsRequest(_Request, frozen=True):
    """GetWeChatBillDetails: returns a page of the verifications charged on a day in UTC+8."""

    date: date
    cursor: Annotated[int, msgspec.Meta(ge=0)]
    rule_id: _ShortText = ""


AnyRequest = DetectAuthRequest | DetectInfoRequest | DetectInfoEnhancedRequest | BillDetailsRequest

ACTIONS: Mapping[str, type[AnyRequest]] = {
    "DetectAuth": DetectAuthRequest,
    "GetDetectInfo": DetectInfoRequest,
    "GetDetectInfoEnhanced": DetectInfoEnhancedRequest,
    "GetWeChatBillDetails": BillDetailsRequest,
}


def decode_request(action: str, body: bytes) -> AnyRequest:
    """Decodes the parameters of an action. null and the empty string count as missing.

    Raises:
        TencentError: UnknownParameter, MissingParameter or InvalidParameter.
    """
    try:
        parameters = msgspec.json.decode(body, type=dict[str, object])
    except (ValueError, RecursionError) as error:
        raise TencentError("InvalidParameter", "The request's body must be a JSON object.") from error
    given = {name: value for name, value in parameters.items() if value not in (None, "")}
    request = ACTIONS[action]
    known = {field.encode_name: field for field in msgspec.structs.fields(request)}
    if unknown := sorted(given.keys() - known):
        raise TencentError("UnknownParameter", f"The parameter `{unknown[0][:64]}` is not recognized.")
    for name, field in known.items():
        if field.required and name not in given:
            raise TencentError("MissingParameter", f"The request is missing a required parameter `{name}`.")
    try:
        return msgspec.convert(given, request)
    except msgspec.ValidationError as error:
        raise TencentError("InvalidParameter", f"The value of a parameter is not valid: {error}.") from error


def parts_of(info_type: str, allowed: str) -> frozenset[str]:
    """Returns the digits of the parts that an InfoType selects out of `allowed`; "0" selects all.

    Raises:
        TencentError: InvalidParameterValue.
    """
    if info_type == "0":
        return frozenset(allowed)
    if len(set(info_type)) != len(info_type) or not set(info_type) <= set(allowed):
        raise TencentError("InvalidParameterValue", "The value of parameter `InfoType` is not valid.")
    return frozenset(info_type)
