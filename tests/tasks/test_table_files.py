"""Reading CSV and TSV files: what separates, what is missing, and what is no table."""

import csv
import gzip

import pytest

from whit.errors import DataError
from whit.tasks.table_files import LARGEST_FIELD, number_of, read_table


def written(folder, content, name="table.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "a,b c\n1,x\n2,y\n"),
        ("t.csv", "a;b c\r\n1;x\r\n2;y"),
        ("t.csv", "a\tb c\n1\tx\n\n2\ty\n\n"),
        ("t.txt", 'a|"b c"\n1|x\n 2 | "y"\n'.replace(' "y"', " y")),
        ("t.tsv", "a\tb c\n1\tx\n2\ty\n"),
        ("t.csv", "\ufeffa,b c\n1,x\n2,y\n"),
    ],
)
def test_the_separator_is_found(tmp_path, name, text):
    table = read_table(written(tmp_path, text, name))
    assert table.columns == {"a": ["1", "2"], "b c": ["x", "y"]} and len(table) == 2


def test_packed_tables_are_the_same(tmp_path):
    text = b"a\tb\n1\tx\n"
    plain = read_table(written(tmp_path, text, "t.tsv"))
    packed = read_table(written(tmp_path, gzip.compress(text), "t.tsv.gz"))
    assert plain.columns == packed.columns


def test_quotes_keep_separators_and_lines_together(tmp_path):
    text = 'name,"x,y"\n"Lee, A","two\nlines"\nB\u2028C,""\n'
    assert read_table(written(tmp_path, text)).columns == {
        "name": ["Lee, A", "B\u2028C"],
        "x,y": ["two\nlines", ""],
    }


LONG = "x" * (LARGEST_FIELD + 1)
BAD = {
    "empty": ("t.csv", "", "is empty"),
    "blank": ("t.csv", "\n \n", "is empty"),
    "header alone": ("t.csv", "a,b\n", "no rows"),
    "one column": ("t.csv", "a\n1\n", "single column, 'a'"),
    "ragged": ("t.csv", "a,b\n1,2\n1,2,3\n4\n", "2 columns, and line 3 has 3 fields; 2 of 3 rows"),
    "doubled": ("t.csv", "a,b,a\n1,2,3\n", "columns of the same name: a"),
    "unnamed": ("t.csv", ",a,b\n0,1,2\n", "no name in its header for column 1 of 3.*index=False"),
    "no header": ("t.csv", "1,2.5\n3,4\n", "holds numbers only"),
    "not tsv": ("t.tsv", "a,b\n1,2\n", "first line has no tab"),
    "not gzip": ("t.csv.gz", "a,b\n1,2\n", "not what its name says: it is no gzip"),
    "gzip": ("t.csv", gzip.compress(b"a,b\n1,2\n"), "not what its name says: it is packed"),
    "truncated": ("t.csv.gz", gzip.compress(b"a,b\n1,2\n" * 99)[:-12], "is truncated"),
    "corrupt": ("t.csv.gz", gzip.compress(b"a,b\n1,2\n")[:10] + b"\xff" * 30, "is corrupt"),
    "zip": ("t.csv", b"PK\x03\x04abc", "is no text"),
    "binary": ("t.csv", b"a,b\n\0\0,1\n", "is no text"),
    "latin": ("t.csv", b"a,b\n1,2\n3,\xe9t\xe9\n", "no UTF-8 text: byte 0xe9 in line 3"),
    "huge field": ("t.csv", f"a,b\n1,{LONG}\n", "line 2: field larger than field limit"),
    "open quote": ("t.csv", 'a,b\n1,"x\n2,y\n', "quote"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_table_is_said_in_one_paragraph(tmp_path, case):
    name, content, message = BAD[case]
    with pytest.raises(DataError, match=message) as caught:
        read_table(written(tmp_path, content, name))
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_the_field_limit_of_others_is_left_alone(tmp_path):
    before = csv.field_size_limit()
    read_table(written(tmp_path, "a,b\n1,2\n"))
    with pytest.raises(DataError):
        read_table(written(tmp_path, BAD["huge field"][1]))
    assert csv.field_size_limit() == before


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path)


def test_numbers():
    assert [number_of(t) for t in ("1", "-2.5e3", " 4 ")] == [1.0, -2500.0, 4.0]
    assert [number_of(t) for t in ("x", "1_000", "1,5", "")] == [None] * 4
