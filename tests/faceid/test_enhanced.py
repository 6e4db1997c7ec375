"""GetDetectInfoEnhanced is read as by the official SDK, and requests no more than is stored."""

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

import pytest
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.faceid.v20180301 import models

from app.domain.detection import Detection, InfoType, LivenessAttempt
from app.domain.media import BEST_FRAMES, MediaKind
from app.domain.rule import Enhanced
from app.faceid import error_codes
from app.faceid.client import DetectAnswer, FaceIdClient
from simulator.media import media_of, picture_of
from tests.support.simulator import ERROR_CODES, INFO_TYPES, NO_QUOTA, SCENARIOS, LiveSimulator, live_simulator
from tests.support.tencent import SUCCESS, Kept, client_of, in_our_names, media_in, peer, saying

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcfromtimestamp:DeprecationWarning")

ALL = Enhanced(best_frames=10, cut_id_card=True, id_card_avatar=True)
CARD = {
    MediaKind.ID_CARD_FRONT: "OcrFront",
    MediaKind.ID_CARD_BACK: "OcrBack",
    MediaKind.ID_CARD_FRONT_CUT: "ProcessedFrontImage",
    MediaKind.ID_CARD_BACK_CUT: "ProcessedBackImage",
    MediaKind.ID_CARD_AVATAR: "Avatar",
}
SPELLINGS = {"Errcode": "ErrCode", "Errmsg": "ErrMsg", "Idcard": "IdCard"}


@pytest.fixture(scope="module")
def for_sdk() -> Iterator[LiveSimulator]:
    """A simulator for the SDK alone, because scenarios count the calls."""
    with live_simulator(NO_QUOTA) as running:
        yield running


async def ask(
    client: FaceIdClient, scenario: str = "passed", info_type: str = "0", enhanced: Enhanced = ALL
) -> DetectAnswer[Kept]:
    return await client.get_detect_info(
        biz_token=scenario, rule_id="1", info_type=InfoType(info_type), open_sink=Kept, enhanced=enhanced
    )


def request_for(
    biz_token: str, info_type: str = "1234", enhanced: Enhanced = ALL
) -> models.GetDetectInfoEnhancedRequest:
    request = models.GetDetectInfoEnhancedRequest()
    request.BizToken, request.RuleId, request.InfoType = biz_token, "1", info_type
    request.BestFramesCount = enhanced.best_frames
    request.IsCutIdCardImage, request.IsNeedIdCardAvatar = enhanced.cut_id_card, enhanced.id_card_avatar
    return request


def present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def read_by_sdk(answer: models.GetDetectInfoEnhancedResponse) -> tuple[Detection | None, dict[MediaKind, bytes]]:
    """The SDK's result in our own values."""
    info = json.loads(answer.to_json_string())
    card, frame, video = (info[part] or {} for part in ("IdCardData", "BestFrame", "VideoData"))
    encoded = {kind: card.get(key) for kind, key in CARD.items()}
    encoded |= {MediaKind.BEST_FRAME: frame.get("BestFrame"), MediaKind.LIVENESS_VIDEO: video.get("LivenessVideo")}
    encoded |= dict(zip(BEST_FRAMES, frame.get("BestFrames") or [], strict=False))
    media = {kind: base64.b64decode(text, validate=True) for kind, text in encoded.items() if text}
    if info["Text"] is None:
        return None, media
    warned = present({name: card.get(name) for name in ("WarnInfos", "BackWarnInfos")})
    beside = {"IsVerifyIntention": info["IsVerifyIntention"]} | ({"IdCardData": warned} if warned else {})
    attempts = [
        LivenessAttempt(**split({SPELLINGS.get(name, name): value for name, value in attempt.items()}, LivenessAttempt))
        for attempt in info["Text"].pop("LivenessDetail")
    ]
    detection = Detection(**split(info["Text"], Detection), liveness_attempts=tuple(attempts))
    return replace(detection, further={**detection.further, **beside}), media


def split(values: Mapping[str, Any], shape: type[Detection | LivenessAttempt]) -> dict[str, Any]:
    """The values by our names; those without one are in `further`."""
    names = {field.name for field in fields(shape)}
    ours = {name for name in values if in_our_names({name: 0}).keys() <= names}
    further = present({name: value for name, value in values.items() if name not in ours})
    return in_our_names({name: values[name] for name in ours}) | {"further": further}


def read_by_us(fetched: DetectAnswer[Kept]) -> tuple[Detection | None, dict[MediaKind, bytes]]:
    """Our result without nulls, which the SDK does not distinguish from missing fields."""
    if (detection := fetched.detection) is None:
        return None, media_in(fetched)
    attempts = [replace(attempt, further=present(attempt.further)) for attempt in detection.liveness_attempts]
    stripped = replace(detection, further=present(detection.further), liveness_attempts=tuple(attempts))
    return stripped, media_in(fetched)


@pytest.mark.parametrize(
    ("biz_token", "info_type", "enhanced"),
    [
        *((f"passed-e{info_type}", info_type, ALL) for info_type in INFO_TYPES),
        *((f"{token}-e", "0", ALL) for token in SCENARIOS),
        *((f"passed-f{count}", "3", Enhanced(best_frames=count)) for count in (0, 1, 9)),
        ("passed-cut", "2", Enhanced(cut_id_card=True)),
        ("passed-avatar", "2", Enhanced(id_card_avatar=True)),
    ],
)
async def test_result_is_read_as_by_the_official_sdk(
    for_sdk: LiveSimulator, faceid: LiveSimulator, biz_token: str, info_type: str, enhanced: Enhanced
) -> None:
    wanted = "1234" if info_type == "0" else info_type
    wanted += "56" if "1" in wanted else ""
    answer = for_sdk.official_client().GetDetectInfoEnhanced(request_for(biz_token, wanted, enhanced))

    async with client_of(faceid.url) as client:
        fetched = await ask(client, biz_token, info_type, enhanced)

    call = fetched.call
    assert read_by_us(fetched) == read_by_sdk(answer)
    assert (call.action, call.info_type, call.error_code) == ("GetDetectInfoEnhanced", wanted, None)
    assert len(call.request_id or "") == 36


async def test_every_medium_has_its_own_kind(faceid: LiveSimulator) -> None:
    async with client_of(faceid.url) as client:
        media = media_in(await ask(client, "passed-anna"))

    assert media.keys() == {kind for kind in MediaKind if not kind.startswith("intention")}
    assert media == media_of("passed-anna") | {
        kind: picture_of("passed-anna", kind) for kind in media if kind is not MediaKind.LIVENESS_VIDEO
    }


@pytest.mark.parametrize("code", ERROR_CODES)
async def test_error_is_read_as_by_the_official_sdk(for_sdk: LiveSimulator, faceid: LiveSimulator, code: str) -> None:
    with pytest.raises(TencentCloudSDKException) as raised:
        for_sdk.official_client().GetDetectInfoEnhanced(request_for(f"error-{code}-e"))

    async with client_of(faceid.url) as client:
        fetched = await ask(client, f"error-{code}-e")

    assert fetched == DetectAnswer(fetched.call)
    assert fetched.call.error_code == raised.value.code == code


async def test_response_above_the_size_limit_is_an_error(faceid: LiveSimulator) -> None:
    async with client_of(faceid.url, max_bytes=1_000_000) as client:
        fetched = await ask(client)

    assert fetched == DetectAnswer(replace(fetched.call, error_code=error_codes.TOO_LARGE, request_id=None))


@pytest.mark.parametrize(
    ("info_type", "enhanced", "requested"),
    [
        ("0", Enhanced(), {"InfoType": "123456"}),
        ("41", Enhanced(), {"InfoType": "4156"}),
        ("0", Enhanced(best_frames=3), {"InfoType": "123456", "BestFramesCount": 3}),
        ("23", Enhanced(cut_id_card=True), {"InfoType": "23", "IsCutIdCardImage": True}),
        ("2", ALL, {"InfoType": "2", "IsCutIdCardImage": True, "IsNeedIdCardAvatar": True}),
        ("3", ALL, {"InfoType": "3", "BestFramesCount": 10}),
        ("14", ALL, {"InfoType": "1456"}),
        ("0", None, {"InfoType": "0"}),
    ],
)
async def test_request_has_the_options_of_the_requested_parts_only(
    info_type: str, enhanced: Enhanced | None, requested: dict[str, object]
) -> None:
    async with peer(saying(SUCCESS)) as (url, requests), client_of(url) as client:
        fetched = await client.get_detect_info(
            biz_token="anna", rule_id="1", info_type=InfoType(info_type), open_sink=Kept, enhanced=enhanced
        )

    ((head, body),) = requests
    assert json.loads(body) == {"BizToken": "anna", "RuleId": "1"} | requested
    assert f"X-TC-Action: {fetched.call.action}\r\n" in head
    assert fetched.call.action == ("GetDetectInfoEnhanced" if enhanced else "GetDetectInfo")
