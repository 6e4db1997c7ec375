"""Responses of any content and spelling are read as `json.loads` and `base64.b64decode` would read them."""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.detection import Detection, LivenessAttempt
from app.domain.media import BEST_FRAMES, MediaKind, UnreadableReason
from tests.support.decoding import Reading, media, read

CODES = {"ErrCode": "err_code", "LiveStatus": "live_status", "Comparestatus": "compare_status"}
STRINGS = {
    "ErrMsg": "err_msg",
    "IdCard": "id_card",
    "Name": "name",
    "OcrNation": "ocr_nation",
    "OcrAddress": "ocr_address",
    "OcrBirth": "ocr_birth",
    "OcrAuthority": "ocr_authority",
    "OcrValidDate": "ocr_valid_date",
    "OcrName": "ocr_name",
    "OcrIdCard": "ocr_id_card",
    "OcrGender": "ocr_gender",
    "LiveMsg": "live_msg",
    "Comparemsg": "compare_msg",
    "Sim": "sim",
    "Location": "location",
    "Extra": "extra",
}
PLACES = {
    MediaKind.ID_CARD_FRONT: ("IdCardData", "OcrFront"),
    MediaKind.ID_CARD_BACK: ("IdCardData", "OcrBack"),
    MediaKind.BEST_FRAME: ("BestFrame", "BestFrame"),
    MediaKind.LIVENESS_VIDEO: ("VideoData", "LivenessVideo"),
    MediaKind.ID_CARD_FRONT_CUT: ("IdCardData", "ProcessedFrontImage"),
    MediaKind.ID_CARD_BACK_CUT: ("IdCardData", "ProcessedBackImage"),
    MediaKind.ID_CARD_AVATAR: ("IdCardData", "Avatar"),
}

ABSENT = st.sampled_from([None, ""])
INTEGERS = st.integers(-(10**9) + 1, 10**9 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
JSON = st.recursive(
    ABSENT | st.booleans() | INTEGERS | TEXTS,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXTS, children, max_size=3),
    max_leaves=4,
)
ATTEMPTS = st.fixed_dictionaries(
    {}, optional={"ErrCode": ABSENT | INTEGERS, "ReqTime": ABSENT | TEXTS, "Name": ABSENT | TEXTS, "Seq": JSON}
)
ENHANCED_ATTEMPTS = st.fixed_dictionaries(
    {}, optional={"Errcode": ABSENT | INTEGERS, "ReqTime": ABSENT | TEXTS, "Idcard": ABSENT | TEXTS, "Seq": JSON}
)
# Hypothesis takes some texts from our source, so a name without the prefix may be one that has a mapping.
EXTRAS = st.dictionaries(TEXTS.map("x{}".format), JSON, max_size=3)
TEXT_PARTS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(CODES, ABSENT | INTEGERS)
    | dict.fromkeys(STRINGS, ABSENT | TEXTS)
    | {"Detail": st.fixed_dictionaries({"LivenessData": st.lists(ATTEMPTS, max_size=3)}), "Mobile": JSON, "é/": JSON}
    | {"LivenessDetail": ABSENT | st.lists(ENHANCED_ATTEMPTS, max_size=3)},
)
SMALL, LARGE = [0, 1, 2, 3, 29, 47, 48, 49, 50], [3071, 3072, 3073, 9001, 17001]


def media_of(sizes: list[int]) -> st.SearchStrategy[str]:
    """Returns media in base64. Those of an even size consist of the signs that can be escaped."""
    return st.builds(
        lambda random, size: base64.b64encode(random.randbytes(size) if size % 2 else b"\xff\xef\xbe" * size).decode(),
        st.randoms(use_true_random=True),
        st.sampled_from(sizes),
    )


MEDIA = ABSENT | media_of(SMALL + LARGE)
LISTS = {"BestFrame": {"BestFrames": ABSENT | st.lists(MEDIA, max_size=11)}}
WARNINGS = {"WarnInfos": ABSENT | st.lists(INTEGERS, max_size=2), "New": JSON}
PARTS = {"Text": TEXT_PARTS} | {
    part: st.fixed_dictionaries(
        {}, optional={key: MEDIA for home, key in PLACES.values() if home == part} | LISTS.get(part, {}) | WARNINGS
    )
    for part, _ in PLACES.values()
}
DOCUMENTS = st.builds(
    lambda whole, empty, missing: {key: value for key, value in (whole | empty).items() if key not in missing},
    st.fixed_dictionaries(PARTS, optional={"IsVerifyIntention": st.booleans(), "IntentionQuestionResult": EXTRAS}),
    st.dictionaries(st.sampled_from([*PARTS]), ABSENT, max_size=2),
    st.sets(st.sampled_from([*PARTS]), max_size=2),
)
# A medium that is not found stays in the answer, whose backslashes are limited: up to three for each of these signs.
MAX_SIGNS = 9_000
# A text within the answer may get escapes on both levels.
MAX_SIGNS_OF_TEXT = MAX_SIGNS // 3
# The lifter finds no media behind more than eight blanks.
SEPARATORS = [(", ", ": "), (",", ":"), (",\n", " :\t"), (" " * 9 + ",", ":" + " " * 9)]
NAMES = [*(key for _, key in PLACES.values()), "BestFrames"]


def shuffled(values: dict[str, Any], random: Random) -> dict[str, Any]:
    return {key: in_any_order(values[key], random) for key in random.sample(list(values), len(values))}


def in_any_order(value: object, random: Random) -> object:
    if isinstance(value, list):
        return [in_any_order(item, random) for item in value]
    return shuffled(value, random) if isinstance(value, dict) else value


def respelled(document: str, random: Random) -> str:
    """Escapes slashes, and sometimes the other signs of base64, in any way that JSON allows."""
    spellings = {"/": random.sample(["/", r"\/", r"\u002f", r"\u002F"], random.randint(1, 4))}
    if random.random() < 1 / 3:
        spellings |= {"+": ["+", r"\u002b", r"\u002B"], "=": ["=", r"\u003d", r"\u003D"]}
    return "".join(random.choice(spellings.get(char, char)) for char in document)


def renamed(document: str, random: Random) -> str:
    """Spells some names of media in a way that the lifter does not search for."""
    for name in random.sample(NAMES, random.choice([0, 0, 1, len(NAMES)])):
        at = random.randrange(len(name))
        document = document.replace(f'"{name}"', f'"{name[:at]}\\u{ord(name[at]):04x}{name[at + 1 :]}"')
    return document


def unquoted(document: str) -> str:
    r"""Replaces every `\"` by another escape."""
    return re.sub(r"\\(.)", lambda escape: r"\u0022" if escape[1] == '"' else escape[0], document)


def dumped(value: object, random: Random, *, most: int = MAX_SIGNS) -> str:
    """Returns JSON in any spelling. Media are hidden from the lifter only if there are few signs to escape."""
    plain = json.dumps(value, ensure_ascii=False)
    may_hide = sum(map(plain.count, "+/=\\")) <= most
    separators = random.choice(SEPARATORS if may_hide else SEPARATORS[:-1])
    text = json.dumps(value, ensure_ascii=random.random() < 1 / 2, separators=separators)
    text = renamed(text, random) if may_hide and random.random() < 1 / 2 else text
    return respelled(unquoted(text) if may_hide and random.random() < 1 / 8 else text, random)


def in_pieces(body: str, threshold: int, random: Random) -> Reading:
    """Reads a body in pieces: of one byte, of mixed sizes, or as a whole."""
    sizes = random.choice([(1,), (1, 2, 3, 4, 5), (100, 1000), (16384,), (10**9,)])
    return read(body.encode(), cuts=lambda: random.choice(sizes), threshold=threshold)


LINES = {"err_msg", "live_msg", "compare_msg", "sim", "req_time"}
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def present(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    found = {field: values[name] for name, field in names.items() if values.get(name) not in (None, "")}
    return {field: CONTROLS.sub("\ufffd", text) if field in LINES else text for field, text in found.items()}


def expected_detection(info: dict[str, Any]) -> Detection | None:
    text = info.get("Text")
    if text in (None, ""):
        return None
    names = {"ErrCode": "err_code", "Errcode": "err_code", "ReqTime": "req_time", "Idcard": "id_card", "Name": "name"}
    attempts = [
        LivenessAttempt(**present(attempt, names), further={key: attempt[key] for key in attempt.keys() & {"Seq"}})
        for attempt in [*text.get("Detail", {}).get("LivenessData", []), *(text.get("LivenessDetail") or [])]
    ]
    return Detection(
        **present(text, CODES | STRINGS),
        further={key: text[key] for key in text.keys() & {"Mobile", "é/"}} | expected_extras(info),
        liveness_attempts=tuple(attempts),
        is_intention_required=info.get("IsVerifyIntention", False),
    )


def is_absent(value: object) -> bool:
    if isinstance(value, dict | list):
        return all(is_absent(each) for each in (value.values() if isinstance(value, dict) else value))
    return value in {None, ""}


def expected_extras(info: dict[str, Any]) -> dict[str, Any]:
    parts = {
        part: {key: info[part][key] for key in WARNINGS if info.get(part) and key in info[part]}
        for part, _ in PLACES.values()
    }
    found = {part: {key: value for key, value in rest.items() if not is_absent(value)} for part, rest in parts.items()}
    others = {key: info[key] for key in ("IsVerifyIntention",) if key in info}
    result = info.get("IntentionQuestionResult", {})
    others["IntentionQuestionResult"] = {key: value for key, value in result.items() if not is_absent(value)}
    return {key: value for key, value in (found | others).items() if not is_absent(value)}


def expected_media(info: dict[str, Any]) -> Iterator[tuple[MediaKind, bytes]]:
    for kind, (part, key) in PLACES.items():
        text = (info.get(part) or {}).get(key)
        if text:
            yield kind, base64.b64decode(text, validate=True)
    frames = (info.get("BestFrame") or {}).get("BestFrames") or []
    for kind, text in zip(BEST_FRAMES, frames, strict=False):
        if text:
            yield kind, base64.b64decode(text, validate=True)


def placed(info: dict[str, object], place: str, random: Random) -> dict[str, object]:
    """Puts the result into a response: as a string, as an object, or as the response itself (the Enhanced action)."""
    if place == "response":
        return {"Text": None} | info
    return {"DetectInfo": dumped(info, random, most=MAX_SIGNS_OF_TEXT) if place == "text" else info}


PLACED = st.sampled_from(["text", "object", "response"])
THRESHOLDS = st.sampled_from([1, 64, 4096])
RANDOMS = st.randoms(use_true_random=True)


@settings(max_examples=100)
@given(DOCUMENTS, PLACED, THRESHOLDS, RANDOMS)
def test_any_document_is_read_as_if_parsed_whole(
    document: dict[str, Any], place: str, threshold: int, random: Random
) -> None:
    response = placed(shuffled(document, random), place, random) | {"RequestId": "r-1"}
    body = dumped({"Response": shuffled(response, random)}, random)

    found = in_pieces(body, threshold, random)

    assert (found.request_id, found.error_code) == ("r-1", None)
    assert found.detection == expected_detection(document)
    assert media(found) == dict(expected_media(document))


@settings(max_examples=30)
@given(DOCUMENTS, PLACED, THRESHOLDS, RANDOMS, TEXTS.filter(str.strip), TEXTS)
def test_error_is_read_alone_whatever_comes_with_it(
    document: dict[str, Any], place: str, threshold: int, random: Random, code: str, message: str
) -> None:
    error = {"Error": {"Code": code, "Message": message, "New": document}, "RequestId": "r-2"}
    body = dumped({"Response": shuffled(placed(document, place, random) | error, random)}, random)

    assert in_pieces(body, threshold, random) == Reading("r-2", re.sub("[^!-~]", "?", code.strip()))


STRICT = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")

FLAWS = st.sampled_from(["=", "==", "A=", "AA==", "AAA="]) | st.text("A/+=-_\n .", max_size=4)


@settings(max_examples=200)
@given(MEDIA.filter(bool), st.sampled_from([*PLACES.items()]), THRESHOLDS, RANDOMS, st.data())
def test_medium_is_read_if_it_is_base64_and_reported_otherwise(
    text: str, place: tuple[MediaKind, tuple[str, str]], threshold: int, random: Random, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(text)))
    text = text[:at] + data.draw(FLAWS) + text[at + data.draw(st.integers(0, 4)) :]
    kind, (part, key) = place
    body = dumped({"Response": placed({part: {key: text}}, "text", random)}, random)

    found = in_pieces(body, threshold, random)

    plain = text.replace("\n", "").translate(str.maketrans("-_", "+/"))
    plain = plain if plain.endswith("=") else plain + "=" * (-len(plain) % 4)
    if plain and STRICT.fullmatch(plain):
        assert (media(found), found.unreadable) == ({kind: base64.b64decode(plain)}, {})
    else:
        assert (media(found), found.unreadable) == ({}, {kind: UnreadableReason.NOT_BASE64} if text else {})
