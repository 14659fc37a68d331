"""The IDX format of MNIST and its relatives: a header of big-endian sizes, then bytes."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from whit.errors import DataError

UINT8 = 0x08


def read_idx(path: Path, axes: int) -> Tensor:
    """Read a gzip-compressed IDX file of bytes.

    Shapes: -> uint8, as many axes as asked for.

    Args:
        path: of the file.
        axes: expected number of axes, 1 (labels) or 3 (images).

    Raises:
        DataError: no gzip or a truncated one, a wrong magic number, or a wrong length.
    """
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"The file '{path}' is not a complete gzip file ({error}). Get it again."
        ) from None
    magic = bytes((0, 0, UINT8, axes))
    if raw[:4] != magic or len(raw) < 4 + 4 * axes:
        raise DataError(
            f"The file '{path}' begins with {raw[:4].hex() or 'nothing'}, expected {magic.hex()} "
            f"(an IDX file of bytes with {axes} axes). It is another file, or it is corrupt."
        )
    shape = struct.unpack(f">{axes}I", raw[4 : 4 + 4 * axes])
    values = len(raw) - 4 - 4 * axes
    if values != math.prod(shape):
        raise DataError(
            f"The file '{path}' holds {values} values, and its header says {list(shape)}, which is "
            f"{math.prod(shape)}. It is truncated or corrupt."
        )
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=4 + 4 * axes).view(shape)
