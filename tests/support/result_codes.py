"""Tencent's result codes, each with its outcome."""

from app.domain.detection import Outcome

RESULT_CODES: list[tuple[int | None, Outcome]] = [
    (None, Outcome.UNFINISHED),
    (17, Outcome.UNFINISHED),
    (0, Outcome.PASSED),
    *(
        (code, Outcome.FAILED)
        for codes in (
            range(1, 4),  # a bad call of DetectAuth
            (4, 8, 10, 12, 13),  # the service failed
            range(14, 17),  # completed, expired, too many tries
            range(201, 205),  # WeChat
            range(301, 304),  # the ID card
            range(1001, 1009),  # liveness: engine, spoof, network
            range(1101, 1110),  # digits read aloud
            range(1201, 1211),  # actions
            range(1301, 1304),  # silent
            range(2001, 2018),  # comparison
            (-1, 99999),  # unknown
        )
        for code in codes
    ),
]
