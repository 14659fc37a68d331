"""`pack`: a trained module becomes the bytes of a .whit file."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from whit.atomic_files import write_atomically
from whit.errors import CannotPack, WhitError
from whit.packing.emission import Emitted, FormatRules, emit
from whit.packing.folding import fold
from whit.packing.graph_nodes import Node
from whit.packing.lower import lower
from whit.packing.quantisation import quantize_graph
from whit.packing.tracing import baked_copy
from whit.runtime.artifact import build_artifact
from whit.runtime.data_section import DataWriter
from whit.runtime.layout import MAX_RANK, MAX_RECORDS, Activation, ProgramHeader
from whit.runtime.operators import OPERATOR_CODES
from whit.runtime.program import RESERVED_INFO, Program, decode_program, join_labels

_DTYPES = {
    torch.float32: "float32",
    torch.uint8: "uint8",
    torch.int32: "int32",
    torch.int64: "int32",
}


@dataclass(frozen=True)
class PackedLayer:
    """How one weight got into the file.

    Attributes:
        module: path in the model, "" for the model itself.
        kind: operator that holds it.
        format: weight format.
        bits: stored bits of one weight, scales included.
        weights: how many.
        before_bytes: as float32.
        after_bytes: in the file, scales included.
        huffman_bytes: with a Huffman code, for comparison; None where that makes no sense.
        reason: why this format.
    """

    module: str
    kind: str
    format: str
    bits: float
    weights: int
    before_bytes: int
    after_bytes: int
    huffman_bytes: int | None
    reason: str

    def __str__(self) -> str:
        name = f"{self.module or 'model'} ({self.kind})"
        huffman = "" if self.huffman_bytes is None else f" (Huffman code: {self.huffman_bytes})"
        return f"{name}: {self.before_bytes} => {self.after_bytes} bytes, {self.reason}{huffman}"


@dataclass(frozen=True)
class Packed:
    """A packed network: the bytes of its file, and how each layer came to its size.

    Attributes:
        content: the bytes of the file.
        weight_bytes: bytes of everything learnt: weights, scales, biases, thresholds.
        layers: one entry per weight.
    """

    content: bytes
    weight_bytes: int
    layers: tuple[PackedLayer, ...]

    @property
    def nbytes(self) -> int:
        """Return the size of the file in bytes."""
        return len(self.content)

    @property
    def lines(self) -> tuple[str, ...]:
        """Return one line per layer, "name: before => after bytes, why"."""
        return tuple(str(layer) for layer in self.layers)

    @cached_property
    def program(self) -> Program:
        """Return the runtime program, decoded from the very bytes of the file."""
        return decode_program(self.content)

    def to_bytes(self) -> bytes:
        """Return the bytes of the file."""
        return self.content

    def report(self) -> str:
        """Return the table of layers and the totals, one line each."""
        layers = sum(layer.after_bytes for layer in self.layers)
        rest = f"biases, thresholds and other constants: {self.weight_bytes - layers} bytes"
        total = f"file: {self.nbytes} bytes, of which {self.weight_bytes} are weights and constants"
        return "\n".join([*self.lines, rest, total])

    def save(self, path: str | Path) -> Path:
        """Write the file; it appears whole or not at all.

        Raises:
            WhitError: the folder does not exist or cannot be written.
        """
        path = Path(path)
        try:
            write_atomically(path, lambda temporary: temporary.write_bytes(self.content))
        except OSError as error:
            raise WhitError(
                f"{path} cannot be written: {error.strerror or error}; give a path in a folder "
                "that exists and that you may write to"
            ) from error
        return path


def pack(
    model: nn.Module,
    *example: Tensor,
    labels: Sequence[str] | None = None,
    info: Mapping[str, str] | None = None,
    input_range: tuple[float, float] | None = None,
    force: Mapping[str, str] | None = None,
    forbid: Collection[str] = (),
    calibration: Tensor | None = None,
) -> Packed:
    """Pack a trained network; the model stays as it is.

    Args:
        model: the network, its normalisation included.
        example: what the model is called with: one raw batch [batch, ...] of float32, uint8, or
            int32/int64 indices.
        labels: class names in the order of the outputs.
        info: texts to keep in the file (task, spec, provenance).
        input_range: lowest and highest raw input value, for the reader's information.
        force: weight format by module path ("*": every other module), such as
            {"head": "float32", "*": "planes"}; the values must fit it. A module may ask for a
            format itself, by an attribute `stored_as`.
        forbid: weight formats that are not used; see docs/format.md for the names.
        calibration: raw samples [n, ...]: weights and activations that are float32 are rounded to 8
            bits, with ranges from these samples (post-training quantisation). Use training data.

    Returns:
        The packed network.

    Raises:
        CannotPack: the model cannot be lowered; the message names module, operator and way out.
        WhitError: labels, info or input range are malformed.
    """
    batch = _check_example(example)
    metadata = _metadata(labels, info)
    low, high = _check_range(input_range, batch)
    source = Activation(tuple(batch.shape[1:]), _DTYPES[batch.dtype])
    lowered = lower(baked_copy(model), batch)
    graph = fold(lowered.node)
    if calibration is not None:
        graph = fold(quantize_graph(graph, _check_calibration(calibration, batch)))
    if isinstance(forbid, str):
        raise WhitError(f"forbid is the text '{forbid}'; give a list of formats: ['{forbid}']")
    _check_labels(labels, lowered.shape)
    emitted = _emit(graph, source, FormatRules(force or {}, forbid, _asked_formats(model)))
    leading = int(lowered.leading)
    header = ProgramHeader(len(emitted), source.shape, source.domain, low, high, leading)
    program, data = _assemble(header, emitted)
    content = build_artifact(program, data, metadata)
    return Packed(content, len(data), _layers(emitted))


@contextmanager
def float_inputs(model: nn.Module) -> Iterator[None]:
    """Let a model that was trained on float32 be packed for raw bytes: uint8 inputs are cast.

    Within the context the model takes uint8 numbers as their float32 values.
    """

    def cast(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(x.float() if x.dtype == torch.uint8 else x for x in inputs)

    handle = model.register_forward_pre_hook(cast)
    try:
        yield
    finally:
        handle.remove()


def _emit(graph: Node, source: Activation, rules: FormatRules) -> list[Emitted]:
    emitted = emit(graph, source, rules)
    if len(emitted) > MAX_RECORDS:
        raise CannotPack(f"it has {len(emitted)} operators; the format holds {MAX_RECORDS}")
    return emitted


def _asked_formats(model: nn.Module) -> dict[str, str]:
    named = model.named_modules(remove_duplicate=False)
    return {path: str(m.stored_as) for path, m in named if hasattr(m, "stored_as")}


def _check_example(example: tuple[Tensor, ...]) -> Tensor:
    if len(example) != 1:
        raise CannotPack(
            f"{len(example)} inputs were given; models with exactly one input can be packed"
        )
    batch = _check_batch(example[0], "example")
    # torch.export silently fixes the size of an axis that is 1.
    return batch if batch.shape[0] > 1 else torch.cat([batch, batch])


def _check_batch(given: object, name: str) -> Tensor:
    if not isinstance(given, Tensor):
        raise CannotPack(
            f"the {name} is {type(given).__name__}; give a torch tensor, such as "
            "torch.from_numpy(x)"
        )
    batch = given.detach().cpu()
    if batch.dtype not in _DTYPES:
        raise CannotPack(
            f"the {name} has dtype {batch.dtype}; give float32 (x.float()), uint8, or integer "
            "indices"
        )
    if not 2 <= batch.dim() <= MAX_RANK + 1 or batch.numel() == 0:
        raise CannotPack(
            f"the {name} has shape {list(batch.shape)}; give a batch [batch, ...] of at least one "
            f"sample with 1 to {MAX_RANK} axes"
        )
    return batch


def _check_calibration(given: object, batch: Tensor) -> Tensor:
    samples = _check_batch(given, "calibration")
    if samples.shape[1:] != batch.shape[1:] or samples.dtype != batch.dtype:
        raise CannotPack(
            f"the calibration samples are {samples.dtype} {list(samples.shape)}, the example is "
            f"{batch.dtype} {list(batch.shape)}; give samples like the example"
        )
    return samples


def _check_range(given: tuple[float, float] | None, batch: Tensor) -> tuple[float, float]:
    if given is None:
        return (0.0, 255.0) if batch.dtype == torch.uint8 else (float("nan"), float("nan"))
    try:
        low, high = (float(limit) for limit in given)
    except (TypeError, ValueError):
        raise WhitError(f"the input range is {given!r}; give two numbers (low, high)") from None
    if not -3e38 < low <= high < 3e38:
        raise WhitError(f"the input range {low}..{high} is not a range of finite numbers")
    return low, high


def _check_labels(labels: Sequence[str] | None, shape: tuple[int, ...]) -> None:
    if labels and shape[-1] not in (1, len(labels)):
        raise WhitError(
            f"{len(labels)} labels were given for {shape[-1]} outputs; give one for each class"
        )


def _metadata(labels: Sequence[str] | None, info: Mapping[str, str] | None) -> dict[str, str]:
    joined = join_labels([str(label) for label in labels or ()])
    metadata = {"labels": joined} if joined else {}
    for name, text in (info or {}).items():
        if name in RESERVED_INFO:
            raise WhitError(f"info may not be called '{name}': the file uses this name itself")
        if not isinstance(name, str):
            raise WhitError(f"a name in info is {name!r}, expected a text")
        if not isinstance(text, str):
            raise WhitError(f"info['{name}'] is {type(text).__name__}, expected a text")
        metadata[name] = text
    for text in metadata.values():
        if not text.isprintable():
            raise WhitError(f"The text {text[:60]!r} holds characters that cannot be printed.")
    return metadata


def _assemble(header: ProgramHeader, emitted: Sequence[Emitted]) -> tuple[bytes, bytes]:
    writer = DataWriter()
    records = []
    for step in emitted:
        record = step.operator.write(writer)
        code = OPERATOR_CODES[step.operator.kind]
        record = replace(record, kind=code, source=step.source, other=step.other)
        records.append(record.to_bytes())
    return header.to_bytes() + b"".join(records), writer.to_bytes()


def _layers(emitted: Sequence[Emitted]) -> tuple[PackedLayer, ...]:
    layers = []
    for step in emitted:
        if step.choice is None:
            continue
        weight = step.choice.weight
        count = weight.rows * weight.columns
        layers.append(
            PackedLayer(
                module=step.module,
                kind=step.operator.kind,
                format=weight.form.name,
                bits=8 * weight.stored_bytes / count,
                weights=count,
                before_bytes=4 * count,
                after_bytes=weight.stored_bytes,
                huffman_bytes=step.choice.huffman_bytes,
                reason=step.choice.reason,
            )
        )
    return tuple(layers)
