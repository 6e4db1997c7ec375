"""Masks: what they show, and how much they hide."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.detection import Detection
from app.domain.personal import (
    former_names,
    mask_address,
    mask_id_card,
    mask_name,
    masked,
    normal_id_card,
    normal_name,
)

# Without most characters that have no appearance.
VISIBLE = st.characters(exclude_categories=["Cf", "Cn", "Cs", "Mn"], exclude_characters="\u115f\u1160\u3164\uffa0")
TEXTS = st.text(VISIBLE, min_size=1)
ID_CARDS = st.from_regex(r"[0-9]{17}[0-9X]", fullmatch=True)


@pytest.mark.parametrize(
    ("name", "masked"),
    [
        ("张三", "张*"),
        ("欧阳娜娜", "欧***"),
        ("阿卜杜拉·买买提", "阿*******"),
        ("Jane Doe", "J*******"),
        ("", ""),
        (None, None),
    ],
)
def test_masked_name_shows_its_first_character(name: str | None, masked: str | None) -> None:
    assert mask_name(name) == masked


@pytest.mark.parametrize(
    ("number", "masked"),
    [
        ("000000199001011234", "0****************4"),
        ("00000019900101123X", "0****************X"),
        ("H1234567", "H******7"),
        ("1234567", "*******"),
        ("1", "*"),
        ("", ""),
        (None, None),
    ],
)
def test_masked_id_number_shows_its_first_and_last_character(number: str | None, masked: str | None) -> None:
    assert mask_id_card(number) == masked


@pytest.mark.parametrize(
    ("address", "masked"),
    [
        ("北京市朝阳区建国路1号", "北京市***"),
        ("广东省深圳市南山区", "广东省***"),
        ("黑龙江省哈尔滨市", "黑龙江省***"),
        ("内蒙古自治区呼和浩特市", "内蒙古自治区***"),
        ("广西壮族自治区南宁市", "广西壮族自治区***"),
        ("新疆维吾尔自治区乌鲁木齐市", "新疆维吾尔自治区***"),
        ("香港特别行政区中西区", "香港特别行政区***"),
        ("北京市", "北京市***"),
        ("武汉市江汉区", "***"),
        ("幸福路8号超市楼上", "***"),
        ("建国路1号北京市", "***"),
        ("1 Example Street", "***"),
        ("", ""),
        (None, None),
    ],
)
def test_masked_address_shows_its_province_or_nothing(address: str | None, masked: str | None) -> None:
    assert mask_address(address) == masked


@given(name=TEXTS)
def test_masked_name_depends_on_first_character_and_length_alone(name: str) -> None:
    assert mask_name(name) == mask_name(name[0] + "某" * (len(name) - 1))


@given(number=TEXTS)
def test_masked_id_number_depends_on_ends_and_length_alone(number: str) -> None:
    shown = {(at, character) for at, character in enumerate(mask_id_card(number) or "") if character != "*"}

    assert shown <= {(0, number[0]), (len(number) - 1, number[-1])}
    assert len(mask_id_card(number) or "") == len(number)


@given(number=ID_CARDS)
def test_masked_id_number_leaves_over_100_million_candidates(number: str) -> None:
    # The check digit rules out ten of eleven.
    candidates = 10 ** (mask_id_card(number) or "").count("*") // 11

    assert candidates > 10**8


@given(number=ID_CARDS, other=ID_CARDS)
def test_id_numbers_with_the_same_ends_have_the_same_mask(number: str, other: str) -> None:
    twin = number[0] + other[1:-1] + number[-1]

    assert mask_id_card(twin) == mask_id_card(number)


@given(address=TEXTS | st.builds("{}{}".format, st.sampled_from(["北京市", "湖南省"]), TEXTS))
def test_masked_address_shows_no_more_than_the_longest_province(address: str) -> None:
    shown = (mask_address(address) or "").removesuffix("***")

    assert address.startswith(shown)
    assert len(shown) <= len("新疆维吾尔自治区")


DOTS = "·•‧・･᛫∙⋅●.．﹒⸱ᐧ˙ꞏ𐄁⸳｡。⦁∘◦⚫⏺\u0387"
IGNORABLE = (
    "\u00ad\u034f\u061c\u180e\u200b\u200c\u200d\u200e\u202e\u2060\u2066\u3164\ufe0f\ufeff\uffa0\U000e0001\U000e0100"
)


@pytest.mark.parametrize("dot", DOTS)
def test_every_middle_dot_counts_as_the_same(dot: str) -> None:
    assert normal_name(f"样甲{dot}测乙") == normal_name(f"样甲 {dot}{dot} 测乙") == normal_name("样甲·测乙")
    assert normal_name("样甲测乙") != normal_name(f"样甲{dot}测乙")


@pytest.mark.parametrize("character", IGNORABLE)
def test_characters_without_an_appearance_are_ignored(character: str) -> None:
    name, number = f"{character}样{character}甲{character}", f"{character}000000{character}19900101123x"

    assert (normal_name(name), normal_id_card(number)) == ("样甲", "00000019900101123X")
    assert masked(Detection(name=name, id_card=number)) == masked(Detection(name="样甲", id_card="00000019900101123x"))
    assert mask_id_card(f"1234567{character}") == "*******"


@pytest.mark.parametrize("text", ["", " ", "\u200b", "\u3164 \ufeff", None])
def test_text_without_visible_characters_is_no_name(text: str | None) -> None:
    assert (normal_name(text), normal_id_card(text)) == (None, None)


def test_former_names_contain_the_common_spellings_of_dots() -> None:
    assert former_names("样甲") == {"样甲"}
    assert former_names("Ａ\u200b ﹒b") == {"a\u200b.b", *(f"a\u200b{dot}b" for dot in "·•‧・●∙⋅.")}
