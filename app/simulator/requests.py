"""What the simulator can be asked, and Tencent's answers to what it cannot."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated

import msgspec

_Short = Annotated[str, msgspec.Meta(max_length=1024)]


class TencentError(Exception):
    """An answer with an `Error` in it; `code` is one of Tencent's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class _Request(msgspec.Struct, rename="pascal", frozen=True, kw_only=True):
    """Base of the actions' parameters; the field names in Pascal case are Tencent's."""


class DetectAuthRequest(_Request, frozen=True):
    """DetectAuth: begin a verification. What has no meaning for the simulator is accepted and left alone."""

    rule_id: _Short
    terminal_type: _Short = ""
    id_card: _Short = ""
    name: _Short = ""
    redirect_url: _Short = ""
    extra: _Short = ""
    image_base64: str = ""
    encryption: dict[str, object] | None = None
    intention_verify_text: _Short = ""
    intention_questions: list[dict[str, object]] | None = None
    intention_actions: list[dict[str, object]] | None = None
    config: dict[str, object] | None = None


class DetectInfoRequest(_Request, frozen=True):
    """GetDetectInfo: the result of a verification, a JSON document inside a JSON string."""

    biz_token: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_.-]{1,128}\Z")]
    rule_id: _Short
    info_type: _Short = "0"


class DetectInfoEnhancedRequest(DetectInfoRequest, frozen=True):
    """GetDetectInfoEnhanced: the same and more, as objects."""

    best_frames_count: Annotated[int, msgspec.Meta(ge=0)] = 0
    is_cut_id_card_image: bool = False
    is_need_id_card_avatar: bool = False
    is_encrypt: bool = False
    encryption: dict[str, object] | None = None
    is_encrypt_response: bool = False
    is_return_all_video: bool = False


class BillDetailsRequest(_Request, frozen=True):
    """GetWeChatBillDetails: a page of what was charged for on a day in UTC+8."""

    date: date
    cursor: Annotated[int, msgspec.Meta(ge=0)]
    rule_id: _Short = ""


AnyRequest = DetectAuthRequest | DetectInfoRequest | DetectInfoEnhancedRequest | BillDetailsRequest

ACTIONS: Mapping[str, type[AnyRequest]] = {
    "DetectAuth": DetectAuthRequest,
    "GetDetectInfo": DetectInfoRequest,
    "GetDetectInfoEnhanced": DetectInfoEnhancedRequest,
    "GetWeChatBillDetails": BillDetailsRequest,
}


def decode_request(action: str, body: bytes) -> AnyRequest:
    """The parameters of that action; null and the empty string count as not given.

    Raises:
        TencentError: UnknownParameter, MissingParameter or InvalidParameter.
    """
    request = ACTIONS[action]
    given = _given(body)
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
    """The parts that an InfoType asks for, as digits out of `allowed`.

    Raises:
        TencentError: InvalidParameterValue.
    """
    if info_type == "0":
        return frozenset(allowed)
    if len(set(info_type)) != len(info_type) or not set(info_type) <= set(allowed):
        raise TencentError("InvalidParameterValue", "The value of parameter `InfoType` is not valid.")
    return frozenset(info_type)


def _given(body: bytes) -> dict[str, object]:
    try:
        parameters = msgspec.json.decode(body, type=dict[str, object])
    except (ValueError, RecursionError) as error:
        raise TencentError("InvalidParameter", "The request's body is not a JSON object.") from error
    return {name: value for name, value in parameters.items() if value not in (None, "")}
