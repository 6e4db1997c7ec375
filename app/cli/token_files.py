"""Reads files of tokens line by line: a CSV with a header, or one token a line."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import BinaryIO

from pydantic import ValidationError

from app.errors import InvalidRequestError
from app.routers.rejections import words_of
from app.routers.schemas import BizToken, Registration
from app.services.backfill import RejectedLine, TokenLine

# Registered in one transaction, which must be short: on SQLite callbacks wait for it.
BATCH_LINES = 200
# More than all columns together can have.
_MAX_LINE_BYTES = 4096
_OPTIONAL = ", ".join(Registration.model_fields)


class Line(Registration):
    """The columns of a line, validated as the API validates them."""

    biz_token: BizToken


def read_batches(
    stream: BinaryIO, rule_id: str | None, *, has_default_rule: bool
) -> Iterator[Sequence[TokenLine | RejectedLine]]:
    """Yields the lines in batches. An invalid line becomes a `RejectedLine`, and the lines after it are read.

    Args:
        stream: the file, in UTF-8.
        rule_id: the rule of lines without one.
        has_default_rule: whether the settings name a rule for lines whose rule is not stated at all.

    Raises:
        InvalidRequestError: the first line has several columns, and they are not the known names.
        OSError: the file cannot be read.
    """
    rows = _rows(stream, rule_id, has_default_rule=has_default_rule)
    while batch := list(islice(rows, BATCH_LINES)):
        yield batch


def _rows(stream: BinaryIO, rule_id: str | None, *, has_default_rule: bool) -> Iterator[TokenLine | RejectedLine]:
    columns: Sequence[str] = ()
    for number, text in _lines(stream):
        cells = _cells(text)
        if not columns:
            columns = _columns(cells)
            if cells == columns:
                continue
        if len(cells) != len(columns):
            yield RejectedLine(number, f"{len(cells)} columns, but the header has {len(columns)}")
        else:
            stated = {"rule_id": rule_id or ""} | {
                name: cell for name, cell in zip(columns, cells, strict=True) if cell
            }
            yield _row(number, stated, has_default_rule=has_default_rule)


def _lines(stream: BinaryIO) -> Iterator[tuple[int, str]]:
    """Yields the lines that are not blank, with their numbers. A line that is too long becomes an invalid one."""
    number = 0
    while piece := stream.readline(_MAX_LINE_BYTES):
        number += 1
        rest = piece
        while len(rest) == _MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = stream.readline(_MAX_LINE_BYTES)
        if text := piece.decode("utf-8-sig" if number == 1 else "utf-8", "replace").strip():
            yield number, text if rest is piece else "\x00"


def _cells(text: str) -> Sequence[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([text]))]
    except csv.Error:
        return [text]


def _columns(cells: Sequence[str]) -> Sequence[str]:
    """Returns the columns that the first line names, or `biz_token` alone if the file has no header."""
    if len(cells) == 1 and cells[0].lower() != "biztoken":
        return ["biz_token"]
    if "biz_token" not in cells or len(set(cells)) != len(cells) or not set(cells) <= set(Line.model_fields):
        raise InvalidRequestError(f"The first line must name the columns: biz_token, {_OPTIONAL}.")
    return cells


def _row(number: int, cells: Mapping[str, str], *, has_default_rule: bool) -> TokenLine | RejectedLine:
    try:
        line = Line.model_validate({name: cell for name, cell in cells.items() if cell})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        return RejectedLine(number, f"{first['loc'][0]} {words_of(first)}")
    if not (line.rule_id or has_default_rule):
        return RejectedLine(number, "rule_id is missing; use --rule-id or set FACEID_RULE_ID")
    return TokenLine(number, line.biz_token, line.facts())
