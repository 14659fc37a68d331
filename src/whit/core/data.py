"""Data in memory: training, validation and a sealed test split.

Inputs stay as they came (uint8 images stay uint8); batches are index selections, converted to
float32 when they are made. The normalisation belongs to the model (`parts.normalise`), so that a
packed file takes raw values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NoReturn, TypeVar

import torch
from torch import Tensor

from whit.errors import DataError, TestDataSealed

GATHERED_BATCHES = 64

AnyData = TypeVar("AnyData", bound="Data")
AnyVector = TypeVar("AnyVector", bound="VectorData")
Augment = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Batch:
    """Some samples: `model(*inputs)` is compared with `target`; `index` is each sample's number.

    Shapes: each of `inputs` is [batch, ...] (but for a graph's whole tensors, which come last),
    `target` is [batch, ...], `index` is [batch].
    """

    inputs: tuple[Tensor, ...]
    target: Tensor
    index: Tensor


@dataclass(frozen=True)
class Split:
    """Samples with their targets.

    Attributes:
        inputs: tensors whose first axis counts samples; selected per batch.
        target: [samples, ...]; int64 classes or float32 values.
        shared: whole tensors given to the model after the inputs (a graph's features and edges).
    """

    inputs: tuple[Tensor, ...]
    target: Tensor
    shared: tuple[Tensor, ...] = ()

    def __post_init__(self) -> None:
        """Check that inputs and target count the same samples."""
        lengths = {len(t) for t in self.inputs} | {len(self.target)}
        if not self.inputs or len(lengths) != 1 or 0 in lengths:
            raise DataError(
                f"A split has inputs of {[len(t) for t in self.inputs]} samples and a target of "
                f"{len(self.target)}: all must count the same samples, at least one."
            )

    def __len__(self) -> int:
        return len(self.target)

    def batch(self, index: Tensor) -> Batch:
        """Return the samples with these numbers; small integers and halves become float32.

        Args:
            index: int64 [batch], or [members, batch] for members with their own samples.
        """
        return next(self.batches(index, index.shape[-1]))

    def batches(self, order: Tensor, size: int) -> Iterator[Batch]:
        """Yield the samples in this order, `size` at a time; a smaller rest is left out.

        Samples are gathered for many batches at once, which costs less than one by one.

        Args:
            order: int64 [samples], or [members, samples].
            size: samples a batch, >= 1.
        """
        axis, used = order.dim() - 1, order.shape[-1] // size * size
        for first in range(0, used, size * GATHERED_BATCHES):
            numbers = order.narrow(axis, first, min(size * GATHERED_BATCHES, used - first))
            inputs = [_selected(t, numbers) for t in self.inputs]
            target = _selected(self.target, numbers)
            for start in range(0, numbers.shape[-1], size):
                chosen = (_as_model_input(t.narrow(axis, start, size)) for t in inputs)
                yield Batch(
                    (*chosen, *self.shared),
                    target.narrow(axis, start, size),
                    numbers.narrow(axis, start, size),
                )

    def raw_example(self, count: int) -> tuple[Tensor, ...]:
        """Return the first samples as a packed file takes them: bytes stay bytes.

        All else is as `batch` gives it to a model. Shapes: [min(count, len), ...] each.
        """
        inputs = self.batch(torch.arange(min(count, len(self)))).inputs
        given = [*self.inputs, *self.shared]
        return tuple(
            raw[:count] if raw.dtype == torch.uint8 else taken
            for raw, taken in zip(given, inputs, strict=True)
        )

    def map(self, function: Callable[[Tensor], Tensor]) -> Split:
        """Return the split with a function applied to each input tensor."""
        return replace(self, inputs=tuple(function(t) for t in self.inputs))

    def subset(self, index: Tensor) -> Split:
        """Return the split with only these samples, in this order."""
        return replace(
            self,
            inputs=tuple(t.index_select(0, index) for t in self.inputs),
            target=self.target.index_select(0, index),
        )

    def copied(self) -> Split:
        """Return the split with tensors of its own."""
        return Split(
            tuple(t.clone() for t in self.inputs),
            self.target.clone(),
            tuple(t.clone() for t in self.shared),
        )

    def to(self, device: torch.device) -> Split:
        """Return the split with all tensors on a device."""
        return Split(
            tuple(t.to(device) for t in self.inputs),
            self.target.to(device),
            tuple(t.to(device) for t in self.shared),
        )


def _selected(tensor: Tensor, index: Tensor) -> Tensor:
    if index.dim() == 1:
        return tensor.index_select(0, index)
    chosen = tensor.index_select(0, index.flatten())
    return chosen.reshape(*index.shape, *tensor.shape[1:])


def _as_model_input(tensor: Tensor) -> Tensor:
    # int64 inputs are indices (tokens, node numbers) and stay; small integers are raw measurements.
    return tensor if tensor.dtype == torch.int64 else tensor.to(torch.float32)


class SealedSplit:
    """Stands where the test split was; remembers what was done to the data, and shows nothing."""

    def __init__(self, transforms: tuple[Callable[[Split], Split], ...] = ()) -> None:
        """Keep the transforms that `opened` will apply to the true split."""
        self._transforms = transforms

    def _refuse(self) -> NoReturn:
        raise TestDataSealed(
            "The test split was read while training or preparing. It is sealed: only the final "
            "measurement reads it. Use data.train or data.valid."
        )

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse()

    def __len__(self) -> int:
        self._refuse()

    def __iter__(self) -> NoReturn:
        self._refuse()

    def __getitem__(self, index: object) -> NoReturn:
        self._refuse()

    def then(self, transform: Callable[[Split], Split]) -> SealedSplit:
        """Return a sealed split that will also apply this when it is opened."""
        return SealedSplit((*self._transforms, transform))

    def opened(self, split: Split) -> Split:
        """Apply all recorded transforms to the true split (called by `execute` alone).

        They see the inputs, and zeros where the targets are.

        Raises:
            DataError: a transform changed the number of test samples.
        """
        hidden = replace(split, target=torch.zeros_like(split.target))
        for transform in self._transforms:
            hidden = transform(hidden)
        if len(hidden) != len(split):
            raise DataError(
                f"prepare_data left {len(hidden)} of {len(split)} test samples. A transform of the "
                "data must keep all samples of the test split, in their order."
            )
        return replace(hidden, target=split.target)


@dataclass(frozen=True)
class Data:
    """Three splits and what describes them; one of the four kinds below.

    Attributes:
        train: the samples to learn from.
        valid: the samples to choose by.
        test: the samples to report; sealed (`SealedSplit`) wherever a technique can see it.
        class_names: names in label order; empty when the target is not a class.
        output_size: how many numbers the model gives per output position.
        augment: batched tensor code `(inputs, generator) -> inputs` applied to the first input
            of each training batch, or None.
        input_range: lowest and highest raw input value, if known.
    """

    train: Split
    valid: Split
    test: Split | SealedSplit
    class_names: tuple[str, ...] = ()
    output_size: int = 0
    augment: Augment | None = field(default=None, compare=False)
    input_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Fill `output_size` from the class names."""
        if self.output_size == 0:
            object.__setattr__(self, "output_size", len(self.class_names))
        if self.output_size <= 0:
            raise DataError(
                "The data has neither class names nor an output size. Give "
                "class_names=('low', 'high') for classes, or output_size=1 for one number a sample."
            )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample's first input, without the batch axis."""
        return tuple(self.train.inputs[0].shape[1:])

    def map(self: AnyData, function: Callable[[Tensor], Tensor]) -> AnyData:
        """Apply a function to the input tensors of all splits; of a sealed test split, later."""
        return self.map_splits(lambda split: split.map(function))

    def map_splits(self: AnyData, transform: Callable[[Split], Split]) -> AnyData:
        """Apply a function to all three splits; to a sealed test split, when it is opened."""
        test = (
            self.test.then(transform)
            if isinstance(self.test, SealedSplit)
            else transform(self.test)
        )
        return replace(self, train=transform(self.train), valid=transform(self.valid), test=test)

    def sealed(self: AnyData) -> AnyData:
        """Return the data as techniques may see it: the test split cannot be read."""
        return replace(self, test=SealedSplit())

    def checksum(self) -> str:
        """Return a SHA-256 of all tensors of the splits that can be read, as 16 hex digits."""
        digest = hashlib.sha256()
        for split in (self.train, self.valid, self.test):
            if isinstance(split, Split):
                for tensor in (*split.inputs, split.target, *split.shared):
                    digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
                    digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class VectorData(Data):
    """Samples are vectors: inputs [samples, features].

    Attributes:
        feature_names: one name for each feature, in order; empty when they are not known.
    """

    feature_names: tuple[str, ...] = ()

    def map_splits(self: AnyVector, transform: Callable[[Split], Split]) -> AnyVector:
        """Apply a function to all three splits, as `Data.map_splits` does.

        A transform that changes the number of features leaves them without names.
        """
        mapped = super().map_splits(transform)
        same = mapped.input_shape == self.input_shape
        return mapped if same else replace(mapped, feature_names=())


@dataclass(frozen=True)
class ImageData(Data):
    """Samples are images: inputs [samples, channels, height, width]."""


@dataclass(frozen=True)
class SequenceData(Data):
    """Samples are sequences: inputs [samples, time, ...]."""


@dataclass(frozen=True)
class GraphData(Data):
    """Samples are nodes of one graph: inputs (node numbers [samples],), shared (features, edges).

    `shared` is (features float32 [nodes, width], edges int64 [2, edges]); all splits share them,
    and only the targets of the test nodes are sealed.
    """
