"""From arrays of a user to the data of a task, with what is often wrong said in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whit.core.data import Augment, Data, ImageData, SequenceData, Split, VectorData
from whit.core.data_checks import not_finite
from whit.errors import DataError
from whit.tasks.splits import fixed_parts

SEED = 20240207
MOST_NAMED = 5
FEW_VALUES = 20
Pair = tuple[Any, Any]
_KINDS: dict[int, type[Data]] = {2: VectorData, 3: SequenceData, 4: ImageData}


@dataclass(frozen=True)
class Labels:
    """How the targets of a task are read, found from the training target.

    Attributes:
        names: class names in label order; empty for numbers.
        texts: whether targets are texts, looked up in `names`.
    """

    names: tuple[str, ...]
    texts: bool


def array_data(  # noqa: PLR0913 - what `array_task` takes, by name
    inputs: Any,
    target: Any,
    *,
    valid: Pair | None = None,
    test: Pair | None = None,
    class_names: Sequence[str] = (),
    own_loss: bool = False,
    augment: Augment | None = None,
) -> Data:
    """Return checked data; what is not given of validation and test is split off, 20 % each.

    Shapes: inputs [samples, ...], target [samples] or [samples, values].

    Args:
        inputs: NumPy array or tensor.
        target: class numbers, True and False, texts, or floats for regression.
        valid: inputs and target of the validation split.
        test: inputs and target of the test split.
        class_names: names in label order.
        own_loss: the task has a loss of its own, so that whole floats are meant as they are.
        augment: for the training batches.

    Raises:
        DataError: the arrays cannot be used as they are; the message says why.
    """
    labels = _labels(target, tuple(str(name) for name in class_names), own_loss)
    whole = _split("training", inputs, target, labels)
    given = {name: pair for name, pair in (("valid", valid), ("test", test)) if pair is not None}
    parts = {name: _split(name, *_pair(name, pair), labels) for name, pair in given.items()}
    missing = [name for name in ("valid", "test") if name not in parts]
    _check_classes(whole.target, labels)
    train, *held_out = fixed_parts(whole.target, len(missing), SEED)
    parts |= {name: whole.subset(index) for name, index in zip(missing, held_out, strict=True)}
    kind = _KINDS.get(whole.inputs[0].dim(), SequenceData)
    return kind(
        whole.subset(train),
        parts["valid"],
        parts["test"],
        class_names=labels.names,
        output_size=0 if labels.names else whole.target.shape[1],
        augment=augment,
    )


def _pair(name: str, pair: Any) -> Pair:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise DataError(
            f"'{name}' was given as {type(pair).__name__}; expected a pair (inputs, target)."
        )
    return pair[0], pair[1]


def _split(name: str, inputs: Any, target: Any, labels: Labels) -> Split:
    """Return a split of tensors of its own, its values checked unless they are the test split's."""
    values, wanted = _input_tensor(inputs, name), _target_tensor(target, name, labels)
    if len(values) != len(wanted):
        raise DataError(
            f"The {name} inputs hold {len(values)} samples and the target {len(wanted)}; expected "
            "as many. The first axis of both counts samples."
        )
    # A bad value of the test split is found, and kept to itself, by Task.checked_data.
    for what, tensor in (("inputs", values), ("target", wanted)) if name != "test" else ():
        found = not_finite(tensor)
        if found:
            place = (~torch.isfinite(tensor[found[1]])).nonzero()[0].tolist()
            raise DataError(
                f"In the {name} {what} there are {found[0]} NaN or infinite values, the first in "
                f"sample {found[1]} at {place} (counted from 0; values above 3.4e38 are infinite "
                "in float32). Clean or fill them first."
            )
    return Split((values,), wanted)


def _array(values: Any, what: str) -> NDArray[Any]:
    """Return a copy as a NumPy array of the machine's byte order."""
    if isinstance(values, Tensor):
        if values.layout != torch.strided:
            raise DataError(f"The {what} are a sparse tensor. Give {what}.to_dense().")
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values
        copied: NDArray[Any] = values.numpy().copy()
        return copied
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise DataError(
            f"The {what} are a masked array with masked values. Fill them first: .filled(...)."
        )
    try:
        array = np.array(values)
    except (ValueError, TypeError) as error:
        raise DataError(f"The {what} cannot be made an array: {error}.") from None
    if array.ndim == 0:
        raise DataError(
            f"The {what} were given as {type(values).__name__}; expected a NumPy array or a tensor "
            "whose first axis counts samples."
        )
    if array.size == 0:
        raise DataError(
            f"The {what} cannot be empty: shape {list(array.shape)}. Give some samples."
        )
    return array.astype(array.dtype.newbyteorder("="))


def _input_tensor(values: Any, name: str) -> Tensor:
    what = f"{name} inputs"
    array = _array(values, what)
    if array.dtype.kind not in "fiub":
        raise DataError(
            f"The {what} have dtype {array.dtype}; expected float32, uint8, or int64 for indices. "
            "Turn texts and mixed columns into numbers first; the task tabular does it for tables."
        )
    if array.ndim < 2:
        raise DataError(
            f"The {what} have shape {list(array.shape)}; expected [samples, ...], at least two "
            "axes. For one number a sample give inputs[:, None]."
        )
    if array.dtype.kind == "b":
        return torch.from_numpy(array.astype(np.uint8))
    if array.dtype in (np.uint32, np.uint64):
        raise DataError(
            f"The {what} have dtype {array.dtype}. Give int64 for indices, float32 for numbers."
        )
    if array.dtype == np.uint16:
        return torch.from_numpy(array.astype(np.int32))
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what overflows is infinite, and is said to be
            return torch.from_numpy(array.astype(np.float32))
    return torch.from_numpy(array)


def _labels(target: Any, names: tuple[str, ...], own_loss: bool) -> Labels:
    """Find classes or numbers in the training target."""
    array = _array(target, "target")
    if len(set(names)) != len(names):
        raise DataError(f"The class names {list(names)[:10]} hold a name twice.")
    kind = array.dtype.kind
    if kind in "US":
        return Labels(names or tuple(str(text) for text in np.unique(array)), texts=True)
    if kind == "b":
        return Labels(names or ("False", "True"), texts=False)
    if kind == "f":
        _expect_regression(array, names, own_loss)
        return Labels((), texts=False)
    if kind not in "iu":
        raise DataError(
            f"The target has dtype {array.dtype}; expected whole numbers, True and False or texts "
            "for classes, floats for regression. Mixed values become texts by astype(str)."
        )
    return Labels(names or _numbered(array), texts=False)


def _expect_regression(array: NDArray[Any], names: tuple[str, ...], own_loss: bool) -> None:
    if names:
        raise DataError(
            f"Class names were given, and the target holds floats ({array.dtype}). Give class "
            "numbers: target.astype('int64')."
        )
    values = np.unique(array)
    if not own_loss and len(values) <= FEW_VALUES and np.array_equal(values, np.round(values)):
        shown = ", ".join(f"{v:g}" for v in values[:MOST_NAMED])
        raise DataError(
            f"The target holds floats, and only {len(values)} whole values ({shown}). For classes "
            "give target.astype('int64'); to predict these as numbers say so by "
            "loss=torch.nn.functional.mse_loss."
        )
    if len(values) == 1:
        raise DataError("All values of the target are the same: there is nothing to predict.")


def _numbered(array: NDArray[Any]) -> tuple[str, ...]:
    """Return "0", "1", ... for class numbers without names, all of which must occur."""
    found = np.unique(array)
    low, high = int(found[0]), int(found[-1])
    if low < 0:
        raise DataError(
            f"The target holds negative class numbers, down to {low}; expected 0, 1, 2 and so on. "
            "For regression give floats."
        )
    if high + 1 != len(found):
        lacking = next(n for n in range(len(found) + 1) if n not in found)
        raise DataError(
            f"The target holds {len(found)} different class numbers from {low} to {high}, and no "
            f"sample of class {lacking}. Number the classes from 0 without gaps (np.unique(target, "
            "return_inverse=True)[1] does it), or give class_names for all of them."
        )
    return tuple(str(number) for number in range(high + 1))


def _target_tensor(target: Any, name: str, labels: Labels) -> Tensor:
    array = _array(target, f"{name} target")
    if not labels.names:
        if array.dtype.kind not in "fiub":
            raise DataError(f"The {name} target has dtype {array.dtype}; training has floats.")
        with np.errstate(over="ignore"):
            values = torch.from_numpy(array.astype(np.float32))
        return values.unsqueeze(1) if values.dim() == 1 else values
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(
            f"The {name} target has shape {list(array.shape)}; expected [samples], one class a "
            "sample. From one-hot rows give target.argmax(1); for one class at each position write "
            "a whit.Task with output_axes=2."
        )
    if labels.texts:
        return _numbers_of_texts(array, name, labels.names)
    if array.dtype.kind not in "iub":
        raise DataError(
            f"The {name} target has dtype {array.dtype}; training has class numbers. Give int64."
        )
    numbers = torch.from_numpy(array.astype(np.int64))
    if name != "test" and bool(((numbers < 0) | (numbers >= len(labels.names))).any()):
        raise DataError(
            f"The {name} target holds class numbers {int(numbers.min())} to {int(numbers.max())}; "
            f"expected 0 to {len(labels.names) - 1}, since there are {len(labels.names)} classes."
        )
    return numbers


def _numbers_of_texts(array: NDArray[Any], name: str, names: tuple[str, ...]) -> Tensor:
    known = {text: number for number, text in enumerate(names)}
    texts = [str(text) for text in array.tolist()]
    unknown = sorted({text for text in texts if text not in known})
    if unknown and name != "test":
        shown = ", ".join(repr(text) for text in unknown[:MOST_NAMED])
        raise DataError(
            f"The {name} target holds {shown}, and the classes are "
            f"{', '.join(names[:10])}. Correct the names, or give class_names that hold all."
        )
    # -1 is out of range: Task.checked_data refuses a test split with it, and says no more.
    return torch.tensor([known.get(text, -1) for text in texts])


def _check_classes(target: Tensor, labels: Labels) -> None:
    if labels.names and len(torch.unique(target)) == 1:
        raise DataError(
            f"The target holds one class only, '{labels.names[int(target[0])]}': there is nothing "
            "to tell apart. Give samples of at least two classes."
        )
