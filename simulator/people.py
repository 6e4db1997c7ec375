"""Invented people, one for each BizToken.

They match no real person. Names consist of words for "unreal" and old counting signs. The area code 000000 belongs to
no place, and the address does not exist. The location is near latitude 0, longitude 0 in the Gulf of Guinea.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import date, timedelta

AREA_CODE = "000000"
_SURNAMES = "样测虚拟仿"
_SIGNS = "甲乙丙丁戊己庚辛壬癸子丑寅卯辰巳午未申酉戌亥"
_NATIONS = ("汉", "汉", "汉", "壮", "回", "满", "维吾尔", "苗", "彝", "土家")
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECK_CHARACTERS = "10X98765432"
_YOUNGEST_BIRTH = date(2005, 12, 31)
_BIRTH_DAYS = 50 * 365
_LIFELONG_AGE = 46
_FIRST_ISSUE = date(2017, 1, 1)
# Ends before 29 February 2020, so a card can expire on the same day twenty years later.
_ISSUE_DAYS = 3 * 365
_FIRST_ATTEMPT_MS = 1_715_000_000_000
_ATTEMPT_RANGE_MS = 30 * 24 * 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """The data that the ID card and the camera show. `first_attempt_ms` is in milliseconds since the epoch."""

    name: str = field(repr=False)
    id_card: str = field(repr=False)
    gender: str
    nation: str
    birth: date
    address: str
    authority: str
    valid_date: str
    location: str
    similarity: float
    first_attempt_ms: int


def person_of(biz_token: str) -> Person:
    """Returns the person of a BizToken, the same at every call and on every machine."""
    draw = Dice(biz_token).draw
    birth = _YOUNGEST_BIRTH - timedelta(days=draw(_BIRTH_DAYS))
    order = 1 + draw(999)
    return Person(
        name=_SURNAMES[draw(len(_SURNAMES))] + _SIGNS[draw(len(_SIGNS))] + _SIGNS[draw(len(_SIGNS))],
        id_card=with_check_character(f"{AREA_CODE}{birth:%Y%m%d}{order:03}"),
        gender="男" if order % 2 else "女",
        nation=_NATIONS[draw(len(_NATIONS))],
        birth=birth,
        address=f"样本省演示市测试区虚构路{1 + draw(999)}号",
        authority="演示市公安局测试分局",
        valid_date=_valid_date(birth, _FIRST_ISSUE + timedelta(days=draw(_ISSUE_DAYS))),
        location=f"{draw(1000) / 10_000:.4f},{draw(1000) / 10_000:.4f}",
        similarity=(7500 + draw(2500)) / 100,
        first_attempt_ms=_FIRST_ATTEMPT_MS + draw(_ATTEMPT_RANGE_MS),
    )


def with_check_character(digits: str) -> str:
    """Appends the check character to the 17 digits of an ID number (GB 11643, ISO 7064 MOD 11-2)."""
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, digits, strict=True))
    return digits + _CHECK_CHARACTERS[total % 11]


def _valid_date(birth: date, issued: date) -> str:
    """Formats the validity of a card: twenty years, or for life if issued after the age of 46."""
    is_lifelong = issued.year - birth.year > _LIFELONG_AGE
    return f"{issued:%Y.%m.%d}-" + ("长期" if is_lifelong else f"{issued.year + 20}.{issued:%m.%d}")


class Dice:
    """Deterministic numbers drawn from the digest of a text."""

    def __init__(self, text: str) -> None:
        self._rest = int.from_bytes(hashlib.sha512(text.encode()).digest())

    def draw(self, sides: int) -> int:
        """Returns a number from 0 up to, not including, `sides`."""
        self._rest, number = divmod(self._rest, sides)
        return number
