"""Text tables: comma- or tab-separated files with a header line, packed by gzip or not."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from dataclasses import dataclass
from pathlib import Path

from whit.errors import DataError

GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"
DELIMITERS = (",", "\t", ";", "|")
LARGEST_FIELD = 100_000
MOST_NAMED = 5
MISSING = frozenset({"", "NA", "N/A", "NaN", "nan", "?"})


@dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes:
        path: of the file, for messages.
        columns: texts without surrounding blanks, by column name, in the order of the file.
    """

    path: str
    columns: dict[str, list[str]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


def read_table(path: Path) -> Table:
    """Read a CSV or TSV file, also one packed by gzip (.gz).

    A file whose name ends in .tsv or .tab is separated by tabs; for others the separator is the
    one of `, tab ; |` that is most frequent in the header line. Blank lines are skipped.

    Raises:
        DataError: the file is missing, no text, truncated, not what its name says, or no table;
            the message says where.
    """
    text = _text(path)
    first = next((line for line in io.StringIO(text) if line.strip()), "")
    if not first:
        raise DataError(f"The file '{path}' is empty; expected a header line and rows.")
    rows, numbers = [], []
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=_delimiter(path, first), strict=True
    )
    limit = csv.field_size_limit(LARGEST_FIELD)
    try:
        for row in reader:
            if row:
                rows.append([field.strip() for field in row])
                numbers.append(reader.line_num)
    except csv.Error as error:
        raise DataError(
            f"The file '{path}' cannot be read as a table: line {reader.line_num}: {error}. A "
            f'quote " that is not closed, or a field above {LARGEST_FIELD:,} characters?'
        ) from None
    finally:
        csv.field_size_limit(limit)
    header, *rows = rows
    _check_header(path, header)
    _check_rows(path, header, rows, numbers[1:])
    columns = zip(header, zip(*rows, strict=True), strict=True)
    return Table(str(path), {name: list(values) for name, values in columns})


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"The table '{path}' cannot be read ({error.strerror}); looked in {Path.cwd()}."
        ) from None
    if content.startswith(GZIP) != (path.suffix == ".gz"):
        what = "no gzip file" if path.suffix == ".gz" else "packed by gzip"
        raise DataError(
            f"The file '{path}' is not what its name says: it is {what}. Names of packed tables "
            "end in .gz, such as table.csv.gz; rename it."
        )
    if content.startswith(GZIP):
        content = _unpacked(path, content)
    if content.startswith(ZIP) or b"\0" in content:
        raise DataError(
            f"The file '{path}' is no text (a spreadsheet or an archive?). Save it as CSV or TSV "
            "in UTF-8."
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"The file '{path}' is no UTF-8 text: byte {content[error.start]:#04x} in line {line}. "
            "Save it as UTF-8."
        ) from None


def _unpacked(path: Path, content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except EOFError:
        raise DataError(
            f"The file '{path}' is truncated: its gzip data end too early. Get it again."
        ) from None
    except (OSError, zlib.error) as error:
        raise DataError(f"The file '{path}' is corrupt ({error}). Get it again.") from None


def _delimiter(path: Path, header: str) -> str:
    unquoted = "".join(header.split('"')[::2])
    counts = {delimiter: unquoted.count(delimiter) for delimiter in DELIMITERS}
    if any(suffix in (".tsv", ".tab") for suffix in path.suffixes[-2:]):
        if not counts["\t"]:
            raise DataError(
                f"The file '{path}' is not what its name says: its first line has no tab. Rename "
                "it to .csv, where the separator is found from the header."
            )
        return "\t"
    found = max(DELIMITERS, key=lambda delimiter: counts[delimiter])
    if not counts[found]:
        raise DataError(
            f"The file '{path}' has a single column, '{header.strip()[:60]}'; expected a header "
            "with at least two names, separated by a comma, tab, semicolon or |."
        )
    return found


def _check_header(path: Path, header: list[str]) -> None:
    unnamed = [number for number, name in enumerate(header, start=1) if not name]
    if unnamed:
        raise DataError(
            f"The file '{path}' has no name in its header for column {unnamed[0]} of "
            f"{len(header)}. Give every column a name; an index column is left out by index=False "
            "in pandas."
        )
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise DataError(
            f"The file '{path}' has columns of the same name: {', '.join(doubled[:MOST_NAMED])}. "
            "Give each its own."
        )
    if all(number_of(name) is not None for name in header):
        raise DataError(
            f"The first line of '{path}' holds numbers only ({', '.join(header[:3])} ...); "
            "expected a header with the names of the columns."
        )


def _check_rows(path: Path, header: list[str], rows: list[list[str]], numbers: list[int]) -> None:
    if not rows:
        raise DataError(f"The file '{path}' has a header and no rows.")
    ragged = [
        (number, row) for number, row in zip(numbers, rows, strict=True) if len(row) != len(header)
    ]
    if ragged:
        number, row = ragged[0]
        raise DataError(
            f"The file '{path}' has {len(header)} columns, and line {number} has {len(row)} "
            f"fields; {len(ragged)} of {len(rows)} rows are so. Quote fields that hold the "
            "separator, and complete short rows."
        )


def number_of(text: str) -> float | None:
    """Return a text as a number, None if it is none (1_000 and the like are none)."""
    if "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None
