"""The check right after the export: ONNX Runtime against the NumPy runtime, on the same inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from whit.errors import MissingExtra, WhitError
from whit.export.onnx_build import INPUT, OUTPUT, Built
from whit.export.onnx_graph import Array, Value
from whit.export.onnx_model import with_outputs
from whit.runtime import Program
from whit.runtime.bits import binary_gemm_reference
from whit.runtime.layout import FLOAT, SIGN
from whit.runtime.operators import Embedding, Route
from whit.runtime.operators.contract import to_float

if TYPE_CHECKING:
    import onnx

TOLERANCE = 1e-4  # of the largest output
MERGED_TOLERANCE = 0.02  # where QDQ patterns round a float32 product
BORDERLINE_SHARE = 0.01  # samples that may fall the other way at a threshold
DRAWN = 16
_CHUNK = 64


@dataclass(frozen=True)
class Agreement:
    """How the outputs of both runtimes compare.

    Attributes:
        samples: inputs that were run.
        largest_difference: largest absolute difference of an output.
        same_classes: samples of the same class (near ties count); None when there are no classes.
        beyond: samples with an output beyond the tolerance.
    """

    samples: int
    largest_difference: float
    same_classes: int | None
    beyond: int


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
        WhitError: an operator computes something else; the message names the first one.
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
    share = MERGED_TOLERANCE if built.merged else TOLERANCE
    agreement, apart = _compare(np.moveaxis(expected, axis, 0), np.moveaxis(found, axis, 0), share)
    if apart.any():
        wrong = _first_wrong(program, built, model, given[apart][:_CHUNK])
        allowed = max(1, int(BORDERLINE_SHARE * len(given)))
        if wrong or agreement.beyond > allowed or not _has_steps(program):
            raise WhitError(_complaint(agreement, int(apart.sum()), wrong))
    return agreement


def _compare(
    expected: NDArray[np.float32], found: NDArray[np.float32], share: float
) -> tuple[Agreement, NDArray[np.bool_]]:
    """Return the agreement, and which samples differ."""
    count = len(expected)
    rows, others = expected.reshape(count, -1), found.reshape(count, -1)
    same = (rows == others) | (np.isnan(rows) & np.isnan(others))
    with np.errstate(invalid="ignore"):
        differences = np.where(same, 0, np.abs(rows - others))
    differences = np.where(np.isnan(differences), np.inf, differences)
    finite = np.abs(rows[np.isfinite(rows)])
    tolerance = share * float(finite.max(initial=0))
    apart = differences.max(1, initial=0) > tolerance
    classes = None
    if expected.ndim == 2 and expected.shape[1] > 1:
        chosen = np.take_along_axis(rows, others.argmax(1)[:, None], 1)[:, 0]
        other_class = rows.max(1) - chosen > tolerance
        classes = int(count - other_class.sum())
        apart |= other_class
    largest = float(differences.max(initial=0))
    return Agreement(count, largest, classes, int(apart.sum())), apart


def _first_wrong(
    program: Program, built: Built, model: onnx.ModelProto, given: Array
) -> str | None:
    """Name the first operator that computes something else from what ONNX Runtime gave it."""
    tensors = [value.tensor for value in built.values if value and value.tensor != INPUT]
    session = session_of(with_outputs(model, tensors))
    names = [output.name for output in session.get_outputs()]
    tensor_of = dict(zip(names, session.run(names, {INPUT: given}), strict=True)) | {INPUT: given}
    numbers = [None if v is None else _as_numpy(v, tensor_of[v.tensor]) for v in built.values]
    for place, step in enumerate(program.steps):
        operator = step.operator
        if isinstance(operator, Route):
            continue  # no operator of its own arithmetic: the members are compared
        x, other = numbers[step.source], numbers[step.other]
        assert x is not None  # a None is filled in below, before anything reads it
        with np.errstate(all="ignore"):
            wanted = operator.run(x, binary_gemm_reference, other)
        got = numbers[place + 1]
        if got is None:
            numbers[place + 1] = wanted
        elif not _agree(wanted, got, step.result.domain, place in built.merged):
            return step.cost.name
    return None


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


def _complaint(agreement: Agreement, apart: int, wrong: str | None) -> str:
    first = (
        f"the first operator that computes something else is {wrong}"
        if wrong
        else "no single operator is wrong, so small roundings add up"
    )
    return (
        f"ONNX Runtime gives other results than the packed network for {apart} of "
        f"{agreement.samples} inputs (largest difference {agreement.largest_difference:.3g}); "
        f"{first}. No file was written. Try quantized='exact', another version of onnxruntime, or "
        "report this with the .whit file."
    )
