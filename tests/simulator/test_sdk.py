"""The official SDK works with the simulator as with Tencent."""

import json
import time

import pytest
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.faceid.v20180301 import models

from simulator.answers import Subject, detect_info, enhanced_info
from simulator.authentication import KeyPair
from simulator.options import DEMO_CREDENTIALS, SimulatorOptions
from simulator.requests import DetectInfoEnhancedRequest
from simulator.scenarios import scenario_of
from tests.support.simulator import ERROR_CODES, INFO_TYPES, SCENARIOS, LiveSimulator, live_simulator, request_for

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcfromtimestamp:DeprecationWarning")


def parts(info_type: str) -> set[str]:
    return set("1234" if info_type == "0" else info_type)


@pytest.mark.parametrize("info_type", INFO_TYPES)
def test_token_from_detect_auth_returns_the_requested_parts(live: LiveSimulator, info_type: str) -> None:
    client = live.official_client()
    auth = models.DetectAuthRequest()
    auth.RuleId, auth.Extra, auth.IdCard, auth.Name = "1", "loan-4711", "000000199505130017", "样甲乙"

    begun = client.DetectAuth(auth)
    answer = client.GetDetectInfo(request_for(begun.BizToken, info_type))

    subject = Subject(biz_token=begun.BizToken, extra=auth.Extra, id_card=auth.IdCard, name=auth.Name)
    assert answer.DetectInfo == detect_info(subject, scenario_of("passed"), parts=parts(info_type))
    assert begun.BizToken in begun.Url
    assert len({begun.RequestId, answer.RequestId}) == 2


@pytest.mark.parametrize("biz_token", SCENARIOS)
def test_sdk_returns_the_result_computed_from_the_token(live: LiveSimulator, biz_token: str) -> None:
    answer = live.official_client().GetDetectInfo(request_for(biz_token))

    expected = detect_info(Subject(biz_token=biz_token), scenario_of(biz_token), parts=parts("0"))
    assert answer.DetectInfo == expected
    assert json.loads(answer.DetectInfo).keys() >= {"Text", "IdCardData", "BestFrame"}


@pytest.mark.parametrize("info_type", ["0", "1", "23", "4", "56"])
@pytest.mark.parametrize("biz_token", ["passed-e", "failed-1001-e", "failed-2006-e", "unfinished-e", "novideo-e"])
def test_enhanced_action_answers_with_the_objects_of_the_sdk(
    live: LiveSimulator, biz_token: str, info_type: str
) -> None:
    request = models.GetDetectInfoEnhancedRequest()
    request.BizToken, request.RuleId, request.InfoType = biz_token, "1", info_type
    request.BestFramesCount, request.IsCutIdCardImage, request.IsNeedIdCardAvatar = 3, True, True

    answer = live.official_client().GetDetectInfoEnhanced(request)

    asked = DetectInfoEnhancedRequest(
        biz_token=biz_token,
        rule_id="1",
        best_frames_count=3,
        is_cut_id_card_image=True,
        is_need_id_card_avatar=True,
    )
    digits = set("123456" if info_type == "0" else info_type)
    info = enhanced_info(Subject(biz_token=biz_token), scenario_of(biz_token), parts=digits, request=asked)
    expected = models.GetDetectInfoEnhancedResponse()
    expected.from_json_string(json.dumps({**info, "RequestId": answer.RequestId}))
    assert answer.to_json_string() == expected.to_json_string()


@pytest.mark.parametrize("code", ERROR_CODES)
def test_error_code_raises_the_exception_of_the_sdk(live: LiveSimulator, code: str) -> None:
    with pytest.raises(TencentCloudSDKException) as raised:
        live.official_client().GetDetectInfo(request_for(f"error-{code}-1"))

    assert raised.value.code == code
    assert len(raised.value.requestId) == 36


@pytest.mark.parametrize(
    ("biz_token", "code"),
    [
        ("throttled-1", "RequestLimitExceeded"),
        ("expired-1", "InvalidParameterValue.BizTokenExpired"),
        ("illegal-1", "InvalidParameter"),
        ("http502-1", "ServerNetworkError"),
        ("cut-1", "ChunkedEncodingError"),
        ("garbage-1", "JSONDecodeError"),
    ],
)
def test_named_fault_raises_the_exception_of_the_sdk(live: LiveSimulator, biz_token: str, code: str) -> None:
    with pytest.raises(TencentCloudSDKException) as raised:
        live.official_client().GetDetectInfo(request_for(biz_token))

    assert raised.value.code == code


def test_wrong_secret_key_is_rejected(live: LiveSimulator) -> None:
    with pytest.raises(TencentCloudSDKException) as raised:
        live.official_client(KeyPair(DEMO_CREDENTIALS.secret_id, "another")).GetDetectInfo(request_for("passed"))

    assert raised.value.code == "AuthFailure.SignatureFailure"


def test_unknown_secret_id_is_rejected(live: LiveSimulator) -> None:
    with pytest.raises(TencentCloudSDKException) as raised:
        live.official_client(KeyPair("AKIDNOBODY", "any")).GetDetectInfo(request_for("passed"))

    assert raised.value.code == "AuthFailure.SecretIdNotFound"


def test_clock_more_than_five_minutes_off_is_rejected() -> None:
    options = SimulatorOptions(clock=lambda: time.time() + 310)
    with live_simulator(options) as ahead, pytest.raises(TencentCloudSDKException) as raised:
        ahead.official_client().GetDetectInfo(request_for("passed"))

    assert raised.value.code == "AuthFailure.SignatureExpire"


def test_temporary_credentials_need_their_token() -> None:
    temporary = KeyPair("AKIDTEMPORARY", "key", "token")
    with live_simulator(SimulatorOptions(credentials=(temporary,))) as running:
        answer = running.official_client(temporary).GetDetectInfo(request_for("passed", "1"))
        with pytest.raises(TencentCloudSDKException) as raised:
            running.official_client(KeyPair("AKIDTEMPORARY", "key")).GetDetectInfo(request_for("passed", "1"))

    assert json.loads(answer.DetectInfo)["Text"]["ErrCode"] == 0
    assert raised.value.code == "AuthFailure.TokenFailure"
