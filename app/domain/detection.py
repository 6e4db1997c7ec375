"""The result of one GetDetectInfo call in our own names."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

_MILLISECONDS = re.compile(r"[0-9]{13}")
_NOT_FINISHED = 17
"""Tencent's result code for a person who is not finished; null means the same."""


class Part(StrEnum):
    """The parts of a result. The value is the digit that requests the part in `InfoType`."""

    TEXT = "1"
    ID_CARD = "2"
    BEST_FRAME = "3"
    VIDEO = "4"


@dataclass(frozen=True, slots=True)
class InfoType:
    """The parts to request: Tencent's `InfoType`, `"0"` for all or any combination of the digits 1 to 4.

    Raises:
        ValueError: the text is empty, repeats a digit, or contains another character.
    """

    text: str

    def __post_init__(self) -> None:
        digits = set(self.text)
        if not self.text or len(digits) != len(self.text) or not (self.text == "0" or digits <= set(Part)):
            raise ValueError("InfoType is 0 for everything, or any of the digits 1, 2, 3, 4, each once")

    @property
    def parts(self) -> frozenset[Part]:
        """The requested parts."""
        return frozenset(Part) if self.text == "0" else frozenset(Part(digit) for digit in self.text)

    def __str__(self) -> str:
        return self.text


EVERYTHING = InfoType("0")


class Outcome(StrEnum):
    """Tencent's verdict on the person."""

    PASSED = "passed"
    FAILED = "failed"
    UNFINISHED = "unfinished"


MESSAGES = ("err_msg", "live_msg", "compare_msg", "intention_msg")
"""The fields of a result with messages of Tencent. Their texts are not documented, so they may quote the person."""


def personal(kind: type["Detection | LivenessAttempt"]) -> Sequence[str]:
    """Returns the names of the personal fields, which are the fields hidden from `repr`."""
    return [known.name for known in fields(kind) if not known.repr]


def instant_of(req_time: str | None) -> datetime | None:
    """Converts Tencent's `ReqTime` (13 digits, milliseconds since the epoch) to UTC; None for anything else."""
    if req_time is None or not _MILLISECONDS.fullmatch(req_time):
        return None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(req_time))


@dataclass(frozen=True, slots=True, kw_only=True)
class LivenessAttempt:
    """One attempt of the person in front of the camera. `further` keeps unmapped fields under Tencent's names."""

    err_code: int | None = None
    err_msg: str | None = None
    req_time: str | None = None
    id_card: str | None = field(default=None, repr=False)
    name: str | None = field(default=None, repr=False)
    further: Mapping[str, object] = field(default_factory=dict, repr=False)

    @property
    def requested_at(self) -> datetime | None:
        """`req_time` in UTC."""
        return instant_of(self.req_time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """The text of a result. Values are as Tencent sent them; null, empty and missing are always None.

    `sim` is the similarity in percent as text (`"96.42"`). `is_intention_required`: the person also had to confirm an
    intention. `intention_status` is its result: 0 confirmed, None without one.

    `further` keeps unmapped fields, and values of an unexpected type, under Tencent's names; fields outside the text
    are under the name of their object: `{"IdCardData": {"WarnInfos": [-9103]}}`. `document` is the JSON of Tencent's
    Text as received, so later versions can read it again.
    """

    err_code: int | None = None
    err_msg: str | None = None
    id_card: str | None = field(default=None, repr=False)
    name: str | None = field(default=None, repr=False)
    ocr_nation: str | None = field(default=None, repr=False)
    ocr_address: str | None = field(default=None, repr=False)
    ocr_birth: str | None = field(default=None, repr=False)
    ocr_authority: str | None = field(default=None, repr=False)
    ocr_valid_date: str | None = field(default=None, repr=False)
    ocr_name: str | None = field(default=None, repr=False)
    ocr_id_card: str | None = field(default=None, repr=False)
    ocr_gender: str | None = field(default=None, repr=False)
    live_status: int | None = None
    live_msg: str | None = None
    compare_status: int | None = None
    compare_msg: str | None = None
    sim: str | None = None
    is_intention_required: bool = False
    intention_status: int | None = None
    intention_msg: str | None = None
    location: str | None = field(default=None, repr=False)
    extra: str | None = field(default=None, repr=False)
    further: Mapping[str, object] = field(default_factory=dict, repr=False)
    document: str | None = field(default=None, repr=False, compare=False)
    liveness_attempts: tuple[LivenessAttempt, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """The verdict. An absent code means unfinished, not failed.

        `err_code` says nothing about the intention (Tencent documents so). If the person had to confirm one, a missing
        result of it means unfinished. This is the careful reading: Tencent does not document when it appears.
        """
        if self.err_code is None or self.err_code == _NOT_FINISHED:
            return Outcome.UNFINISHED
        if self.err_code == 0 and self.is_intention_required and self.intention_status is None:
            return Outcome.UNFINISHED
        return Outcome.FAILED if self.err_code or self.intention_status else Outcome.PASSED

    @property
    def has_id_card(self) -> bool:
        """Whether Tencent recognised an ID card, so the flow photographed one."""
        return bool(self.ocr_name or self.ocr_id_card)

    @property
    def similarity(self) -> float | None:
        """`sim` as a number; None if Tencent sent none or no number."""
        try:
            number = float(self.sim or "nan")
        except ValueError:
            return None
        return number if math.isfinite(number) else None


@dataclass(frozen=True, slots=True)
class SealedText:
    """The text of a result as stored: the columns of `detection`, and those of each liveness attempt in order.

    Personal values are encrypted.
    """

    values: Mapping[str, Any]
    attempts: Sequence[Mapping[str, Any]] = ()
