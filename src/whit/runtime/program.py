"""A packed network that predicts: NumPy in, NumPy out, no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whit.errors import ArtifactError, WhitError
from whit.runtime.artifact import Artifact, parse_artifact, read_artifact
from whit.runtime.backends import choose_binary_gemm
from whit.runtime.costs import OperatorCost, count_cost
from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.layout import FLOAT, Activation, Record, parse_header, parse_records
from whit.runtime.operators import OPERATOR_CODES, OPERATORS, Operator
from whit.runtime.operators.contract import to_float

_CHUNK_BYTES = 8 << 20
RESERVED_INFO = ("labels", "backend", "threads", "format_version")


@dataclass(frozen=True)
class InputDescription:
    """What a program expects: shape without the batch axis, dtype name, range of raw values."""

    shape: tuple[int, ...]
    dtype: str
    range: tuple[float, float] | None


@dataclass(frozen=True)
class _Step:
    operator: Operator
    result: Activation
    cost: OperatorCost


class Program:
    """A network read from a .whit file; call it with a batch.

    Attributes:
        input: what it expects (shape, dtype, range).
        output_shape: shape of one sample's output.
        labels: class names, empty when the file names none.
        info: task, spec and provenance as the file states them; the backend taken.
        operators: one cost record per operator.
        backend: "native" or "reference", whichever was taken.
        threads: threads that the native kernels may use.
    """

    def __init__(self, artifact: Artifact, backend: str = "auto", threads: int = 1) -> None:
        """Decode and check a whole file; see ``load`` for the arguments."""
        header = parse_header(artifact.program)
        known = None if np.isnan(header.low) else (header.low, header.high)
        self.input = InputDescription(header.shape, header.dtype, known)
        self._steps = _decode(artifact, Activation(header.shape, header.dtype))
        self.labels: tuple[str, ...] = split_labels(artifact.metadata.get("labels", ""))
        self.backend, self._product = choose_binary_gemm(backend, threads)
        self.threads = threads
        texts = {name: text for name, text in artifact.metadata.items() if name != "labels"}
        texts |= {"format_version": "1", "backend": self.backend, "threads": str(threads)}
        self.info: Mapping[str, str] = MappingProxyType(texts)
        scratch = 1
        source = self._source()
        for step in self._steps:
            bytes_moved = 4 * (source.elements + step.result.elements)
            scratch = max(scratch, bytes_moved + step.operator.scratch_bytes(source))
            source = step.result
        self._chunk = max(1, _CHUNK_BYTES // scratch)

    @property
    def operators(self) -> tuple[OperatorCost, ...]:
        """Return the cost record of each operator, in order."""
        return tuple(step.cost for step in self._steps)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Return the shape of one sample's output."""
        return self._steps[-1].result.shape if self._steps else self.input.shape

    @property
    def activation_peak_bytes(self) -> int:
        """Return the largest input plus output of any operator for one sample, in bytes."""
        return max((cost.activation_bytes for cost in self.operators), default=0)

    def __call__(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Predict a batch.

        Args:
            x: [batch, *input.shape], any batch size, numbers that fit ``input.dtype``.

        Returns:
            float32 [batch, *output_shape].

        Raises:
            WhitError: wrong shape, wrong dtype, NaN or infinite numbers.
        """
        batch = self._check(x)
        output = np.empty((batch.shape[0], *self.output_shape), dtype=np.float32)
        with np.errstate(all="ignore"):
            for start in range(0, batch.shape[0], self._chunk):
                value: NDArray[Any] = batch[start : start + self._chunk]
                for step in self._steps:
                    value = step.operator.run(value, self._product)
                output[start : start + self._chunk] = to_float(value)
        return output

    def trace(self, x: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the output of every operator for a batch, signs as booleans (True is -1)."""
        values: list[NDArray[Any]] = [self._check(x)]
        with np.errstate(all="ignore"):
            for step in self._steps:
                values.append(step.operator.run(values[-1], self._product))
        return values[1:]

    def _source(self) -> Activation:
        return Activation(self.input.shape, self.input.dtype)

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
        if self.input.dtype == FLOAT:
            if x.dtype.kind not in "fiu":
                raise WhitError(f"the input has dtype {x.dtype}, expected float32 or integers")
            with np.errstate(over="ignore"):
                x = x.astype(np.float32, copy=False)
            if not np.isfinite(x).all():
                raise WhitError("the input holds NaN or infinite numbers; give finite ones")
            return x
        if x.dtype.kind not in "iu" or (x.size and (x.min() < 0 or x.max() > 255)):
            raise WhitError(f"the input has dtype {x.dtype}, expected integers from 0 to 255")
        return x.astype(np.uint8, copy=False)


def load(path: str | Path, backend: str = "auto", threads: int = 1) -> Program:
    """Load a .whit file.

    Args:
        path: the file.
        backend: "native" (compiled kernels), "reference" (NumPy), or "auto": native where it is
            available, else reference; ``info["backend"]`` says which was taken.
        threads: threads that the native kernels may use, at least 1.

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


def join_labels(labels: Sequence[str]) -> str:
    """Join labels behind a separator that none of them holds; it is also the first character.

    Raises:
        WhitError: the labels use up every separator.
    """
    if not labels:
        return ""
    for separator in ",;|\t\n\x1f":
        if not any(separator in label for label in labels):
            return "".join(separator + label for label in labels)
    raise WhitError("the labels hold every separator , ; | tab newline; simplify one of them")


def split_labels(text: str) -> tuple[str, ...]:
    """Undo ``join_labels``."""
    return tuple(text[1:].split(text[0])) if text else ()


def _decode(artifact: Artifact, source: Activation) -> list[_Step]:
    reader, writer = DataReader(artifact.data), DataWriter()
    steps: list[_Step] = []
    try:
        for index, record in enumerate(parse_records(artifact.program)):
            begin = reader.position
            operator = _read_operator(index, record, reader, source)
            result = operator.result(source)
            _check_canonical(index, record, operator, writer)
            cost = count_cost(index, operator, source, result, reader.position - begin)
            steps.append(_Step(operator, result, cost))
            source = result
    except MemoryError as error:
        raise ArtifactError("the program asks for more memory than there is") from error
    reader.finish()
    if writer.to_bytes() != artifact.data:
        raise ArtifactError("the data tensor is not in its canonical form")
    return steps


def _read_operator(index: int, record: Record, reader: DataReader, source: Activation) -> Operator:
    kind = OPERATORS.get(record.kind)
    if kind is None:
        raise ArtifactError(f"record {index} has the unknown operator {record.kind}")
    return kind.read(record, reader, source)


def _check_canonical(index: int, record: Record, operator: Operator, writer: DataWriter) -> None:
    """Write the operator again: unused fields that are not 0 cannot survive."""
    written = operator.write(writer)
    code = OPERATOR_CODES[operator.kind]
    if replace(written, kind=code, source=index) != record:
        raise ArtifactError(f"record {index} ({operator.kind}) holds values it does not use")
