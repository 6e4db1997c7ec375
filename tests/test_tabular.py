"""Tests of the formats. XLSX is read by openpyxl, a library of its own."""

import csv
import io
import json
from datetime import datetime, timedelta, timezone

import openpyxl
import pytest

from app import tabular
from app.tabular import Format, Row, writer

COLUMNS = ("name", "number", "share", "is_new", "at")
AT = datetime(2026, 1, 2, 11, 4, 5, tzinfo=timezone(timedelta(hours=8)))
ROW: Row = ('张*, "b"\nc', -7, 96.42, True, AT)
EMPTY: Row = (None,) * 5


def written(of: Format, *pages: list[Row]) -> bytes:
    table = writer(of, COLUMNS)
    return b"".join([*map(table.add, pages), table.end()])


def cells_of_csv(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))


def sheets_of(data: bytes) -> list[list[tuple[object, ...]]]:
    return [list(sheet.values) for sheet in openpyxl.load_workbook(io.BytesIO(data))]


def test_csv_has_a_byte_order_mark_a_header_and_quoted_cells() -> None:
    data = written(Format.CSV, [ROW], [EMPTY])

    assert data.startswith(b"\xef\xbb\xbf")
    assert cells_of_csv(data) == [
        list(COLUMNS),
        ['张*, "b"\nc', "-7", "96.42", "True", "2026-01-02T03:04:05Z"],
        [""] * 5,
    ]


@pytest.mark.parametrize("begin", [*"=+-@＝＋－＠", "\t", "\r", "\n"])
def test_text_like_a_formula_is_harmless_in_csv(begin: str) -> None:
    formula = f"{begin}HYPERLINK(1)"

    _, (cell, *_) = cells_of_csv(written(Format.CSV, [(formula, None, None, None, None)]))

    assert cell == f"'{formula}"


def test_ndjson_has_typed_values_and_says_where_it_ends() -> None:
    lines = [json.loads(line) for line in written(Format.NDJSON, [ROW], [EMPTY]).splitlines()]

    assert lines == [
        {"name": '张*, "b"\nc', "number": -7, "share": 96.42, "is_new": True, "at": "2026-01-02T03:04:05Z"},
        dict.fromkeys(COLUMNS),
        {"end": True, "count": 2},
    ]


def test_xlsx_has_texts_that_are_neither_numbers_nor_formulas() -> None:
    texts = ["110101200001010000", "=1+1", "<b>&\"'</b>", "  blanks  ", "x" * 40_000, "a\x00\x08b\ud800\ufffe"]

    (sheet,) = sheets_of(written(Format.XLSX, [ROW, EMPTY], [(text, None, None, None, None) for text in texts]))

    assert sheet[:3] == [COLUMNS, ('张*, "b"\nc', -7, 96.42, True, "2026-01-02T03:04:05Z"), EMPTY]
    assert [row[0] for row in sheet[3:]] == [*texts[:4], "x" * 32_767, "ab"]


def test_xlsx_continues_in_further_sheets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabular, "MAX_SHEET_ROWS", 2)
    rows: list[Row] = [(str(number), None, None, None, None) for number in range(5)]

    sheets = sheets_of(written(Format.XLSX, rows[:3], rows[3:]))

    assert [[row[0] for row in sheet] for sheet in sheets] == [["name", "0", "1"], ["name", "2", "3"], ["name", "4"]]


def test_table_without_rows_is_complete() -> None:
    assert cells_of_csv(written(Format.CSV)) == [list(COLUMNS)]
    assert json.loads(written(Format.NDJSON)) == {"end": True, "count": 0}
    assert sheets_of(written(Format.XLSX)) == [[COLUMNS]]


@pytest.mark.parametrize("of", Format)
def test_rows_leave_as_they_are_added(of: Format) -> None:
    table = writer(of, COLUMNS)
    noise = [tuple(f"{number * 7919 % 100_003:x}" for number in range(row, row + 5)) for row in range(20_000)]

    pieces = [len(table.add(noise[start : start + 1000])) for start in range(0, len(noise), 1000)]

    assert sum(pieces) > 0.8 * (sum(pieces) + len(table.end()))
    assert table.count == len(noise)


@pytest.mark.parametrize("of", Format)
def test_table_can_be_abandoned(of: Format) -> None:
    table = writer(of, COLUMNS)
    table.add([ROW])

    table.close()
    table.close()
