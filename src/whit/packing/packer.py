"""`pack`: a trained module becomes the bytes of a .whit file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from whit.atomic_files import write_atomically
from whit.errors import CannotPack, WhitError
from whit.packing.emission import Emitted, emit
from whit.packing.folding import fold
from whit.packing.lower import lower
from whit.packing.tracing import baked_copy
from whit.runtime.artifact import build_artifact
from whit.runtime.data_section import DataWriter
from whit.runtime.layout import INPUT_DTYPES, MAX_RANK, Activation, ProgramHeader
from whit.runtime.operators import OPERATOR_CODES
from whit.runtime.program import RESERVED_INFO, Program, decode_program, join_labels


@dataclass(frozen=True)
class Packed:
    """A packed network: the bytes of its file, and how each layer came to its size.

    Attributes:
        content: the bytes of the file.
        weight_bytes: bytes of everything learnt: weights, scales, biases, thresholds.
        lines: one line per layer, "name: before => after bytes, why".
    """

    content: bytes
    weight_bytes: int
    lines: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """Return the size of the file in bytes."""
        return len(self.content)

    @cached_property
    def program(self) -> Program:
        """Return the runtime program, decoded from the very bytes of the file."""
        return decode_program(self.content)

    def to_bytes(self) -> bytes:
        """Return the bytes of the file."""
        return self.content

    def report(self) -> str:
        """Return the table of layers and the totals, one line each."""
        total = f"file: {self.nbytes} bytes, of which {self.weight_bytes} are weights and constants"
        return "\n".join([*self.lines, total])

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
) -> Packed:
    """Pack a trained network; the model stays as it is.

    Args:
        model: the network, its normalisation included.
        example: what the model is called with: one raw batch, float32 or uint8, [batch, ...].
        labels: class names in the order of the outputs.
        info: texts to keep in the file (task, spec, provenance).
        input_range: lowest and highest raw input value, for the reader's information.

    Returns:
        The packed network.

    Raises:
        CannotPack: the model cannot be lowered; the message names module, operator and way out.
        WhitError: labels, info or input range are malformed.
    """
    batch = _check_example(example)
    metadata = _metadata(labels, info)
    low, high = _check_range(input_range, batch)
    source = Activation(tuple(batch.shape[1:]), str(batch.dtype).removeprefix("torch."))
    baked = baked_copy(model)
    emitted = emit(fold(lower(baked, batch)), source)
    header = ProgramHeader(len(emitted), source.shape, source.domain, low, high)
    program, data = _assemble(header, emitted)
    content = build_artifact(program, data, metadata)
    return Packed(content, len(data), _lines(emitted))


def _check_example(example: tuple[Tensor, ...]) -> Tensor:
    if len(example) != 1:
        raise CannotPack(
            f"{len(example)} inputs were given; models with exactly one input can be packed"
        )
    if not isinstance(example[0], Tensor):
        raise CannotPack(
            f"the example is {type(example[0]).__name__}; give a torch tensor, such as "
            "torch.from_numpy(x)"
        )
    batch = example[0].detach().cpu()
    if str(batch.dtype).removeprefix("torch.") not in INPUT_DTYPES:
        raise CannotPack(
            f"the example has dtype {batch.dtype}; give float32 (x.float()) or uint8 values"
        )
    if not 2 <= batch.dim() <= MAX_RANK + 1 or batch.numel() == 0:
        raise CannotPack(
            f"the example has shape {list(batch.shape)}; give a batch [batch, ...] of at least one "
            f"sample with 1 to {MAX_RANK} axes"
        )
    # torch.export silently fixes the size of an axis that is 1.
    return batch if batch.shape[0] > 1 else torch.cat([batch, batch])


def _check_range(given: tuple[float, float] | None, batch: Tensor) -> tuple[float, float]:
    if given is None:
        return (0.0, 255.0) if batch.dtype == torch.uint8 else (float("nan"), float("nan"))
    low, high = float(given[0]), float(given[1])
    if not -3e38 < low <= high < 3e38:
        raise WhitError(f"the input range {low}..{high} is not a range of finite numbers")
    return low, high


def _metadata(labels: Sequence[str] | None, info: Mapping[str, str] | None) -> dict[str, str]:
    joined = join_labels([str(label) for label in labels or ()])
    metadata = {"labels": joined} if joined else {}
    for name, text in (info or {}).items():
        if name in RESERVED_INFO:
            raise WhitError(f"info may not be called '{name}': the file uses this name itself")
        if not isinstance(name, str) or not isinstance(text, str):
            raise WhitError(f"info['{name}'] is {type(text).__name__}, expected a text")
        metadata[name] = text
    for text in metadata.values():
        if not text.isprintable():
            raise WhitError(f"The text {text[:60]!r} holds characters that cannot be printed.")
    return metadata


def _assemble(header: ProgramHeader, emitted: Sequence[Emitted]) -> tuple[bytes, bytes]:
    writer = DataWriter()
    records = []
    for index, step in enumerate(emitted):
        record = step.operator.write(writer)
        code = OPERATOR_CODES[step.operator.kind]
        records.append(replace(record, kind=code, source=index).to_bytes())
    return header.to_bytes() + b"".join(records), writer.to_bytes()


def _lines(emitted: Sequence[Emitted]) -> tuple[str, ...]:
    lines = []
    for step in emitted:
        weight = step.operator.weight
        if weight is not None:
            before, after = 4 * weight.rows * weight.columns, weight.stored_bytes
            name = f"{step.module or 'model'} ({step.operator.kind})"
            lines.append(f"{name}: {before} => {after} bytes, {step.reason}")
    return tuple(lines)
