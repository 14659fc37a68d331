"""From the columns of a table to vectors of float32, fitted on the training rows alone.

A numeric column becomes its value, the training median where it is missing, and a second feature
"age is missing" if training has gaps. A categorical column becomes one feature of 0 or 1 for each
category of training, such as "colour=red"; rare ones beyond the 64 most frequent share one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from whit.errors import DataError, MissingExtra
from whit.tasks.table_files import MISSING, number_of

MOST_CATEGORIES = 64
MOST_SHOWN = 3
ABSENT = "(missing)"

Texts = Sequence[str]


class _Column(Protocol):
    """A fitted column: the names of its features, and their values for texts."""

    names: list[str]

    def encode(self, texts: Texts, rows: str) -> NDArray[np.float32]: ...


class TableEncoder:
    """Turns rows of a table into the vectors that the model takes.

    Attributes:
        feature_names: of the vector's entries, in order.
    """

    def __init__(self, columns: Mapping[str, Texts], categorical: Collection[str] = ()) -> None:
        """Fit on training rows.

        Args:
            columns: texts of the training rows, by column name.
            categorical: columns of numbers that are codes of categories.

        Raises:
            DataError: a column has no value at all, or holds an infinite one.
            MissingExtra: scikit-learn is not installed.
        """
        self._columns: dict[str, _Column] = {}
        for name, texts in columns.items():
            codes = name in categorical or not _is_numeric(name, texts)
            self._columns[name] = (_CategoryColumn if codes else _NumberColumn)(name, texts)
        self.feature_names = tuple(n for c in self._columns.values() for n in c.names)

    def encode(self, columns: Mapping[str, Texts], rows: str = "rows") -> NDArray[np.float32]:
        """Return one vector a row.

        Categories that training did not have give zeros, or the share of the rare ones.

        Shapes: rows texts in each column -> float32 [rows, features].

        Args:
            columns: texts by column name; others than those of training are not looked at.
            rows: what the rows are, for messages; "test" keeps their values to itself.

        Raises:
            DataError: a column is missing, or a numeric one holds something else.
        """
        absent = [name for name in self._columns if name not in columns]
        if absent:
            raise DataError(
                f"The {rows} lack the column '{absent[0]}'; expected {', '.join(self._columns)}."
            )
        encoded = [c.encode(columns[name], rows) for name, c in self._columns.items()]
        return np.concatenate(encoded, axis=1)


class _NumberColumn:
    """A numeric column: its value with gaps filled, and whether there was a gap."""

    def __init__(self, name: str, texts: Texts) -> None:
        self.name = name
        values = _numbers(name, texts, "training rows")
        if np.isnan(values).all():
            raise _all_missing(name)
        impute = _part("sklearn.impute", "SimpleImputer")
        self.imputer = impute(strategy="median", add_indicator=True).fit(values)
        gaps = self.imputer.indicator_.features_.size > 0
        self.names = [name, f"{name} is missing"] if gaps else [name]

    def encode(self, texts: Texts, rows: str) -> NDArray[np.float32]:
        filled = self.imputer.transform(_numbers(self.name, texts, rows))
        return np.asarray(filled, dtype=np.float32)


class _CategoryColumn:
    """A column of texts or codes: one feature for each category."""

    def __init__(self, name: str, texts: Texts) -> None:
        if all(text in MISSING for text in texts):
            raise _all_missing(name)
        impute = _part("sklearn.impute", "SimpleImputer")
        one_hot = _part("sklearn.preprocessing", "OneHotEncoder")
        # "infrequent_if_exist" ignores unknown categories where there are no rare ones.
        self.pipeline = _part("sklearn.pipeline", "make_pipeline")(
            impute(missing_values=None, strategy="constant", fill_value=ABSENT),
            one_hot(
                handle_unknown="infrequent_if_exist",
                max_categories=MOST_CATEGORIES,
                sparse_output=False,
                dtype=np.float32,
            ),
        ).fit(_cells(texts))
        fitted = self.pipeline[-1]
        rare = fitted.infrequent_categories_[0]
        rare = [] if rare is None else rare.tolist()
        kept = [c for c in fitted.categories_[0].tolist() if c not in set(rare)]
        self.names = [f"{name}={c}" for c in kept] + ([f"{name}=(rare)"] if rare else [])

    def encode(self, texts: Texts, rows: str) -> NDArray[np.float32]:
        encoded: NDArray[np.float32] = self.pipeline.transform(_cells(texts))
        return encoded


# With fewer different values than this, or a larger share of texts, a column is one of texts.
FEWEST_NUMBERS = 20
MOST_STRANGE = 0.2


def _is_numeric(name: str, texts: Texts) -> bool:
    present = set(texts) - MISSING
    if all(number_of(text) is not None for text in present):
        return True
    if all(number_of(text.replace(",", ".", 1)) is not None for text in present):
        raise DataError(
            f"The column '{name}' holds numbers with a decimal comma, such as '{min(present)}'. "
            f"Write them with a point, or list '{name}' in categorical if they are codes."
        )
    strange = sorted(text for text in present if number_of(text) is None)
    if len(present) >= FEWEST_NUMBERS and len(strange) <= MOST_STRANGE * len(present):
        shown = ", ".join(f"'{text[:40]}'" for text in strange[:5])
        raise DataError(
            f"The column '{name}' holds numbers, and {len(strange)} of its {len(present)} "
            f"different training values are none: {shown}. Correct these, leave the cells "
            f"empty if they are missing, or list '{name}' in categorical if all are codes."
        )
    return False


def _numbers(name: str, texts: Texts, rows: str) -> NDArray[np.float64]:
    """Return a column as numbers, NaN where a value is missing. Shapes: -> [rows, 1]."""
    known = {text: np.nan if text in MISSING else number_of(text) for text in set(texts)}
    values = {text: np.inf if number is None else number for text, number in known.items()}
    found = np.array([values[text] for text in texts], dtype=np.float64).reshape(-1, 1)
    wrong = np.flatnonzero(np.abs(found) > np.finfo(np.float32).max)
    if wrong.size:
        if rows == "test":
            raise DataError(
                f"The column '{name}' holds numbers in training, and something else in the test "
                "split, whose values are sealed. Clean the column, or list it as categorical."
            )
        shown = ", ".join(repr(texts[i][:40]) for i in wrong[:MOST_SHOWN])
        raise DataError(
            f"The column '{name}' should hold finite numbers, and {len(wrong)} of {len(texts)} "
            f"{rows} hold something else: {shown}. Write missing values as an empty field, NA, NaN "
            "or ?; list codes in categorical."
        )
    return found


def _cells(texts: Texts) -> NDArray[Any]:
    """Return a column as objects, None where a value is missing. Shapes: -> [rows, 1]."""
    cells = np.empty((len(texts), 1), dtype=object)
    cells[:, 0] = [None if text in MISSING else text for text in texts]
    return cells


def _all_missing(name: str) -> DataError:
    return DataError(
        f"All training rows lack a value in column '{name}'. Leave it out by "
        f"ignore=['{name}'], or fill it."
    )


def _part(module: str, name: str) -> Any:
    try:
        return getattr(import_module(module), name)
    except ImportError:
        raise MissingExtra("train", "scikit-learn") from None
