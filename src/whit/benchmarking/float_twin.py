"""The float32 network that a user would run instead of a packed one: same shapes, ordinary layers.

A packed network whose weights and values are all float32 is its own twin. Of any other, the twin
has the same matrices, convolutions, pools and sums in the same places, but float32 weights, ReLU
where the packed network rounds (signs, thresholds, levels, requantising to numbers from 0 up), and
nothing where it merely changes the width of numbers. Batch norm is folded: the twin has a bias
instead, so it is never slower for it. Its weights are the decoded ones, scaled so that values
neither grow nor vanish from layer to layer; speed does not depend on them. It is no network that
anybody trained: it says nothing of quality.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whit.errors import ArtifactError, WhitError
from whit.runtime import Program, decode_program
from whit.runtime.artifact import build_artifact
from whit.runtime.data_section import DataWriter
from whit.runtime.layout import BYTE, CHANNEL, FEATURE, FLOAT, INTEGER, NONE, SCALAR, ProgramHeader
from whit.runtime.operators import (
    OPERATOR_CODES,
    Affine,
    Conv2d,
    Embedding,
    Flatten,
    Levels,
    Linear,
    Lookup,
    Member,
    Normalize,
    Operator,
    Pad2d,
    Quantize,
    Relu,
    Requantize,
    Reshape,
    Route,
    Sign,
    Threshold,
    Transpose,
)
from whit.runtime.program import Step
from whit.runtime.storage import FORMATS
from whit.runtime.weights import StoredWeight

Floats = NDArray[np.float32]

_FLOAT32 = next(form for form in FORMATS.values() if form.name == "float32")
_ROUNDINGS = (Sign, Threshold, Levels)
_STRAIGHT = 1e-3  # a table that differs from a line by less, as a share of its span, is a scaling
_SMALLEST = 1e-20  # values below become denormal numbers soon, which processors handle slowly


class NoTwin(WhitError):
    """A packed network has no float32 network of ordinary layers beside it."""


@dataclass(frozen=True)
class FloatTwin:
    """A float32 network with the shapes of a packed one.

    Attributes:
        program: the twin, itself a program whose operators are all float32.
        same: whether it computes what the packed network computes, up to float rounding.
        replaced: how many operators of each kind were replaced or left out.
    """

    program: Program
    same: bool
    replaced: dict[str, int]

    @property
    def weight_bytes(self) -> int:
        """Bytes of its weights and constants, as float32."""
        return sum(operator.stored_bytes for operator in self.program.operators)


def float_twin(program: Program) -> FloatTwin:
    """Return the float32 network that a user would run instead of a packed one.

    Raises:
        NoTwin: an operator has no counterpart among ordinary layers.
    """
    builder = _Builder(program)
    for number in range(len(program.steps)):
        builder.add(number)
    twin = builder.finished()
    _check_values(twin)
    same = not builder.rounded and not builder.replaced["padding"]
    return FloatTwin(twin, same, dict(builder.replaced))


@dataclass
class _Placed:
    operator: Operator
    source: int
    other: int = 0


@dataclass
class _Builder:
    """Writes the steps of the twin; `place` says where the values of the program went."""

    program: Program
    placed: list[_Placed] = field(default_factory=list)
    place: dict[int, int] = field(default_factory=lambda: {0: 0})
    replaced: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Look at the whole program first: who reads a value, and whether anything is rounded."""
        self.readers = Counter(
            value
            for step in self.program.steps
            for value in (
                (step.source, step.other) if step.operator.inputs == 2 else (step.source,)
            )
        )
        self.rounded = any(_is_rounding(step) for step in self.program.steps)

    def add(self, number: int) -> None:
        """Write what stands for one step of the program."""
        step = self.program.steps[number]
        operator, source = step.operator, self.place[step.source]
        other = self.place[step.other] if operator.inputs == 2 else 0
        if isinstance(operator, Member | Route):
            raise NoTwin(
                "it chooses among member networks for each sample, which no network of ordinary "
                "layers does"
            )
        if isinstance(operator, Linear | Conv2d | Embedding):
            written: Operator | None = self._matrix(operator, step)
        elif isinstance(operator, Affine) and self._folded(operator, step):
            self.place[number + 1] = source
            return
        else:
            written = self._other(operator, step)
        if written is None or (isinstance(written, Relu) and self._is_relu(source)):
            self.place[number + 1] = source
            return
        self.placed.append(_Placed(written, source, other))
        self.place[number + 1] = len(self.placed)

    def finished(self) -> Program:
        """Return the twin as a program."""
        source = self.program.input
        last = self.place[len(self.program.steps)]
        if last != len(self.placed) or not self.placed:
            raise NoTwin("it computes nothing that an ordinary layer computes")
        dtype = INTEGER if source.dtype == INTEGER else FLOAT
        low, high = source.range or (float("nan"), float("nan"))
        writer, records = DataWriter(), b""
        for step in self.placed:
            record = step.operator.write(writer)
            code = OPERATOR_CODES[step.operator.kind]
            record = replace(record, kind=code, source=step.source, other=step.other)
            records += record.to_bytes()
        header = ProgramHeader(
            len(self.placed), source.shape, dtype, low, high, self.program.leading
        )
        content = build_artifact(header.to_bytes() + records, writer.to_bytes(), {})
        try:
            return decode_program(content, backend="reference")
        except ArtifactError as error:
            raise NoTwin(f"its float32 twin is no network ({error})") from error

    def _matrix(self, operator: Linear | Conv2d | Embedding, step: Step) -> Operator:
        weight = operator.weight
        if weight.form.name != "float32":
            self.replaced[f"weights ({weight.form.name})"] += 1
        values = _decoded(weight)
        if self.rounded:
            size = float(np.sqrt(np.mean(np.square(values)))) or 1.0
            gain = 1.0 if isinstance(operator, Embedding) else np.sqrt(2 / weight.columns)
            values = (values * np.float32(gain / size)).astype(np.float32)
        stored = StoredWeight(_FLOAT32, values, taps=weight.taps)
        if isinstance(operator, Embedding):
            return replace(operator, weight=stored)
        bias = operator.bias
        if self.rounded:  # a float network has a bias where this one has thresholds
            bias = np.zeros(weight.rows, dtype=np.float32)
        if isinstance(operator, Conv2d):
            if operator.pad_value:
                self.replaced["padding"] += 1
            return replace(operator, weight=stored, bias=bias, pad_value=0)
        return replace(operator, weight=stored, bias=bias)

    def _other(self, operator: Operator, step: Step) -> Operator | None:
        if _is_rounding(step):
            self.replaced[operator.kind] += 1
        if isinstance(operator, _ROUNDINGS):
            return Relu()
        if isinstance(operator, Quantize | Requantize):
            return Relu() if operator.low >= 0 and not self._from_input(step) else None
        if isinstance(operator, Lookup):
            return _line(operator.table) if self._from_input(step) else None
        if isinstance(operator, Pad2d) and operator.value and step.result.domain != FLOAT:
            self.replaced["padding"] += 1
            return replace(operator, value=0.0)
        return operator

    def _folded(self, operator: Affine, step: Step) -> bool:
        """Fold a scale and a shift into the matrix before, where nothing else reads its result."""
        source = self.place[step.source]
        before = self.program.steps[step.source - 1] if step.source else None
        if before is None or self.readers[step.source] != 1:
            return False
        matrix = self.placed[source - 1].operator
        if not isinstance(before.operator, Linear | Conv2d) or before.operator.kind != matrix.kind:
            return False
        one_axis = len(before.result.shape) == 1
        allowed = {NONE, SCALAR}
        if one_axis or isinstance(matrix, Conv2d):  # a channel is a row of the matrix there
            allowed |= {CHANNEL, FEATURE} if one_axis else {CHANNEL}
        if {operator.scale_granularity, operator.shift_granularity} - allowed:
            return False
        assert isinstance(matrix, Linear | Conv2d)
        self.placed[source - 1].operator = _scaled(matrix, operator)
        return True

    def _is_relu(self, source: int) -> bool:
        return source > 0 and isinstance(self.placed[source - 1].operator, Relu)

    def _from_input(self, step: Step) -> bool:
        """Say whether a step reads the raw input, moved about at most."""
        number = step.source
        while number:
            before = self.program.steps[number - 1]
            if not isinstance(before.operator, Flatten | Reshape | Transpose | Pad2d):
                return False
            number = before.source
        return True


def _is_rounding(step: Step) -> bool:
    kinds = (*_ROUNDINGS, Quantize, Requantize, Lookup)
    return isinstance(step.operator, kinds)


def _decoded(weight: StoredWeight) -> Floats:
    return weight.values.astype(np.float32) * (
        weight.scale.reshape(-1, 1) if weight.scale.size else np.float32(1)
    )


def _scaled(matrix: Linear | Conv2d, operator: Affine) -> Linear | Conv2d:
    rows = matrix.weight.rows
    scale = np.ones(1, np.float32) if operator.scale is None else operator.scale
    shift = np.zeros(1, np.float32) if operator.shift is None else operator.shift
    bias = np.zeros(rows, np.float32) if matrix.bias is None else matrix.bias
    if isinstance(operator, Normalize):
        scale = np.float32(1) / scale
        bias = (bias - shift) * scale
    else:
        bias = bias * scale + shift
    values = matrix.weight.values * scale.reshape(-1, 1)
    weight = replace(matrix.weight, values=values.astype(np.float32))
    return replace(matrix, weight=weight, bias=np.broadcast_to(bias, rows).astype(np.float32))


def _line(table: Floats) -> Affine | None:
    """Return the scale and shift that a table of raw bytes stands for."""
    if table.size < 2:
        return None
    scale, shift = np.polyfit(np.arange(table.size), table.astype(np.float64), 1)
    apart = np.abs(scale * np.arange(table.size) + shift - table).max()
    if apart > _STRAIGHT * (np.ptp(table) or 1):
        return None  # a curve before the first layer: left out, which only makes the twin faster
    factor, offset = (np.array([number], dtype=np.float32) for number in (scale, shift))
    return Affine(factor, offset, SCALAR, SCALAR)


def twin_inputs(twin: Program, inputs: NDArray[Any]) -> NDArray[Any]:
    """Return raw inputs of a packed network as its twin takes them: bytes as float32."""
    wanted = np.int32 if twin.input.dtype == INTEGER else np.float32
    return np.ascontiguousarray(inputs, dtype=wanted)


def drawn_inputs(program: Program, count: int, seed: int = 0) -> NDArray[Any]:
    """Return drawn samples within the range of a program's inputs, always the same.

    Args:
        program: the network.
        count: how many.
        seed: another one gives other samples.
    """
    generator = np.random.default_rng(seed)
    shape, known = (count, *program.input.shape), program.input.range
    if program.input.dtype == FLOAT:
        drawn = generator.normal(size=shape) if known is None else generator.uniform(*known, shape)
        return drawn.astype(np.float32)
    low, high = (0, 255) if known is None else (int(np.ceil(known[0])), int(known[1]))
    high = min([high, *(rows - 1 for rows in _embedded(program.steps))])
    dtype = np.uint8 if program.input.dtype == BYTE else np.int32
    return generator.integers(low, max(low, high) + 1, shape).astype(dtype)


def _embedded(steps: Sequence[Step]) -> list[int]:
    return [s.operator.weight.rows for s in steps if isinstance(s.operator, Embedding)]


def _check_values(twin: Program) -> None:
    """Refuse a twin whose values grow beyond float32 or vanish: it would be slow for no reason."""
    for step, value in zip(twin.steps, twin.trace(drawn_inputs(twin, 2)), strict=True):
        largest = float(np.abs(value).max(initial=0.0)) if value.dtype == np.float32 else 1.0
        if not np.isfinite(largest) or 0 < largest < _SMALLEST:
            raise NoTwin(f"the values of its float32 twin reach {largest:g} after {step.cost.name}")
