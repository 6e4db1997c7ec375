"""What may be shown of a person to whom it was not disclosed: enough to tell two records apart, not to find the person.

The first six and last four digits of an ID number, a common mask, leave some 2,700 candidates; first and last leave
more than 10^8.
"""

import re
from dataclasses import dataclass

from app.domain.detection import Detection

_SHORTEST_ID = 8  # of any country's document: shorter ones would hide nothing between their ends
_PROVINCE = re.compile(  # by name: what merely ends alike may be a street, a shop, a village
    r"(?:北京|天津|上海|重庆)市|(?:\w\w|黑龙江)省|(?:内蒙古|广西壮族|西藏|宁夏回族|新疆维吾尔)自治区|(?:香港|澳门)特别行政区"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """What is shown of a person in place of the identity."""

    name: str | None = None
    id_card: str | None = None
    ocr_address: str | None = None


def masked(detection: Detection) -> Masked:
    """What may be shown of this person."""
    return Masked(
        name=mask_name(detection.name),
        id_card=mask_id_card(detection.id_card),
        ocr_address=mask_address(detection.ocr_address),
    )


def mask_name(name: str | None) -> str | None:
    """The first character, then one star for each further one: `张*`."""
    return name and name[0] + "*" * (len(name) - 1)


def mask_id_card(number: str | None) -> str | None:
    """The first and the last character: `1****************4`; nothing but stars if there are fewer than eight."""
    if number is None or len(number) < _SHORTEST_ID:
        return number and "*" * len(number)
    return number[0] + "*" * (len(number) - 2) + number[-1]


def mask_address(address: str | None) -> str | None:
    """The province, or nothing: `北京市***`."""
    if not address:
        return address
    province = _PROVINCE.match(address)
    return (province.group() if province else "") + "***"
