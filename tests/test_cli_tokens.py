"""Commands that take tokens from arguments and files, and write results: fetch, backfill and export."""

import json
import os
import re
import signal
from collections.abc import Sequence

import pytest

from app.cli.token_files import BATCH_LINES
from app.domain.verification import BIZ_TOKEN_PATTERN
from app.routers.schemas import PATTERN_WORDS
from tests.support.installation import Installation


@pytest.mark.parametrize(
    ("biz_token", "code", "state", "error"),
    [
        ("passed-fetch", 0, "retrieved", None),
        ("unfinished-fetch", 1, "pending", None),
        ("expired-fetch", 1, "expired", "InvalidParameterValue.BizTokenExpired"),
        ("error-UnauthorizedOperation.Arrears-x", 1, "pending", "UnauthorizedOperation.Arrears"),
    ],
)
def test_fetch_prints_the_result_of_one_call(
    here: Installation, biz_token: str, code: int, state: str, error: str | None
) -> None:
    done = here.run("fetch", biz_token, "--json")
    view = json.loads(done.out)

    assert (done.code, done.err) == (code, "")
    assert (view["state"], view["retrieval"]["last_error_code"], view["retrieval"]["attempts"]) == (state, error, 1)


def test_fetch_retrieves_a_known_token_again_and_prints_lines(here: Installation) -> None:
    here.run("fetch", "passed-twice")
    printed = here.run("fetch", "passed-twice").out

    assert re.search(r"^outcome +passed$", printed, re.MULTILINE)
    assert re.search(r"^retrieval.attempts +2$", printed, re.MULTILINE)
    assert re.search(r"^identity.id_card +0\*{16}.$", printed, re.MULTILINE)


def test_fetch_finds_the_client_of_a_token_or_takes_the_named_one(here: Installation) -> None:
    clients = [
        here.json("fetch", "passed-both", *options)["client"]
        for options in (["--client", "shop"], [], ["--client", "bank"], ["--client", "bank"])
    ]
    ambiguous = here.run("fetch", "passed-both")

    assert clients == ["shop", "shop", "bank", "bank"]
    assert (ambiguous.code, ambiguous.err) == (
        2,
        "faceid-results: Several clients have this token: name one of them with `client`.\n",
    )


def test_export_writes_files_that_only_this_user_can_read(here: Installation) -> None:
    here.run("backfill", "-", stdin="one\ntwo\n")
    begins = {"list.csv": b"\xef\xbb", "list.NDJSON": b'{"', "list.xlsx": b"PK"}
    (here.folder / "list.csv").write_text("older")

    for name, begin in begins.items():
        done = here.run("export", name, "--state", "pending", "--json")
        written = here.folder / name

        assert (done.code, json.loads(done.out)) == (0, {"file": name, "count": 2})
        assert written.stat().st_mode & 0o777 == 0o600
        assert written.read_bytes().startswith(begin)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["list.pdf"], "format must be 'csv', 'ndjson' or 'xlsx'."),
        (["list.csv", "--reveal"], "--reveal needs --purpose."),
        (["nowhere/list.csv"], "nowhere/.list.csv.part: No such file or directory."),
    ],
)
def test_export_that_is_not_possible_leaves_no_file(
    here: Installation, arguments: Sequence[str], sentence: str
) -> None:
    done = here.run("export", *arguments)

    assert (done.code, done.out, done.err) == (2, "", f"faceid-results: {sentence}\n")
    assert not list(here.folder.glob("*list*"))


TOKENS = """\
\ufeffbiz_token,created_at,subject_ref
backfill-1,2026-11-22T08:00:00Z,"loan, 1"
backfill-2,,

no token,,
backfill-3,2026-11-22 08:00:00,
backfill-1,,other
backfill-2,,
backfill-4,too,many,columns
"""


def test_backfill_reports_each_line_that_it_cannot_register(here: Installation) -> None:
    (here.folder / "tokens.csv").write_text(TOKENS)
    summary = here.json("backfill", "tokens.csv")
    again = here.run("backfill", "tokens.csv")

    assert summary == {
        "lines": 9,
        "new": 2,
        "known": 1,
        "conflicting": 1,
        "malformed": 3,
        "problems": [
            {"line": 5, "reason": f"biz_token {PATTERN_WORDS[BIZ_TOKEN_PATTERN]}"},
            {"line": 6, "reason": "created_at must be an instant with its time zone, like 2026-11-23T08:00:00Z"},
            {"line": 7, "reason": "The verification is already known with another subject_ref."},
            {"line": 9, "reason": "4 columns, but the header has 3"},
        ],
        "complete": True,
    }
    assert (again.code, again.out) == (1, "9 lines: 0 new, 3 known, 1 conflicting, 3 malformed.\n")
    assert again.err.startswith("line 5: biz_token must have 1 to 128 letters")


def test_backfilled_tokens_are_retrieved_immediately(here: Installation) -> None:
    tokens = [f"passed-due-{number}" for number in range(3)]
    done = here.run("backfill", "-", stdin="\n".join(tokens))
    with here.serving("results:read") as (_, api):
        views = [api.get(f"/v1/verifications/{token}", params={"wait": 20}).json() for token in tokens]

    assert (done.code, done.out) == (0, "3 lines: 3 new, 0 known, 0 conflicting, 0 malformed.\n")
    assert [view["state"] for view in views] == ["retrieved"] * 3


def test_stopped_backfill_reports_the_last_registered_line(here: Installation) -> None:
    os.mkfifo(pipe := here.folder / "pipe")
    with here.started("backfill", "-", "--json", stdin=pipe) as backfill, pipe.open("w") as tokens:
        tokens.writelines(f"stopped-{number}\n" for number in range(BATCH_LINES + 1))
        tokens.flush()
        here.await_rows(BATCH_LINES)
        done = backfill.end(signal.SIGINT)

    summary = json.loads(done.out)
    assert (summary["lines"], summary["new"], summary["complete"]) == (BATCH_LINES, BATCH_LINES, False)
    assert done.code == 130
    assert done.err.startswith(
        f"faceid-results: Stopped after line {BATCH_LINES}. The lines up to there are registered"
    )


@pytest.mark.parametrize(
    "text", ["token,rule\nx,1\n", "BizToken\nx\n", "biz_token,colour\nx,1\n", "biz_token,biz_token\nx,x\n"]
)
def test_backfill_with_unknown_columns_registers_nothing(here: Installation, text: str) -> None:
    done = here.run("backfill", "-", stdin=text)

    assert (done.code, done.out) == (2, "0 lines: 0 new, 0 known, 0 conflicting, 0 malformed.\n")
    assert "The first line must name the columns: biz_token, " in done.err


def test_binary_and_overlong_lines_are_malformed_without_other_effect(here: Installation) -> None:
    summary = here.json("backfill", "-", stdin=f"good-1\n{'x' * 10_000}\n\x00\r\x01\ngood-2")

    assert (summary["new"], [problem["line"] for problem in summary["problems"]]) == (2, [2, 3])


def test_backfilled_token_of_another_client_is_a_new_one(here: Installation) -> None:
    here.run("backfill", "-", stdin="mine\n")
    summary = here.json("backfill", "-", "--client", "other", stdin="mine\n")

    assert (summary["new"], summary["known"], summary["problems"]) == (1, 0, [])
