"""Tables as CSV, NDJSON or XLSX, written piece by piece: memory does not grow with the rows, and no file is needed."""

import csv
import io
import json
import re
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import IO, TYPE_CHECKING, cast
from xml.sax.saxutils import escape, quoteattr

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

Cell = str | int | float | bool | datetime | None
Row = Sequence[Cell]

# Spreadsheets run a cell that begins so as a formula. Excel in Chinese also takes the full-width forms.
_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")
# XML cannot contain them, not even escaped.
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
# Excel's limits: characters of a cell, and rows of a sheet below the header.
_MAX_CELL = 32_767
MAX_SHEET_ROWS = 1_048_575


class Format(StrEnum):
    """The formats. The value is the ending of a file's name."""

    CSV = "csv"
    NDJSON = "ndjson"
    XLSX = "xlsx"


MEDIA_TYPES: Mapping[Format, str] = {
    Format.CSV: "text/csv; charset=utf-8",
    Format.NDJSON: "application/x-ndjson",
    Format.XLSX: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}


class TableWriter(ABC):
    """Writes one table: `add` any number of times, then `end`. Each returns the bytes that are ready."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = columns
        self.count = 0

    def add(self, rows: Sequence[Row]) -> bytes:
        """Adds rows, with one cell for each column."""
        self.count += len(rows)
        return self._add(rows)

    @abstractmethod
    def _add(self, rows: Sequence[Row]) -> bytes: ...

    @abstractmethod
    def end(self) -> bytes:
        """Ends the table."""

    @abstractmethod
    def close(self) -> None:
        """Releases what the writer holds, also if the table was not ended."""


def writer(of: Format, columns: Sequence[str]) -> TableWriter:
    """Returns a writer of this format."""
    kinds: Mapping[Format, type[TableWriter]] = {Format.CSV: _Csv, Format.NDJSON: _Ndjson, Format.XLSX: _Xlsx}
    return kinds[of](columns)


class _Csv(TableWriter):
    """CSV after RFC 4180 with a byte order mark: without it Excel on Chinese Windows reads GBK.

    A text that a spreadsheet would run as a formula begins with an apostrophe.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        super().__init__(columns)
        self._buffer = io.StringIO()
        self._csv = csv.writer(self._buffer)
        self._buffer.write("\ufeff")
        self._csv.writerow(columns)

    def _add(self, rows: Sequence[Row]) -> bytes:
        self._csv.writerows([_harmless(_plain(cell)) for cell in row] for row in rows)
        return self._taken()

    def end(self) -> bytes:
        return self._taken()

    def close(self) -> None:
        self._buffer.close()

    def _taken(self) -> bytes:
        data = self._buffer.getvalue().encode(errors="replace")
        self._buffer.seek(0)
        self._buffer.truncate()
        return data


class _Ndjson(TableWriter):
    """One JSON object per line. The last line is `{"end": true, "count": N}`: without it the table is incomplete."""

    def _add(self, rows: Sequence[Row]) -> bytes:
        lines = (dict(zip(self.columns, map(_plain, row), strict=True)) for row in rows)
        return "".join(_json(line) for line in lines).encode(errors="replace")

    def end(self) -> bytes:
        return _json({"end": True, "count": self.count}).encode()

    def close(self) -> None:
        """Does nothing: the writer holds nothing."""


class _Sink(io.RawIOBase):
    """A file that cannot seek, whose content is taken as it is written."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: "ReadableBuffer", /) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        return len(piece)

    def taken(self) -> bytes:
        data, self._pieces = b"".join(self._pieces), []
        return data


_NAMESPACE = "http://schemas.openxmlformats.org"
_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_SHEET_BEGIN = (
    f'{_XML}<worksheet xmlns="{_NAMESPACE}/spreadsheetml/2006/main"><sheetViews><sheetView workbookViewId="0">'
    '<pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/></sheetView></sheetViews><sheetData>'
)
_SHEET_END = "</sheetData></worksheet>"


class _Xlsx(TableWriter):
    """A workbook for Excel (ECMA-376). All texts are inline strings, which are never formulas, numbers or dates.

    Rows that do not fit into one sheet continue in the next.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        super().__init__(columns)
        self._sink = _Sink()
        self._zip = zipfile.ZipFile(cast("IO[bytes]", self._sink), "w", zipfile.ZIP_DEFLATED)
        self._sheets = 0
        self._begin_sheet()

    def _add(self, rows: Sequence[Row]) -> bytes:
        while rows:
            if not self._room:
                self._end_sheet()
                self._begin_sheet()
            now, rows = rows[: self._room], rows[self._room :]
            self._sheet.write("".join(map(_xml_row, now)).encode())
            self._room -= len(now)
        return self._sink.taken()

    def end(self) -> bytes:
        self._end_sheet()
        for name, content in _workbook(self._sheets).items():
            self._zip.writestr(_part(name), _XML + content)
        self.close()
        return self._sink.taken()

    def close(self) -> None:
        self._sheet.close()
        self._zip.close()

    def _begin_sheet(self) -> None:
        self._sheets += 1
        self._room = MAX_SHEET_ROWS
        self._sheet: IO[bytes] = self._zip.open(_part(f"xl/worksheets/sheet{self._sheets}.xml"), "w", force_zip64=True)
        self._sheet.write((_SHEET_BEGIN + _xml_row(self.columns)).encode())

    def _end_sheet(self) -> None:
        self._sheet.write(_SHEET_END.encode())
        self._sheet.close()


def _part(name: str) -> zipfile.ZipInfo:
    part = zipfile.ZipInfo(name)
    part.compress_type = zipfile.ZIP_DEFLATED
    return part


def _workbook(sheets: int) -> Mapping[str, str]:
    """Returns the parts that describe a workbook with so many sheets, by name."""
    numbers = range(1, sheets + 1)
    main = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    links = f"{_NAMESPACE}/package/2006/relationships"
    kinds = f"{_NAMESPACE}/officeDocument/2006/relationships"
    return {
        "[Content_Types].xml": f'<Types xmlns="{_NAMESPACE}/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{main}.sheet.main+xml"/>'
        + _each(f'<Override PartName="/xl/worksheets/sheet{{}}.xml" ContentType="{main}.worksheet+xml"/>', numbers)
        + "</Types>",
        "_rels/.rels": f'<Relationships xmlns="{links}">'
        f'<Relationship Id="rId1" Type="{kinds}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{_NAMESPACE}/spreadsheetml/2006/main" xmlns:r="{kinds}"><sheets>'
        + _each('<sheet name="{0}" sheetId="{0}" r:id="rId{0}"/>', numbers)
        + "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{links}">'
        + _each(f'<Relationship Id="rId{{0}}" Type="{kinds}/worksheet" Target="worksheets/sheet{{0}}.xml"/>', numbers)
        + "</Relationships>",
    }


def _each(template: str, numbers: Iterable[int]) -> str:
    return "".join(map(template.format, numbers))


def _xml_row(row: Row) -> str:
    return f"<row>{''.join(map(_xml_cell, row))}</row>"


def _xml_cell(cell: Cell) -> str:
    value = _plain(cell)
    if value is None:
        return "<c/>"
    if isinstance(value, bool):
        return f'<c t="b"><v>{int(value)}</v></c>'
    if isinstance(value, int | float):
        return f"<c><v>{value}</v></c>"
    text = escape(_NOT_IN_XML.sub("", value)[:_MAX_CELL])
    return f'<c t="inlineStr"><is><t xml:space={quoteattr("preserve")}>{text}</t></is></c>'


def rfc3339(at: datetime) -> str:
    """Returns an instant in UTC after RFC 3339, without needless zeros: `2026-01-02T03:04:05.6Z`."""
    text = at.astimezone(UTC).isoformat().removesuffix("+00:00")
    return (text.rstrip("0") if at.microsecond else text) + "Z"


def _plain(cell: Cell) -> str | int | float | bool | None:
    return rfc3339(cell) if isinstance(cell, datetime) else cell


def _harmless(value: str | float | bool | None) -> str | float | bool | None:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
