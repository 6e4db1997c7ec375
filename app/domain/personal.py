"""The masks for callers without `results:reveal`, and the normal form of names and numbers for the search.

A mask that keeps the first six and last four digits of an ID number leaves about 2,700 candidates. Keeping only the
first and last character leaves more than 10^8.
"""

import re
import unicodedata
from dataclasses import dataclass

from app.domain.detection import Detection

# Documents of any country: between the ends of a shorter number almost nothing would be hidden.
_SHORTEST_MASKED_ID = 8
# By name: a text with the same ending may be a street, a shop or a village.
_PROVINCE = re.compile(
    r"(?:北京|天津|上海|重庆)市|(?:\w\w|黑龙江)省|(?:内蒙古|广西壮族|西藏|宁夏回族|新疆维吾尔)自治区|(?:香港|澳门)特别行政区"
)

# Unicode's Default_Ignorable_Code_Point: characters without an appearance, such as joiners, soft hyphens, variation
# selectors and byte order marks. Copied texts contain them unnoticed.
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_MIDDLE_DOT = "·"
# The characters that people and systems write for the dot within a Chinese transcription of a foreign name.
_COMMON_DOTS = "·•‧・●∙⋅."
_DOTS = _COMMON_DOTS + "\u0387･᛫⸱ᐧ˙ꞏ𐄁⸳﹒．｡。⦁∘◦⚫⏺"
_TO_MIDDLE_DOT = str.maketrans(dict.fromkeys(_DOTS, _MIDDLE_DOT))


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """The masked identity, shown instead of the full one."""

    name: str | None = None
    id_card: str | None = None
    ocr_address: str | None = None


def masked(detection: Detection) -> Masked:
    """Returns the masked identity of a result."""
    return Masked(
        name=mask_name(detection.name),
        id_card=mask_id_card(detection.id_card),
        ocr_address=mask_address(detection.ocr_address),
    )


def mask_name(name: str | None) -> str | None:
    """Keeps the first character and replaces each other one by a star: `张*`."""
    name = name and _IGNORABLE.sub("", name)
    return name and name[0] + "*" * (len(name) - 1)


def mask_id_card(number: str | None) -> str | None:
    """Keeps the first and last character: `1****************4`. Numbers of fewer than eight become stars only."""
    number = number and _IGNORABLE.sub("", number)
    if number is None or len(number) < _SHORTEST_MASKED_ID:
        return number and "*" * len(number)
    return number[0] + "*" * (len(number) - 2) + number[-1]


def mask_address(address: str | None) -> str | None:
    """Keeps the province if the address begins with one: `北京市***`."""
    if not address:
        return address
    province = _PROVINCE.match(address)
    return (province.group() if province else "") + "***"


def normal_id_card(number: str | None) -> str | None:
    """Returns an ID number without spaces and ignorable characters, in ASCII and upper case; None for an empty one."""
    return _IGNORABLE.sub("", _compact(number or "")).upper() or None


def normal_name(name: str | None) -> str | None:
    """Returns a name without spaces and ignorable characters, case-folded, with one spelling of middle dots.

    None for an empty one.
    """
    compact = _IGNORABLE.sub("", _compact((name or "").translate(_TO_MIDDLE_DOT)))
    return re.sub(f"{_MIDDLE_DOT}+", _MIDDLE_DOT, compact).casefold() or None


def former_names(name: str) -> frozenset[str]:
    """Returns the normal forms of a name in earlier versions, for each common spelling of its middle dots.

    The digests of older rows were computed from these, until `keyring rotate index` computes them again.
    """
    spellings = {name, *(re.sub(f"[{re.escape(_DOTS)}]", dot, name) for dot in _COMMON_DOTS)}
    return frozenset(_compact(spelling).casefold() for spelling in spellings) - {""}


def _compact(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())
