"""A packed network that predicts: NumPy in, NumPy out, no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whit.errors import ArtifactError, WhitError
from whit.runtime.artifact import Artifact, parse_artifact, read_artifact
from whit.runtime.backends import choose_backend
from whit.runtime.costs import OperatorCost
from whit.runtime.decoding import Step, decode_steps
from whit.runtime.execution import Machine, RunCounts, live_sums, make_schedule
from whit.runtime.labels import join_labels, split_labels
from whit.runtime.layout import FLOAT, INTEGER_RANGES, Activation, parse_header
from whit.runtime.operators import Operator
from whit.runtime.operators.contract import NUMPY_DTYPES, to_float

__all__ = [
    "RESERVED_INFO",
    "InputDescription",
    "Program",
    "Step",
    "decode_program",
    "join_labels",
    "load",
    "split_labels",
]

MAX_PLANES = 16
_CHUNK_BYTES = 8 << 20
RESERVED_INFO = ("labels", "backend", "threads", "format_version", "isa")


@dataclass(frozen=True)
class InputDescription:
    """What a program expects: shape without the batch axis, dtype name, range of raw values."""

    shape: tuple[int, ...]
    dtype: str
    range: tuple[float, float] | None


class Program:
    """A network read from a .whit file; call it with a batch.

    Attributes:
        input: what it expects (shape, dtype, range).
        leading: 1 where the first axis of a sample's output counts members and stands before the
            batch axis in what a call returns, else 0.
        steps: the operators at their places in the graph, in an order in which they can run.
        labels: class names, empty when the file names none.
        info: task, spec and provenance as the file states them; the backend taken, its threads,
            and of the native one its instruction set ("isa").
        backend: "native" (C++) or "reference" (NumPy), whichever was taken.
        threads: threads that a native call may use.
    """

    def __init__(self, artifact: Artifact, backend: str = "auto", threads: int = 1) -> None:
        """Decode and check a whole file; see ``load`` for the arguments."""
        header = parse_header(artifact.program)
        known = None if np.isnan(header.low) else (header.low, header.high)
        self.input = InputDescription(header.shape, header.dtype, known)
        self.leading = header.leading
        self.steps, scope = decode_steps(artifact, header)
        self._schedule = make_schedule(self.steps, scope)
        self.labels: tuple[str, ...] = split_labels(artifact.metadata.get("labels", ""))
        self.backend, self.threads = choose_backend(backend, threads), threads
        self._native: Any = None
        native_set = {}
        if self.backend == "native":
            from whit.runtime import native

            self._native = native.program(artifact.content, threads)
            native_set = {"isa": native.isa()}
        self._dtype = np.dtype(NUMPY_DTYPES[self.input.dtype])
        self._input_shape, self._axes = self.input.shape, len(self.input.shape) + 1
        texts = {name: text for name, text in artifact.metadata.items() if name != "labels"}
        version = str(header.version)
        texts |= {"format_version": version, "backend": self.backend, "threads": str(threads)}
        texts |= native_set
        self.info: Mapping[str, str] = MappingProxyType(texts)
        self._chunk = max(1, _CHUNK_BYTES // self._scratch_bytes())
        self._operators = tuple(step.operator for step in self.steps)
        self._output_shape = self.output_shape
        self._narrowed: dict[int, tuple[Operator, ...]] = {}

    @property
    def operators(self) -> tuple[OperatorCost, ...]:
        """Return the cost record of each operator, in order; those inside members included."""
        return tuple(step.cost for step in self.steps)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Return the shape of one sample's output."""
        return self.steps[-1].result.shape if self.steps else self.input.shape

    @property
    def activation_peak_bytes(self) -> int:
        """Return the most bytes of one sample's values that exist at once.

        While an operator runs, these are its inputs, its output and what later operators still
        read, each number at its own width.
        """
        sums = live_sums(
            self.steps, self._schedule, self._source.stored_bytes, lambda value: value.stored_bytes
        )
        return max(sums.values(), default=0)

    def __call__(self, x: NDArray[Any], planes: int | None = None) -> NDArray[np.float32]:
        """Predict a batch.

        Args:
            x: [batch, *input.shape], any batch size, numbers that fit ``input.dtype``: finite
                ones for float32, integers 0..255 for uint8, integers for int32. NaN is refused
                here; where one arises inside of the network, every operator has its own rule.
            planes: use no more than so many of the highest bit planes of each weight stored as
                planes, 1 or more (more than there are: all): coarser weights, the other formats
                unchanged. None uses all.

        Returns:
            float32 [batch, *output_shape]; with ``leading`` 1 [members, batch, ...].

        Raises:
            WhitError: wrong shape, wrong dtype, NaN or infinite numbers, an index beyond an
                embedding, or planes is not a whole number from 1 up, or no weight has planes.
        """
        if planes is not None:
            self._check_planes(planes)
        if self._native is not None:
            return self._run_native(x, planes)
        machine = self._machine(planes)
        batch = self._check(x)
        output = np.empty((batch.shape[0], *self.output_shape), dtype=np.float32)
        with np.errstate(all="ignore"):
            for start in range(0, batch.shape[0], self._chunk):
                part = batch[start : start + self._chunk]
                output[start : start + self._chunk] = to_float(machine.run(self._schedule, part))
        return np.ascontiguousarray(output.swapaxes(0, 1)) if self.leading else output

    def trace(self, x: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the value that each step outside of members gives for a batch, by NumPy.

        Signs come as booleans (True is -1), whole numbers in the dtype of their domain.
        """
        values: list[NDArray[Any]] = []
        with np.errstate(all="ignore"):
            self._machine(None).run(self._schedule, self._check(x), values)
        return values

    def count_runs(self, x: NDArray[Any]) -> RunCounts:
        """Count which steps and situations the inputs of a batch run through, by NumPy."""
        counts = RunCounts()
        machine, batch = replace(self._machine(None), counts=counts), self._check(x)
        with np.errstate(all="ignore"):
            for start in range(0, batch.shape[0], self._chunk):
                machine.run(self._schedule, batch[start : start + self._chunk])
        return counts

    def _run_native(self, x: NDArray[Any], planes: int | None) -> NDArray[np.float32]:
        # A microsecond or two is the whole time of a small network: the usual input, an array of
        # the right kind, is checked in few steps.
        if type(x) is not np.ndarray or x.dtype != self._dtype or x.shape[1:] != self._input_shape:
            x = self._check(x)
        if not x.flags.c_contiguous or x.ndim != self._axes:
            x = np.ascontiguousarray(self._check(x))
        output = np.empty((len(x), *self._output_shape), np.float32)
        try:
            self._native.run(x, output, 0 if planes is None else _checked_planes(planes))
        except ValueError as error:
            raise WhitError(str(error)) from None
        return np.ascontiguousarray(output.swapaxes(0, 1)) if self.leading else output

    @property
    def _source(self) -> Activation:
        return Activation(self.input.shape, self.input.dtype)

    def _scratch_bytes(self) -> int:
        """Return the most temporary bytes of one sample, values included."""
        values = [self._source, *(step.result for step in self.steps)]
        sums = live_sums(
            self.steps, self._schedule, 4 * self._source.elements, lambda value: 4 * value.elements
        )
        extra = [step.operator.scratch_bytes(values[step.source]) for step in self.steps]
        return max((total + extra[index] for index, total in sums.items()), default=1)

    def _machine(self, planes: int | None) -> Machine:
        if planes is None:
            return Machine(self.steps, self._operators)
        count = _checked_planes(planes)
        if count not in self._narrowed:
            self._narrowed[count] = tuple(step.operator.narrowed(count) for step in self.steps)
        return Machine(self.steps, self._narrowed[count])

    def _check_planes(self, planes: int) -> None:
        _checked_planes(planes)
        if not any(step.cost.weight_format == "planes" for step in self.steps):
            raise WhitError(
                f"planes={planes} was given, and this network holds no weight stored as bit "
                "planes. Train with precision_batching(), or pack with force={'*': 'planes'} "
                "(on the command line --format '*=planes')."
            )

    def _check(self, x: NDArray[Any]) -> NDArray[Any]:
        x = np.asarray(x)
        expected = "[batch, " + ", ".join(str(size) for size in self.input.shape) + "]"
        if x.shape == self.input.shape:
            raise WhitError(
                f"the input has shape {list(x.shape)} without a batch axis, expected {expected}: "
                "give x[None] for a single sample"
            )
        if x.ndim == 0 or x.shape[1:] != self.input.shape:
            raise WhitError(f"the input has shape {list(x.shape)}, expected {expected}")
        return self._check_numbers(x)

    def _check_numbers(self, x: NDArray[Any]) -> NDArray[Any]:
        dtype = self.input.dtype
        if dtype == FLOAT:
            if x.dtype.kind not in "fiu":
                raise WhitError(f"the input has dtype {x.dtype}, expected float32 or integers")
            with np.errstate(over="ignore"):
                x = x.astype(np.float32, copy=False)
            if not np.isfinite(x).all():
                raise WhitError("the input holds NaN or infinite numbers; give finite ones")
            return x
        low, high = INTEGER_RANGES[dtype]
        if x.dtype.kind not in "iu" or (x.size and (x.min() < low or x.max() > high)):
            raise WhitError(
                f"the input has dtype {x.dtype}, expected integers from {low} to {high}"
            )
        return x.astype(NUMPY_DTYPES[dtype], copy=False)


def _checked_planes(planes: int) -> int:
    if isinstance(planes, bool) or not isinstance(planes, int | np.integer) or planes < 1:
        raise WhitError(f"planes is {planes!r}; give a whole number of 1 or more, or None")
    return min(int(planes), MAX_PLANES)


def load(path: str | Path, backend: str = "auto", threads: int = 1) -> Program:
    """Load a .whit file.

    Args:
        path: the file.
        backend: "native" (the whole network in C++), "reference" (NumPy), or "auto": native where
            it is available, else reference; ``info["backend"]`` says which was taken.
        threads: threads that one native call may use, at least 1.

    Raises:
        ArtifactError: the file is missing, damaged, of another version, or not a .whit file.
        WhitError: unknown backend, or native was asked for and is not available.
    """
    artifact = read_artifact(path)
    try:
        return Program(artifact, backend, threads)
    except ArtifactError as error:
        raise ArtifactError(f"{path} is not a valid .whit file: {error}") from error


def decode_program(content: bytes, backend: str = "auto", threads: int = 1) -> Program:
    """Decode the bytes of a .whit file; arguments and errors as in ``load``."""
    return Program(parse_artifact(content), backend, threads)
