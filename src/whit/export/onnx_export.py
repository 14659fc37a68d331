"""Export of a packed network as an ONNX file of standard operators, checked right away."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from whit.atomic_files import write_atomically
from whit.errors import WhitError
from whit.export.onnx_build import build
from whit.export.onnx_check import Agreement, check, drawn_inputs
from whit.export.onnx_model import model_of
from whit.runtime import Program


@dataclass(frozen=True)
class OnnxExport:
    """An ONNX file and how it compares with the packed network.

    Attributes:
        path: the file.
        nbytes: its size.
        checked: inputs on which ONNX Runtime and the packed network were compared.
        drawn: the inputs were drawn at random, because none were given.
        largest_difference: largest absolute difference of an output.
        same_classes: inputs of the same class; None when the output is no row of class scores.
        near_ties: inputs of another class whose two scores are almost equal.
        beyond: inputs that differ by more than float rounding, since a number lay on a threshold
            or between two steps.
        merged: integer layers that became QDQ patterns with their rounding.
        changed_by_qdq: inputs whose class QDQ would have changed, so that the file holds the
            integers of the packed file instead; 0 where QDQ was kept or not tried.
    """

    path: Path
    nbytes: int
    checked: int
    drawn: bool
    largest_difference: float
    same_classes: int | None
    near_ties: int
    beyond: int
    merged: int
    changed_by_qdq: int = 0

    def report(self) -> str:
        """Return one line on the check."""
        origin = " drawn inputs: give real ones" if self.drawn else " given inputs"
        parts = [f"checked in ONNX Runtime on {self.checked}{origin}"]
        parts.append(f"largest difference {self.largest_difference:.3g}")
        if self.same_classes is not None:
            parts.append(f"same class for {self.same_classes} of {self.checked}")
        if self.near_ties:
            parts.append(f"{self.near_ties} of the others near ties")
        if self.beyond:
            reason = "layers may round one step apart" if self.merged else "a number on a threshold"
            parts.append(f"{self.beyond} beyond float rounding ({reason})")
        if self.changed_by_qdq:
            parts.append(
                f"QDQ would have changed the class of {self.changed_by_qdq}: the exact integers "
                "were written instead"
            )
        return "; ".join(parts)


def export_onnx(
    program: Program, path: Path, inputs: NDArray[Any] | None = None, *, quantized: str = "auto"
) -> OnnxExport:
    """Write a packed network as an ONNX file and compare both on the same inputs.

    The file uses standard operators of opset 17 and has a free batch axis. Input and output are
    those of the program: raw inputs in, float32 out. Integer weights are int8 (uint8 around 128
    where x86 kernels could saturate) with DequantizeLinear, code books uint8 with Gather, binary16
    weights stay binary16. Sparse weights are dense, and a `route` computes all of its members.

    Args:
        program: the network; from `whit.runtime.load`.
        path: the file to write or replace; it appears only when the check passes.
        inputs: raw samples [batch, *program.input.shape] to check on; 16 drawn ones when None.
        quantized: "qdq": integer layers become DequantizeLinear, Conv or Gemm, QuantizeLinear,
            which ONNX Runtime runs on integers, one step apart from the file at rare roundings;
            "exact": the integers of the file, in more operators; "auto": QDQ, or exact where QDQ
            changes the class of one of the inputs (the result says so).

    Returns:
        The file, its size and the result of the check.

    Raises:
        MissingExtra: onnx or onnxruntime is not installed.
        Disagreement: an operator computes something else (the message names it), or a layer of
            QDQ is more than one step apart, or many layers one step apart change the class of
            more than 2 % of the inputs (1 at least), near ties not counted.
        WhitError: the inputs do not fit, or the file cannot be written.
    """
    if quantized != "auto":
        return _exported(program, Path(path), inputs, quantized)
    found = _exported(program, Path(path), inputs, "qdq")
    changed = 0 if found.same_classes is None else found.checked - found.same_classes
    if not found.merged or not changed:
        return found
    return replace(_exported(program, Path(path), inputs, "exact"), changed_by_qdq=changed)


def _exported(
    program: Program, path: Path, inputs: NDArray[Any] | None, quantized: str
) -> OnnxExport:
    built = build(program, quantized)
    model = model_of(program, built)
    content = model.SerializeToString()
    samples = drawn_inputs(program) if inputs is None else inputs
    agreements: list[Agreement] = []

    def write(partial: Path) -> None:
        partial.write_bytes(content)
        agreements.append(check(program, built, model, partial, samples))

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, write)
    except OSError as error:
        raise WhitError(
            f"'{path}' cannot be written ({error.strerror or error}). Choose another file."
        ) from None
    found = agreements[0]
    return OnnxExport(
        path=path,
        nbytes=len(content),
        checked=found.samples,
        drawn=inputs is None,
        largest_difference=found.largest_difference,
        same_classes=found.same_classes,
        near_ties=found.near_ties,
        beyond=found.beyond,
        merged=len(built.merged),
    )
