"""What Tencent found out: the result of one GetDetectInfo call, in our own names."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum

_MILLISECONDS = re.compile(r"[0-9]{13}")
_NOT_FINISHED = 17  # one of Tencent's result codes; null means the same


class Part(StrEnum):
    """The parts of a result; the value is the digit by which `InfoType` asks for it."""

    TEXT = "1"
    ID_CARD = "2"
    BEST_FRAME = "3"
    VIDEO = "4"


@dataclass(frozen=True, slots=True)
class InfoType:
    """Which parts are wanted: Tencent's `InfoType`, `"0"` for all or any combination of the digits 1 to 4.

    Raises:
        ValueError: the text is empty, repeats a digit, or has another character.
    """

    text: str

    def __post_init__(self) -> None:
        digits = set(self.text)
        if not self.text or len(digits) != len(self.text) or not (self.text == "0" or digits <= set(Part)):
            raise ValueError("InfoType is 0 for everything, or any of the digits 1, 2, 3, 4, each once")

    @property
    def parts(self) -> frozenset[Part]:
        """The parts that are asked for."""
        return frozenset(Part) if self.text == "0" else frozenset(Part(digit) for digit in self.text)

    def __str__(self) -> str:
        return self.text


EVERYTHING = InfoType("0")


class Outcome(StrEnum):
    """Tencent's verdict on the person."""

    PASSED = "passed"
    FAILED = "failed"
    UNFINISHED = "unfinished"


class MediaKind(StrEnum):
    """The media that a result may hold; all after the video are GetDetectInfoEnhanced's, where it is asked for them."""

    ID_CARD_FRONT = "id_card_front"
    ID_CARD_BACK = "id_card_back"
    BEST_FRAME = "best_frame"
    LIVENESS_VIDEO = "liveness_video"
    ID_CARD_FRONT_CUT = "id_card_front_cut"
    ID_CARD_BACK_CUT = "id_card_back_cut"
    ID_CARD_AVATAR = "id_card_avatar"
    BEST_FRAME_1 = "best_frame_1"
    BEST_FRAME_2 = "best_frame_2"
    BEST_FRAME_3 = "best_frame_3"
    BEST_FRAME_4 = "best_frame_4"
    BEST_FRAME_5 = "best_frame_5"
    BEST_FRAME_6 = "best_frame_6"
    BEST_FRAME_7 = "best_frame_7"
    BEST_FRAME_8 = "best_frame_8"
    BEST_FRAME_9 = "best_frame_9"
    BEST_FRAME_10 = "best_frame_10"


BEST_FRAMES = tuple(MediaKind(f"best_frame_{number}") for number in range(1, 11))
"""The further frames in the order of Tencent's `BestFrames`, which has ten at most."""


def personal(kind: type["Detection | LivenessAttempt"]) -> Sequence[str]:
    """The fields that say who the person is and where: those that no `repr` shows."""
    return [known.name for known in fields(kind) if not known.repr]


def instant_of(req_time: str | None) -> datetime | None:
    """Tencent's `ReqTime`, 13 digits (milliseconds since the epoch), as an aware instant; None where it is not that."""
    if req_time is None or not _MILLISECONDS.fullmatch(req_time):
        return None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(req_time))


@dataclass(frozen=True, slots=True, kw_only=True)
class LivenessAttempt:
    """One try of the person before the camera. `further` keeps what has no field of its own, under Tencent's names."""

    err_code: int | None = None
    err_msg: str | None = None
    req_time: str | None = None
    id_card: str | None = field(default=None, repr=False)
    name: str | None = field(default=None, repr=False)
    further: Mapping[str, object] = field(default_factory=dict, repr=False)

    @property
    def requested_at(self) -> datetime | None:
        """`req_time` as an aware instant."""
        return instant_of(self.req_time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """The text part of a result: values as Tencent sent them, absence (null, empty, missing) always None.

    `sim` is the similarity in percent as text (`"96.42"`); `further` keeps what a newer Tencent adds, and any value
    that is not of its field's type, under Tencent's names; what else comes beside text and media, under the name of
    Tencent's object: `{"IdCardData": {"WarnInfos": [-9103]}}`. `document` is the JSON of the Text as it came, for later
    versions to read again.
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
    location: str | None = field(default=None, repr=False)
    extra: str | None = field(default=None, repr=False)
    further: Mapping[str, object] = field(default_factory=dict, repr=False)
    document: str | None = field(default=None, repr=False, compare=False)
    liveness_attempts: tuple[LivenessAttempt, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """The verdict: absent is not failed."""
        if self.err_code is None or self.err_code == _NOT_FINISHED:
            return Outcome.UNFINISHED
        return Outcome.PASSED if self.err_code == 0 else Outcome.FAILED

    @property
    def similarity(self) -> float | None:
        """`sim` as a number, None where Tencent sent none or something else."""
        try:
            number = float(self.sim or "nan")
        except ValueError:
            return None
        return number if math.isfinite(number) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """One stored picture or video, `size_bytes` long.

    `object_key` names its sealed bytes in the media store, `sha256` is their hex digest, `sealed_key` what opens them.
    """

    kind: MediaKind
    object_key: str
    content_type: str
    size_bytes: int
    sha256: str
    sealed_key: bytes = field(repr=False)
    stored_at: datetime
