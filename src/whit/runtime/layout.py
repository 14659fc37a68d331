"""The fixed-width layout of the program tensor: one header, then one record per operator.

Everything is little-endian. ``docs/format.md`` describes the same bytes in words.
"""

import struct
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

from whit.errors import ArtifactError

MAGIC = b"WHIT"
VERSION = 1
ABSENT = 0xFFFFFFFF
MAX_ELEMENTS = 1 << 28
MAX_RECORDS = 4096
MAX_RANK = 4

_HEADER = struct.Struct("<4sHHIBBH4I2f")
_RECORD = struct.Struct("<4B2H4I6BbB")
HEADER_BYTES = _HEADER.size
RECORD_BYTES = _RECORD.size
CHECKSUM_OFFSET = 8

# How many constants an operand holds: none, one, one per channel (axis 1), one per feature.
NONE, SCALAR, CHANNEL, FEATURE = range(4)

# What a value between two operators can be.
FLOAT, BYTE, INTEGER, SIGN = "float32", "uint8", "int32", "sign"
DOMAIN_BITS = {FLOAT: 32, BYTE: 8, INTEGER: 32, SIGN: 1}

INPUT_DTYPES = ("float32", "uint8")


@dataclass(frozen=True)
class Activation:
    """What flows between two operators.

    Args:
        shape: shape of one sample, without the batch axis.
        domain: "float32", "uint8", "int32", or "sign" (+1 and -1 only).
    """

    shape: tuple[int, ...]
    domain: str

    @property
    def elements(self) -> int:
        """Count the numbers of one sample."""
        return product(self.shape)

    @property
    def bits(self) -> int:
        """Return the bits of one number: 32, 8 or 1."""
        return DOMAIN_BITS[self.domain]

    @property
    def stored_bytes(self) -> int:
        """Return the bytes of one sample with each number at its own width."""
        return (self.elements * self.bits + 7) // 8


def product(shape: Sequence[int]) -> int:
    """Multiply sizes as Python integers, which cannot overflow.

    Raises:
        ArtifactError: a size is below 1 or the product is above 2^28 elements.
    """
    total = 1
    for size in shape:
        if size < 1:
            raise ArtifactError(f"a shape of the program is empty: {tuple(shape)}")
        total *= int(size)
    if total > MAX_ELEMENTS:
        raise ArtifactError(f"a shape of the program is too large: {tuple(shape)}")
    return total


@dataclass(frozen=True)
class Record:
    """One operator of the program: 32 bytes.

    ``first`` and ``second`` are byte offsets into the data tensor, ``ABSENT`` for none. A field
    that an operator does not use is 0.
    """

    kind: int
    weight_format: int = 0
    scale: int = NONE
    operand: int = 0
    source: int = 0
    reserved: int = 0
    rows: int = 0
    columns: int = 0
    first: int = ABSENT
    second: int = ABSENT
    size_h: int = 0
    size_w: int = 0
    stride_h: int = 0
    stride_w: int = 0
    pad_h: int = 0
    pad_w: int = 0
    pad_value: int = 0
    dilation: int = 0

    def to_bytes(self) -> bytes:
        """Return the 32 bytes of this record."""
        return _RECORD.pack(*astuple(self))


@dataclass(frozen=True)
class ProgramHeader:
    """The first 40 bytes of the program tensor: input shape, dtype, range; number of records."""

    records: int
    shape: tuple[int, ...]
    dtype: str = "float32"
    low: float = float("nan")
    high: float = float("nan")

    def to_bytes(self) -> bytes:
        """Return the 40 bytes of this header with the checksum field set to 0."""
        dims = self.shape + (0,) * (MAX_RANK - len(self.shape))
        dtype = INPUT_DTYPES.index(self.dtype)
        fields = (MAGIC, VERSION, self.records, 0, len(self.shape), dtype, 0)
        return _HEADER.pack(*fields, *dims, self.low, self.high)


def parse_header(program: bytes) -> ProgramHeader:
    """Read and check the program header.

    Raises:
        ArtifactError: wrong magic, version, length, rank, shape, dtype or range.
    """
    if len(program) < HEADER_BYTES:
        raise ArtifactError(
            f"the program tensor has {len(program)} bytes, its header {HEADER_BYTES}"
        )
    magic, version, count, _, rank, dtype, reserved, *rest = _HEADER.unpack_from(program)
    if magic != MAGIC:
        raise ArtifactError("the program tensor does not begin with WHIT: not a .whit file")
    if version != VERSION:
        raise ArtifactError(
            f"the file has format version {version}, this whit reads version {VERSION}: "
            "update whit, or pack the model again"
        )
    dims, (low, high) = tuple(rest[:MAX_RANK]), rest[MAX_RANK:]
    if not 1 <= rank <= MAX_RANK or any(dims[rank:]) or dtype >= len(INPUT_DTYPES) or reserved:
        raise ArtifactError("the program header holds an impossible input description")
    if (np.isnan(low) != np.isnan(high)) or low > high or np.isinf(low) or np.isinf(high):
        raise ArtifactError(f"the program header holds an impossible input range {low}..{high}")
    product(dims[:rank])
    if count > MAX_RECORDS or len(program) != HEADER_BYTES + count * RECORD_BYTES:
        raise ArtifactError(f"{count} records do not fill a program of {len(program)} bytes")
    return ProgramHeader(count, dims[:rank], INPUT_DTYPES[dtype], low, high)


def parse_records(program: bytes) -> list[Record]:
    """Read the records behind an already checked header.

    Raises:
        ArtifactError: a record does not read the output of the record before it.
    """
    records = [Record(*fields) for fields in _RECORD.iter_unpack(program[HEADER_BYTES:])]
    for index, record in enumerate(records):
        if record.source != index or record.reserved:
            raise ArtifactError(
                f"record {index} does not read the value before it: version 1 holds chains only"
            )
    return records
