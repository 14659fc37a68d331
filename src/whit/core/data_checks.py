"""What is often wrong in the data of a task, found and said in words before anything is trained."""

from __future__ import annotations

import torch
from torch import Tensor

from whit.core.data import Data, Split, VectorData
from whit.errors import TaskError

MOST_NAMED = 5


def check_data(data: object, task: str, cross_entropy: bool) -> Data:
    """Return the data of a task if they can be learnt from and measured.

    Training and validation samples are looked at and described. The test split is sealed: it is
    only asked whether it is valid (finite, classes in range, shapes and types of the training
    split), so that a bad label is found before hours of training, and the error says no more.

    Args:
        data: what the task's `load` returned.
        task: name of the task, for the message.
        cross_entropy: whether the loss needs class numbers as targets.

    Raises:
        TaskError: it is no `Data`, a value is not finite, a class number does not fit the class
            names, training shows one class only, validation holds a class that training lacks, or
            the splits differ in shape or type.
    """
    if not isinstance(data, Data) or not isinstance(data.test, Split):
        raise TaskError(
            f"Task '{task}': load returned {type(data).__name__}, expected VectorData, "
            "ImageData, SequenceData or GraphData with the splits train, valid and test."
        )
    classes = len(data.class_names) or (data.output_size if cross_entropy else 0)
    for name, split in (("train", data.train), ("valid", data.valid)):
        problem = _problem(name, split, classes, cross_entropy)
        if problem:
            raise TaskError(f"Task '{task}': {problem}")
    problem = _misfit(data.valid, data.train) or _unlearnable(data) or _misnamed(data)
    if problem:
        raise TaskError(f"Task '{task}': {problem}")
    test = data.test
    if _problem("test", test, classes, cross_entropy) or _misfit(test, data.train):
        raise TaskError(
            f"Task '{task}': the test split is not valid. Its shapes and types must be those of "
            "the training split, its class numbers in range and its values finite. No more is "
            "said, because its values are sealed: check it in load."
        )
    return data


def not_finite(values: Tensor) -> tuple[int, int] | None:
    """Return how many values are NaN or infinite and the first sample that has one, else None.

    Shapes: [samples, ...].
    """
    if not values.is_floating_point():
        return None
    bad = ~torch.isfinite(values)
    count = int(bad.sum())
    if count == 0:
        return None
    return count, int(bad.reshape(len(values), -1).any(1).nonzero()[0])


def named_classes(numbers: list[int], names: tuple[str, ...]) -> str:
    """Return class numbers with their names, at most five, for a message."""
    texts = [f"{n} ('{names[n]}')" if 0 <= n < len(names) else str(n) for n in numbers]
    rest = len(texts) - MOST_NAMED
    return ", ".join(texts[:MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _problem(name: str, split: Split, classes: int, cross_entropy: bool) -> str:
    """Describe what is wrong with one split by itself; "" if nothing is."""
    parts = [("inputs", t) for t in split.inputs] + [("target", split.target)]
    for what, tensor in [*parts, *(("shared tensors", t) for t in split.shared)]:
        found = not_finite(tensor)
        if found:
            return (
                f"the {name} {what} hold NaN or infinite values: {found[0]}, the first in sample "
                f"{found[1]} (counted from 0). Clean or fill them in load."
            )
    target = split.target
    if cross_entropy and target.dtype != torch.int64:
        return (
            f"the {name} target has dtype {target.dtype}, and cross_entropy expects class "
            "numbers: give target.long(), or another loss."
        )
    if classes and target.dtype == torch.int64:
        low, high = int(target.min()), int(target.max())
        if low < 0 or high >= classes:
            where = (target < 0) | (target >= classes)
            sample = int(where.reshape(len(target), -1).any(1).nonzero()[0])
            return (
                f"the {name} target holds class numbers {low} to {high}, and there are {classes} "
                f"class names; expected 0 to {classes - 1}. The first wrong one is in sample "
                f"{sample} (counted from 0)."
            )
    return ""


def _misfit(split: Split, train: Split) -> str:
    """Describe how a split differs from the training split in shape or type; "" if it does not."""
    found = [(str(t.dtype), list(t.shape[1:])) for t in (*split.inputs, split.target)]
    expected = [(str(t.dtype), list(t.shape[1:])) for t in (*train.inputs, train.target)]
    if found == expected:
        return ""
    return (
        f"a sample of the valid split (inputs, then target) is {found}, and of the train split "
        f"{expected}; expected the same types and shapes. Convert both in the same way in load."
    )


def _unlearnable(data: Data) -> str:
    """Describe classes that cannot be learnt or judged; "" if there are none."""
    if not data.class_names or data.train.target.dtype != torch.int64:
        return ""
    seen = set(torch.unique(data.train.target).tolist())
    if len(seen) == 1:
        return (
            "the train target holds one class only, "
            f"{named_classes(sorted(seen), data.class_names)}: there is nothing to tell apart. "
            "Give samples of at least two classes; sorted samples must be shuffled before they "
            "are split."
        )
    unseen = sorted(set(torch.unique(data.valid.target).tolist()) - seen)
    if unseen:
        return (
            "the valid split holds classes that the train split lacks: "
            f"{named_classes(unseen, data.class_names)}. Split so that every class is in train "
            "(whit.tasks.splits.stratified_split does), or leave those samples out."
        )
    return ""


def _misnamed(data: Data) -> str:
    """Describe feature names that do not fit the inputs; "" if they do."""
    if not isinstance(data, VectorData) or len(data.feature_names) in (0, data.input_shape[0]):
        return ""
    return (
        f"there are {len(data.feature_names)} feature names for {data.input_shape[0]} features. "
        "Give one name for each, or none."
    )
