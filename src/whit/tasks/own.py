"""A task from a model in a Python file and arrays in an .npz file: nothing of whit to write."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from whit.core.options import nearest
from whit.core.references import attribute, load_reference
from whit.core.task import Task
from whit.errors import DataError, TaskError
from whit.tasks.models import call_text
from whit.tasks.own_arrays import array_task

_ONE = ("inputs", "target")
_SPLITS = ("train", "valid", "test")
_KEYS = (*_ONE, *(f"{key}_{split}" for split in _SPLITS for key in _ONE), "class_names")
_HOW = (
    "Write it by np.savez('arrays.npz', inputs=..., target=...), or with inputs_train, "
    "target_train, inputs_valid, target_valid, inputs_test, target_test; class_names is optional."
)


def own(*, model: str, data: str) -> Task:
    """Train a model of your own, named as my_file.py:Net, on arrays in an .npz file.

    The arrays are those of `whit.array_task`, and so are the rules: 20 % of the samples each are
    split off for what the file does not hold of validation and test.

    Args:
        model: `my_file.py:Name` or `package.module:Name`, a class of torch.nn.Module or a function
            that returns a new model.
        data: an .npz file with `inputs` and `target`, or with `inputs_train`, `target_train` and
            so on; `class_names` is optional. Pickled objects in it are refused.
    """
    found = _read_arrays(data)
    train = "inputs_train" if "inputs_train" in found else "inputs"
    pairs: dict[str, Any] = {
        split: (found[f"inputs_{split}"], found[f"target_{split}"])
        for split in ("valid", "test")
        if f"inputs_{split}" in found
    }
    names = [str(name) for name in found["class_names"]] if "class_names" in found else ()
    return array_task(
        _factory(model),
        found[train],
        found[train.replace("inputs", "target")],
        class_names=names,
        name=call_text(own, model=model, data=data),
        **pairs,
    )


def _factory(model: str) -> Any:
    reference, _, name = model.rpartition(":") if isinstance(model, str) else ("", "", "")
    if not reference or not name.isidentifier():
        raise TaskError(
            f"The model was given as {model!r}; expected 'my_file.py:Name' or "
            "'package.module:Name'."
        )
    found = attribute(load_reference(reference), name, reference)
    if isinstance(found, Task):
        raise TaskError(
            f"'{model}' is a task and needs no arrays: give it itself, as in whit compare {model}."
        )
    return found


def _read_arrays(data: str) -> Mapping[str, Any]:
    """Read all arrays of an .npz file.

    Raises:
        DataError: missing, no .npz file, truncated, or with other contents than expected.
    """
    if not isinstance(data, str):
        raise DataError(f"The data were given as {data!r}; expected the name of an .npz file.")
    path = Path(data).expanduser()
    if not path.is_file():
        raise DataError(f"There is no file '{data}' (looked in {Path.cwd()}). {_HOW}")
    if not zipfile.is_zipfile(path):
        raise DataError(f"The file '{data}' is no .npz file, or is truncated. {_HOW}")
    found = {}
    try:
        with np.load(path, allow_pickle=False) as opened:
            for key in opened.files:
                found[key] = opened[key]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        objects = " It holds Python objects, which are not read." if "pickle" in str(error) else ""
        raise DataError(
            f"The file '{data}' cannot be read as arrays: {str(error)[:200]}.{objects} {_HOW}"
        ) from None
    _check_keys(data, list(found))
    return found


def _check_keys(data: str, keys: list[str]) -> None:
    for key in keys:
        if key not in _KEYS:
            raise DataError(f"The file '{data}' holds '{key}'. {nearest(key, _KEYS)} {_HOW}")
    wanted = [k for split in _SPLITS for k in (f"inputs_{split}", f"target_{split}")]
    for first, second in [_ONE, *zip(wanted[::2], wanted[1::2], strict=True)]:
        if (first in keys) != (second in keys):
            lacking = second if first in keys else first
            raise DataError(f"The file '{data}' lacks '{lacking}'; it holds {keys}. {_HOW}")
    if ("inputs" in keys) == ("inputs_train" in keys):
        raise DataError(
            f"The file '{data}' holds {keys}; expected either inputs or inputs_train. {_HOW}"
        )
