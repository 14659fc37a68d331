"""A table with its split, its encoder and its target: what the task `tabular` learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whit.core.data import Split, VectorData
from whit.core.options import nearest
from whit.errors import DataError
from whit.tasks.shipped_tables import SHIPPED, shipped_file
from whit.tasks.splits import fixed_parts
from whit.tasks.table_encoding import TableEncoder
from whit.tasks.table_files import MISSING, Table, number_of, read_table

SEED = 20240208
KINDS = ("auto", "classification", "regression")
MOST_CLASSES = 20
MOST_NAMED = 5
TARGET = "target"


@dataclass(frozen=True)
class TableOptions:
    """How a table is to be read; the attributes are described at `tabular`."""

    target: str | None = None
    kind: str = "auto"
    categorical: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True)
class EncodedTable:
    """A table as the model sees it, and the way from rows to vectors and from outputs to answers.

    Attributes:
        data: the three splits; its `feature_names` name the vector's entries.
        encoder: fitted on the training rows.
        target: name of the target column.
        shift: subtracted from the target of a regression: its mean in the training rows.
        scale: divides it: its standard deviation in the training rows, > 0.
    """

    data: VectorData
    encoder: TableEncoder
    target: str
    shift: float = 0.0
    scale: float = 1.0

    def encode(self, rows: Sequence[Mapping[str, object]]) -> NDArray[np.float32]:
        """Return the vectors of new rows, as the model and its packed file take them.

        Shapes: -> float32 [rows, features].

        Args:
            rows: values by column name; None or "" where one is missing. The target is not needed.

        Raises:
            DataError: there is no row, a row lacks a column, or a value is no number where training
                had numbers.
        """
        if not rows:
            raise DataError("No rows were given to encode; expected at least one.")
        names = set(rows[0]).intersection(*rows)
        columns = {name: [_text_of(row[name]) for row in rows] for name in names}
        return self.encoder.encode(columns)

    def answers(self, outputs: NDArray[np.float32]) -> list[str] | list[float]:
        """Return class names, or the target's values in its own unit, for the model's outputs.

        Shapes: outputs [rows, classes], or [rows, 1] for a regression.

        Args:
            outputs: of the model, or of a packed file.
        """
        if self.data.class_names:
            return [self.data.class_names[int(number)] for number in outputs.argmax(1)]
        return [float(value) * self.scale + self.shift for value in outputs[:, 0]]


def _text_of(value: object) -> str:
    return "" if value is None else str(value).strip()


def load_table(path: str, options: TableOptions | None = None) -> EncodedTable:
    """Read, split and encode a table; the same file and options give the same result.

    Args:
        path: of a CSV or TSV file, or the name of a public table.
        options: how to read it.

    Raises:
        DataError: the file or a column is not as expected; the message says where.
        MissingExtra: scikit-learn is not installed.
    """
    options = options or TableOptions()
    file = _found(path)
    if path in SHIPPED:
        options = _with_known_columns(path, file, options)
    # A file that has changed is read again.
    state = file.stat()
    return _encoded(file, options, (state.st_mtime_ns, state.st_size))


def _found(path: str) -> Path:
    if path in SHIPPED:
        return shipped_file(path)
    file = Path(path).expanduser()
    if not file.is_file():
        hint = "" if file.suffix else f" {nearest(path, SHIPPED)}"
        raise DataError(f"There is no table '{path}' (looked in {Path.cwd()}).{hint}")
    return file.absolute()


def _with_known_columns(name: str, file: Path, options: TableOptions) -> TableOptions:
    table = SHIPPED[name]
    categorical = table.categorical
    if isinstance(categorical, str):
        state = file.stat()
        names = _read(file, (state.st_mtime_ns, state.st_size)).columns
        categorical = tuple(n for n in names if n not in (TARGET, options.target, *table.measured))
    extra = tuple(n for n in categorical if n != options.target and n not in options.ignore)
    left_out = tuple(n for n in table.ignore if n not in options.categorical)
    return TableOptions(
        options.target,
        options.kind,
        tuple(dict.fromkeys((*options.categorical, *extra))),
        tuple(dict.fromkeys((*options.ignore, *left_out))),
    )


@lru_cache(maxsize=2)
def _read(file: Path, state: tuple[int, int]) -> Table:
    return read_table(file)


@lru_cache(maxsize=4)
def _encoded(file: Path, options: TableOptions, state: tuple[int, int]) -> EncodedTable:
    table = _read(file, state)
    name = _target_name(table, options)
    texts = table.columns[name]
    _expect_present(table, name)
    features = {
        column: values
        for column, values in table.columns.items()
        if column != name and column not in options.ignore
    }
    if not features:
        raise DataError(f"The table '{file}' has no column but the target and ignored ones.")
    values = _values(table, name) if _is_regression(table, name, options.kind) else None
    class_of = _class_of(texts) if values is None else {}
    names = tuple(dict.fromkeys(class_of.values()))
    number = {text: names.index(name) for text, name in class_of.items()}
    target = (
        torch.tensor([number[t] for t in texts]) if values is None else torch.from_numpy(values)
    )
    _expect_several(file, name, target, names)
    parts = _parts(file, name, target, names)
    encoder = TableEncoder(_rows(features, parts[0]), options.categorical)
    shift, scale = 0.0, 1.0
    if values is not None:
        trained = target[parts[0]]
        shift, scale = float(trained.mean()), float(trained.std(correction=0)) or 1.0
        target = ((target - shift) / scale).float().unsqueeze(1)
    train, valid, test = (
        Split((torch.from_numpy(encoder.encode(_rows(features, part), rows)),), target[part])
        for part, rows in zip(parts, ("training rows", "validation rows", "test"), strict=True)
    )
    data = VectorData(
        train,
        valid,
        test,
        class_names=names,
        output_size=len(names) or 1,
        feature_names=encoder.feature_names,
    )
    return EncodedTable(data, encoder, name, shift, scale)


def _rows(columns: Mapping[str, list[str]], part: Tensor) -> dict[str, list[str]]:
    numbers = part.tolist()
    return {name: [texts[i] for i in numbers] for name, texts in columns.items()}


def _target_name(table: Table, options: TableOptions) -> str:
    """Return the target column, after a look at all columns that the options name."""
    names = list(table.columns)
    target = options.target or (TARGET if TARGET in names else names[-1])
    for option, given in (
        ("target", (target,)),
        ("categorical", options.categorical),
        ("ignore", options.ignore),
    ):
        for name in given:
            if name not in names:
                raise DataError(
                    f"The table '{table.path}' has no column '{name}' ({option}). "
                    f"{nearest(name, names)}"
                )
    if target in options.ignore or target in options.categorical:
        raise DataError(
            f"The column '{target}' is the target of '{table.path}', and is also named in "
            "categorical or ignore. Without target=..., the target is the column 'target', or the "
            "last one."
        )
    return target


def _expect_present(table: Table, name: str) -> None:
    missing = [i for i, text in enumerate(table.columns[name]) if text in MISSING]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(table)} rows of '{table.path}' have no value in the target "
            f"column '{name}', the first in row {missing[0] + 1} after the header. Fill them or "
            "remove those rows: whit drops none by itself. Without target=..., the target is the "
            "column 'target', or the last one."
        )


def _is_regression(table: Table, name: str, kind: str) -> bool:
    if kind != "auto":
        return kind == "regression"
    distinct = set(table.columns[name])
    numbers = {number_of(text) for text in distinct}
    if None in numbers:
        return False
    return len(numbers) > MOST_CLASSES or any(n != n // 1 for n in numbers if n is not None)


def _values(table: Table, name: str) -> NDArray[np.float64]:
    found = [number_of(text) for text in table.columns[name]]
    wrong = [i for i, value in enumerate(found) if value is None or not np.isfinite(value)]
    if wrong:
        raise DataError(
            f"The target column '{name}' of '{table.path}' should hold finite numbers for a "
            f"regression, and {len(wrong)} of {len(table)} rows do not; the first is row "
            f"{wrong[0] + 1} after the header. For classes give kind='classification'."
        )
    return np.array(found, dtype=np.float64)


def _class_of(texts: list[str]) -> dict[str, str]:
    """Return the class name of each different text, classes in their order.

    Numbers are in their order, and 1 and 1.0 are one class, named by its shortest spelling; other
    texts are in the order of the alphabet.
    """
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    numbers = {text: number_of(text) for text in distinct}
    if None in numbers.values():
        return {text: text for text in sorted(distinct)}
    spelled: dict[float | None, str] = {}
    for text, number in numbers.items():
        spelled.setdefault(number, text)
    ordered = sorted(distinct, key=lambda text: numbers[text] or 0.0)
    return {text: spelled[numbers[text]] for text in ordered}


def _expect_several(file: Path, name: str, target: Tensor, names: tuple[str, ...]) -> None:
    if len(torch.unique(target)) > 1:
        return
    only = f"one class, '{names[0]}'" if names else f"one value, {float(target[0]):g}"
    raise DataError(
        f"The target column '{name}' of '{file}' holds {only}: there is nothing to learn. Name "
        "another column by target=..., or give more rows."
    )


def _parts(file: Path, name: str, target: Tensor, names: tuple[str, ...]) -> list[Tensor]:
    """Return the row numbers of training (60 %), validation (20 %) and test (20 %)."""
    counts = target.bincount() if names else None
    rare = [] if counts is None else [i for i, n in enumerate(counts.tolist()) if n < 3]
    if rare:
        shown = ", ".join(repr(names[i]) for i in rare[:MOST_NAMED])
        raise DataError(
            f"{len(rare)} of {len(names)} classes in column '{name}' of '{file}' have fewer than 3 "
            f"rows, one for each split: {shown}. Leave them out or join them; if the column holds "
            "numbers to predict, give kind='regression' and see that all are numbers."
        )
    return fixed_parts(target, 2, SEED)
