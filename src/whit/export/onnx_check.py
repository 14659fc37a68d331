"""The check right after the export: ONNX Runtime against the NumPy runtime, on the same inputs.

Without QDQ patterns both must give the same results, but for numbers that lie on a threshold. A
pattern may be one step apart from the file, and steps add up towards the output: there every
operator is checked on what ONNX Runtime itself gave it, and the classes at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from whit.errors import MissingExtra, WhitError
from whit.export.onnx_build import INPUT, OUTPUT, Built
from whit.export.onnx_graph import Array, Value
from whit.export.onnx_model import with_outputs
from whit.runtime import Program
from whit.runtime.layout import FLOAT, SIGN
from whit.runtime.operators import Embedding, Route
from whit.runtime.operators.contract import to_float

if TYPE_CHECKING:
    import onnx

TOLERANCE = 1e-4  # of the largest output
NEAR_TIE = 0.02  # of the largest output, where QDQ patterns are a step apart
BORDERLINE_SHARE = 0.01  # samples that may fall the other way at a threshold
CLASS_SHARE = 0.02  # samples that may get another class where patterns are a step apart
DRAWN = 16
_CHUNK = 64
_INSIDE_CHUNK = 16  # where all intermediate values are kept


class Disagreement(WhitError):
    """ONNX Runtime computes something else than the packed network.

    Args:
        finding: what differs, and which operator.
        patterns: the file has QDQ patterns, so exact integers are a way out.
    """

    def __init__(self, finding: str, patterns: bool) -> None:
        self.finding, self.patterns = finding, patterns
        super().__init__(self.said("quantized='exact'"))

    def said(self, way: str) -> str:
        """Return the message.

        Args:
            way: how the caller is asked for exact integers.
        """
        first = f"Try {way}, another" if self.patterns else "Try another"
        return (
            f"{self.finding}. No file was written. {first} version of onnxruntime, or report this "
            "with the .whit file."
        )


@dataclass(frozen=True)
class Agreement:
    """How the outputs of both runtimes compare.

    Attributes:
        samples: inputs that were run.
        largest_difference: largest absolute difference of an output.
        same_classes: samples of the same class; None when there are no classes.
        near_ties: samples of another class whose two scores are almost equal.
        beyond: samples with an output beyond float rounding.
    """

    samples: int
    largest_difference: float
    same_classes: int | None
    near_ties: int
    beyond: int


@dataclass
class _Inside:
    """What the comparison of single operators found.

    Attributes:
        wrong: the first operator that computes something else.
        apart: for each QDQ pattern, how many of its numbers are one step apart, and of how many.
    """

    wrong: str | None = None
    apart: dict[str, tuple[int, int]] = field(default_factory=dict)


def drawn_inputs(program: Program) -> Array:
    """Return 16 drawn samples within the range of a program's inputs, always the same."""
    generator = np.random.default_rng(0)
    shape = (DRAWN, *program.input.shape)
    known, dtype = program.input.range, program.input.dtype
    if dtype == FLOAT:
        drawn = generator.normal(size=shape) if known is None else generator.uniform(*known, shape)
        return drawn.astype(np.float32)
    low, high = (0, 255) if known is None else (int(np.ceil(known[0])), int(known[1]))
    rows = [
        step.operator.weight.rows for step in program.steps if isinstance(step.operator, Embedding)
    ]
    high = min([high, *(count - 1 for count in rows)])
    return generator.integers(low, max(low, high) + 1, shape).astype(dtype)


def session_of(model: bytes | Path) -> Any:
    """Return a session of ONNX Runtime on one thread of the CPU.

    Raises:
        MissingExtra: the package onnxruntime is not installed.
        WhitError: this version of it does not take the model.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("onnx", "onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the errors of onnxruntime have no class in common
        raise WhitError(
            f"onnxruntime {onnxruntime.__version__} does not take the model ({error}). Install a "
            "newer version, or report this with the .whit file."
        ) from error


def check(
    program: Program, built: Built, model: onnx.ModelProto, path: Path, samples: Array
) -> Agreement:
    """Run both and compare.

    Args:
        program: the network.
        built: its graph.
        model: the model that was written.
        path: where it was written.
        samples: raw inputs [batch, *program.input.shape].

    Raises:
        Disagreement: an operator computes something else; the message names the first one.
        WhitError: there is nothing to check on.
    """
    expected = program(samples)
    if not len(samples):
        raise WhitError("the export was given 0 inputs to check it on; give at least one")
    given = np.asarray(samples).astype(program.input.dtype)
    session = session_of(path)
    axis = 1 if program.leading else 0
    parts = [
        session.run([OUTPUT], {INPUT: given[start : start + _CHUNK]})[0]
        for start in range(0, len(given), _CHUNK)
    ]
    found = np.concatenate(parts, axis=axis)
    patterns = bool(built.merged)
    agreement, apart = _compare(
        np.moveaxis(expected, axis, 0), np.moveaxis(found, axis, 0), patterns
    )
    if patterns:
        inside = _look_inside(program, built, model, given)
        others = agreement.samples - agreement.near_ties - (agreement.same_classes or 0)
        too_many = others > max(1, int(CLASS_SHARE * len(given)))
        refused = agreement.same_classes is not None and too_many
    elif apart.any():
        inside = _look_inside(program, built, model, given[apart][:_CHUNK])
        allowed = max(1, int(BORDERLINE_SHARE * len(given)))
        refused = agreement.beyond > allowed or not _has_steps(program)
    else:
        return agreement
    if inside.wrong or refused:
        raise Disagreement(_finding(agreement, inside), patterns)
    return agreement


def _compare(
    expected: NDArray[np.float32], found: NDArray[np.float32], patterns: bool
) -> tuple[Agreement, NDArray[np.bool_]]:
    """Return the agreement, and which samples differ."""
    count = len(expected)
    rows, others = expected.reshape(count, -1), found.reshape(count, -1)
    same = (rows == others) | (np.isnan(rows) & np.isnan(others))
    with np.errstate(invalid="ignore"):
        differences = np.where(same, 0, np.abs(rows - others))
    differences = np.where(np.isnan(differences), np.inf, differences)
    size = float(np.abs(rows[np.isfinite(rows)]).max(initial=0))
    apart = differences.max(1, initial=0) > TOLERANCE * size
    classes, ties = None, 0
    if expected.ndim == 2 and expected.shape[1] > 1:
        other_class = rows.argmax(1) != others.argmax(1)
        chosen = np.take_along_axis(rows, others.argmax(1)[:, None], 1)[:, 0]
        tie = rows.max(1) - chosen <= (NEAR_TIE if patterns else TOLERANCE) * size
        classes, ties = int(count - other_class.sum()), int((other_class & tie).sum())
        apart |= other_class & ~tie
    largest = float(differences.max(initial=0))
    return Agreement(count, largest, classes, ties, int(apart.sum())), apart


def _look_inside(program: Program, built: Built, model: onnx.ModelProto, given: Array) -> _Inside:
    """Compare every operator on what ONNX Runtime itself gave it, up to the first wrong one."""
    tensors = [value.tensor for value in built.values if value and value.tensor != INPUT]
    session = session_of(with_outputs(model, tensors))
    names = [output.name for output in session.get_outputs()]
    inside = _Inside()
    for start in range(0, len(given), _INSIDE_CHUNK):
        part = given[start : start + _INSIDE_CHUNK]
        tensor_of = dict(zip(names, session.run(names, {INPUT: part}), strict=True))
        tensor_of[INPUT] = part
        numbers = [None if v is None else _as_numpy(v, tensor_of[v.tensor]) for v in built.values]
        _compare_steps(program, built, numbers, inside)
        if inside.wrong:
            break
    return inside


def _compare_steps(
    program: Program, built: Built, numbers: list[Array | None], inside: _Inside
) -> None:
    """Add the comparison of one batch; ``numbers`` are the values of ONNX Runtime."""
    for place, step in enumerate(program.steps):
        operator = step.operator
        if isinstance(operator, Route):
            continue  # no operator of its own arithmetic: the members are compared
        x, other = numbers[step.source], numbers[step.other]
        assert x is not None  # a None is filled in below, before anything reads it
        with np.errstate(all="ignore"):
            wanted = operator.run(x, other)
        got, merged = numbers[place + 1], place in built.merged
        if got is None:
            numbers[place + 1] = wanted
            continue
        if not _agree(wanted, got, step.result.domain, merged):
            inside.wrong = step.cost.name
            return
        if merged:
            apart, total = inside.apart.get(step.cost.name, (0, 0))
            counted = apart + int((wanted != got).sum()), total + got.size
            inside.apart[step.cost.name] = counted


def _as_numpy(value: Value, tensor: Array) -> Array:
    """Return a tensor as the runtime holds such a value: signs are booleans, True for -1."""
    if value.domain == SIGN:
        return np.asarray(tensor < 0)
    return tensor.astype(value.domain, copy=False)


def _agree(wanted: Array, got: Array, domain: str, merged: bool) -> bool:
    wide, other = to_float(wanted).astype(np.float64), to_float(got).astype(np.float64)
    if domain == FLOAT:
        largest = np.abs(wide[np.isfinite(wide)]).max(initial=0)
        return bool(np.allclose(wide, other, rtol=0, atol=TOLERANCE * largest, equal_nan=True))
    return bool((np.abs(wide - other) <= (1 if merged else 0)).all())


def _has_steps(program: Program) -> bool:
    """Say whether a rounding can tip a number to another sign, level or network."""
    jumping = {"sign", "threshold", "levels", "quantize", "requantize", "route"}
    return any(step.operator.kind in jumping for step in program.steps)


def _finding(agreement: Agreement, inside: _Inside) -> str:
    if inside.wrong:
        first = f"the first operator that computes something else is {inside.wrong}"
    elif inside.apart:
        name, (apart, total) = max(inside.apart.items(), key=lambda item: item[1][0] / item[1][1])
        others = agreement.samples - (agreement.same_classes or 0)
        first = (
            f"{others} of them get another class, {agreement.near_ties} of these near ties; no "
            f"single operator is more than one step apart, and most often {name} is "
            f"({apart / total:.2%} of its numbers)"
        )
    else:
        first = "no single operator is wrong, so small roundings add up"
    return (
        f"ONNX Runtime gives other results than the packed network for {agreement.beyond} of "
        f"{agreement.samples} inputs (largest difference {agreement.largest_difference:.3g}); "
        f"{first}"
    )
