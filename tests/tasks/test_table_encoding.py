"""The encoder of a table, by hand; and that it is fitted on the training rows alone."""

import sys

import numpy as np
import pytest

from whit.errors import DataError, MissingExtra
from whit.tasks.table_encoding import MOST_CATEGORIES, TableEncoder

TRAIN = {
    "age": ["10", "20", "?", "60"],
    "size": ["1.5", "2.5", "3.5", "4.5"],
    "colour": ["red", "blue", "NA", "red"],
    "code": ["1", "2", "1", "2"],
}


def test_the_vector_by_hand():
    encoder = TableEncoder(TRAIN, categorical=["code"])
    assert encoder.feature_names == (
        "age",
        "age is missing",
        "size",
        "colour=(missing)",
        "colour=blue",
        "colour=red",
        "code=1",
        "code=2",
    )
    assert encoder.encode(TRAIN).dtype == np.float32
    assert encoder.encode(TRAIN).tolist() == [
        [10, 0, 1.5, 0, 0, 1, 1, 0],
        [20, 0, 2.5, 0, 1, 0, 0, 1],
        [20, 1, 3.5, 1, 0, 0, 1, 0],  # 20 is the median of 10, 20, 60
        [60, 0, 4.5, 0, 0, 1, 0, 1],
    ]


def test_new_rows_meet_what_training_knew():
    encoder = TableEncoder(TRAIN, categorical=["code"])
    new = {"age": [""], "size": ["NaN"], "colour": ["green"], "code": ["7"], "other": ["x"]}
    # No gap in `size` was seen in training: the median 3.0 and no input that says so.
    assert encoder.encode(new).tolist() == [[20, 1, 3.0, 0, 0, 0, 0, 0]]


def test_rare_categories_share_an_input():
    common = [f"c{n:03}" for n in range(MOST_CATEGORIES - 1) for _ in range(3)]
    encoder = TableEncoder({"name": [*common, "rare1", "rare2"]})
    assert len(encoder.feature_names) == MOST_CATEGORIES
    assert encoder.feature_names[-1] == "name=(rare)"
    encoded = encoder.encode({"name": ["c000", "rare2", "never seen"]})
    assert encoded.sum(1).tolist() == [1, 1, 1]
    assert encoded[:, -1].tolist() == [0, 1, 1]


BAD = {
    "all missing": ({"a": ["NA", "?", ""]}, "lack a value in column 'a'.*ignore="),
    "all missing codes": ({"c": ["NA", ""]}, "lack a value in column 'c'"),
    "infinite": ({"a": ["1", "inf", "1e400"]}, "2 of 3 training rows .*'inf', '1e400'"),
    "too large for float32": ({"a": ["1", "1e39"]}, "finite numbers"),
    "decimal comma": ({"a": ["1,5", "2,5", "3"]}, "decimal comma, such as '1,5'"),
}


@pytest.mark.parametrize("case", BAD)
def test_columns_that_cannot_be_fitted(case):
    columns, message = BAD[case]
    with pytest.raises(DataError, match=message):
        TableEncoder(columns, categorical=["c"])


def test_what_new_rows_lack_is_said():
    encoder = TableEncoder(TRAIN)
    with pytest.raises(DataError, match="lack the column 'code'.*age, size, colour, code"):
        encoder.encode({name: ["1"] for name in ("age", "size", "colour")}, "validation rows")
    bad = {**{name: ["1"] for name in TRAIN}, "age": ["ancient"]}
    with pytest.raises(DataError, match="1 of 1 validation rows hold something else: 'ancient'"):
        encoder.encode(bad, "validation rows")
    with pytest.raises(DataError, match="sealed") as caught:
        encoder.encode(bad, "test")
    assert "ancient" not in str(caught.value)


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.impute", None)
    with pytest.raises(MissingExtra, match=r"whit\[train\]"):
        TableEncoder({"a": ["1", "2"]})


def test_a_stray_text_among_numbers_is_an_error_and_many_texts_are_categories():
    numbers = [f"{value}.5" for value in range(40)]
    with pytest.raises(DataError, match=r"'b' holds numbers, and 1 of its 41 .* 'unknown'"):
        TableEncoder({"b": [*numbers, "unknown"]})
    mixed = [*numbers, *(f"kind {value}" for value in range(30))]
    assert "b=kind 1" in TableEncoder({"b": mixed}).feature_names
    assert "b=x" in TableEncoder({"b": ["1", "2", "3", "x"]}).feature_names
    assert TableEncoder({"b": [*numbers, "", "NA"]}).feature_names == ("b", "b is missing")
