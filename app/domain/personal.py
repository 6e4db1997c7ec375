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
    return name and name[0] + "*" * (len(name) - 1)


def mask_id_card(number: str | None) -> str | None:
    """Keeps the first and last character: `1****************4`. Numbers of fewer than eight become stars only."""
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
    """Returns an ID number without spaces, in ASCII and upper case; None for an empty one."""
    return _normal(number or "").upper() or None


def normal_name(name: str | None) -> str | None:
    """Returns a name without spaces and case-folded, so spaces around a middle dot do not matter; None if empty."""
    return _normal(name or "").casefold() or None


def _normal(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())
