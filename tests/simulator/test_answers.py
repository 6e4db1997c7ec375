"""The text part is consistent with the result code of the scenario."""

import json

import pytest

from simulator.answers import Subject, detect_info, text_of
from simulator.people import person_of
from simulator.scenarios import scenario_of

ANNA = Subject(biz_token="anna", extra="loan-1")


def test_passed_text_is_complete() -> None:
    person = person_of("anna")

    assert text_of(ANNA, scenario_of("passed")) == {
        "ErrCode": 0,
        "ErrMsg": "成功",
        "IdCard": person.id_card,
        "Name": person.name,
        "OcrNation": person.nation,
        "OcrAddress": person.address,
        "OcrBirth": f"{person.birth.year}/{person.birth.month}/{person.birth.day}",
        "OcrAuthority": person.authority,
        "OcrValidDate": person.valid_date,
        "OcrName": person.name,
        "OcrIdCard": person.id_card,
        "OcrGender": person.gender,
        "LiveStatus": 0,
        "LiveMsg": "成功",
        "Comparestatus": 0,
        "Comparemsg": "成功",
        "Sim": f"{person.similarity:.2f}",
        "Location": person.location,
        "Extra": "loan-1",
        "Detail": {
            "LivenessData": [
                {
                    "ErrCode": 0,
                    "ErrMsg": "成功",
                    "ReqTime": str(person.first_attempt_ms),
                    "IdCard": person.id_card,
                    "Name": person.name,
                }
            ]
        },
    }


@pytest.mark.parametrize(
    ("scenario", "codes", "similarity_is_low"),
    [
        ("failed-1001", (1001, 1001, None), None),
        ("failed-2016", (2016, 0, 2016), True),
        ("failed-302", (302, None, None), None),
        ("failed-201", (201, None, None), None),
    ],
)
def test_failure_is_reported_at_the_stage_of_its_code(
    scenario: str, codes: tuple[int | None, ...], similarity_is_low: bool | None
) -> None:
    text = json.loads(detect_info(ANNA, scenario_of(scenario), parts={"1"}))["Text"]

    assert (text["ErrCode"], text["LiveStatus"], text["Comparestatus"]) == codes
    assert (None if text["Sim"] is None else float(text["Sim"]) < 70) is similarity_is_low
    assert [attempt["ErrCode"] for attempt in text["Detail"]["LivenessData"]] == [codes[0]] * 3
    assert all(len(attempt["ReqTime"]) == 13 for attempt in text["Detail"]["LivenessData"])


def test_unfinished_result_shows_absence_in_three_spellings() -> None:
    info = json.loads(detect_info(ANNA, scenario_of("unfinished"), parts={"1", "2", "3", "4"}))

    assert (info["Text"]["ErrCode"], info["Text"]["Name"], "Sim" in info["Text"]) == (None, "", False)
    assert {name: part for name, part in info.items() if name != "Text"} == {
        "IdCardData": {"OcrFront": None, "OcrBack": None},
        "BestFrame": {"BestFrame": None},
        "VideoData": {"LivenessVideo": None},
    }


def test_slashes_scenario_differs_only_in_escaped_slashes() -> None:
    escaped = detect_info(ANNA, scenario_of("slashes"), parts={"1", "3"})

    assert "\\/" in escaped
    assert "/" not in escaped.replace("\\/", "")
    assert json.loads(escaped) == json.loads(detect_info(ANNA, scenario_of("passed"), parts={"1", "3"}))


def test_name_and_number_from_detect_auth_are_on_the_card() -> None:
    subject = Subject(biz_token="anna", id_card="000000199505130017", name="样甲乙")

    text = text_of(subject, scenario_of("passed"))

    assert {text[name] for name in ("Name", "OcrName")} == {"样甲乙"}
    assert {text[name] for name in ("IdCard", "OcrIdCard")} == {"000000199505130017"}
