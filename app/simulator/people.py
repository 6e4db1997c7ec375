"""People that nobody is, one for each BizToken.

Names are made of words for what is not real and of the old counting signs; the area code 000000 belongs to no place,
the address names none, and the location is near the point in the Gulf of Guinea where both coordinates are zero.
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
_DAYS_OF_BIRTHS = 50 * 365
_AGE_OF_LIFELONG_CARDS = 46
_FIRST_ISSUE = date(2017, 1, 1)
_DAYS_OF_ISSUES = 3 * 365  # none on a 29th of February
_FIRST_ATTEMPT_MS = 1_715_000_000_000
_DAYS_OF_ATTEMPTS_MS = 30 * 24 * 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """What a card and a camera show; `first_attempt_ms` is an instant in milliseconds since the epoch."""

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
    """The person of that BizToken, the same at every call and on every machine."""
    draw = _Dice(biz_token).draw
    birth = _YOUNGEST_BIRTH - timedelta(days=draw(_DAYS_OF_BIRTHS))
    order = 1 + draw(999)
    return Person(
        name=_SURNAMES[draw(len(_SURNAMES))] + _SIGNS[draw(len(_SIGNS))] + _SIGNS[draw(len(_SIGNS))],
        id_card=with_check_character(f"{AREA_CODE}{birth:%Y%m%d}{order:03}"),
        gender="男" if order % 2 else "女",
        nation=_NATIONS[draw(len(_NATIONS))],
        birth=birth,
        address=f"样本省演示市测试区虚构路{1 + draw(999)}号",
        authority="演示市公安局测试分局",
        valid_date=_valid_date(birth, _FIRST_ISSUE + timedelta(days=draw(_DAYS_OF_ISSUES))),
        location=f"{draw(1000) / 10_000:.4f},{draw(1000) / 10_000:.4f}",
        similarity=(7500 + draw(2500)) / 100,
        first_attempt_ms=_FIRST_ATTEMPT_MS + draw(_DAYS_OF_ATTEMPTS_MS),
    )


def with_check_character(digits: str) -> str:
    """Seventeen digits of an ID number and the eighteenth, after GB 11643 (ISO 7064, MOD 11-2)."""
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, digits, strict=True))
    return digits + _CHECK_CHARACTERS[total % 11]


def _valid_date(birth: date, issued: date) -> str:
    """Twenty years, or without end for those who were old enough."""
    is_lifelong = issued.year - birth.year > _AGE_OF_LIFELONG_CARDS
    return f"{issued:%Y.%m.%d}-" + ("长期" if is_lifelong else f"{issued.year + 20}.{issued:%m.%d}")


class _Dice:
    """Numbers drawn from a text's digest."""

    def __init__(self, text: str) -> None:
        self._left = int.from_bytes(hashlib.sha512(text.encode()).digest())

    def draw(self, sides: int) -> int:
        """A number from 0 up to, not including, `sides`."""
        self._left, number = divmod(self._left, sides)
        return number
