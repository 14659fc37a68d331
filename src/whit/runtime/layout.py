"""The fixed-width layout of the program tensor: one header, then one record per operator.

Everything is little-endian. ``docs/format.md`` describes the same bytes in words.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from whit.errors import ArtifactError

MAGIC = b"WHIT"
VERSION = 3
READABLE_VERSIONS = (1, 2, 3)
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
FLOAT, BYTE, INT8, INT16, INTEGER, SIGN = "float32", "uint8", "int8", "int16", "int32", "sign"
DOMAIN_BITS = {FLOAT: 32, BYTE: 8, INT8: 8, INT16: 16, INTEGER: 32, SIGN: 1}
# Lowest and highest number of the domains whose numbers are whole.
INTEGER_RANGES = {
    BYTE: (0, 255),
    INT8: (-128, 127),
    INT16: (-(1 << 15), (1 << 15) - 1),
    INTEGER: (-(1 << 31), (1 << 31) - 1),
    SIGN: (-1, 1),
}

INPUT_DTYPES = ("float32", "uint8", "int32")


@dataclass(frozen=True)
class Activation:
    """What flows between two operators.

    Args:
        shape: shape of one sample, without the batch axis.
        domain: "float32", "uint8", "int8", "int16", "int32", or "sign" (+1 and -1 only).
    """

    shape: tuple[int, ...]
    domain: str

    @property
    def elements(self) -> int:
        """Count the numbers of one sample."""
        return product(self.shape)

    @property
    def bits(self) -> int:
        """Return the bits of one number: 32, 16, 8 or 1."""
        return DOMAIN_BITS[self.domain]

    @property
    def stored_bytes(self) -> int:
        """Return the bytes of one sample with each number at its own width."""
        return (self.elements * self.bits + 7) // 8


def integer_domain(low: int, high: int) -> str:
    """Return the domain of whole numbers low..high: uint8 if it holds them, else int8, else int16.

    Raises:
        ArtifactError: low is above high, or 16 bits are too few.
    """
    if low <= high:
        for domain in (BYTE, INT8, INT16):
            least, most = INTEGER_RANGES[domain]
            if least <= low and high <= most:
                return domain
    raise ArtifactError(f"no domain of up to 16 bits holds the numbers {low}..{high}")


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
    other: int = 0
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
    """The first 40 bytes of the program tensor.

    Args:
        records: how many follow, at most 4096.
        shape: shape of one input sample.
        dtype: dtype of the input, one of ``INPUT_DTYPES``.
        low: lowest raw input, NaN when unknown.
        high: highest raw input, NaN when unknown.
        leading: 1 where the first axis of the output counts members, else 0.
        version: format version.
    """

    records: int
    shape: tuple[int, ...]
    dtype: str = "float32"
    low: float = float("nan")
    high: float = float("nan")
    leading: int = 0
    version: int = VERSION

    def to_bytes(self) -> bytes:
        """Return the 40 bytes of this header with the checksum field set to 0."""
        dims = self.shape + (0,) * (MAX_RANK - len(self.shape))
        dtype = INPUT_DTYPES.index(self.dtype)
        fields = (MAGIC, self.version, self.records, 0, len(self.shape), dtype, self.leading)
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
    magic, version, count, _, rank, dtype, leading, *rest = _HEADER.unpack_from(program)
    if magic != MAGIC:
        raise ArtifactError("the program tensor does not begin with WHIT: not a .whit file")
    if version not in READABLE_VERSIONS:
        raise ArtifactError(
            f"the file has format version {version}, this whit reads versions "
            f"{READABLE_VERSIONS}: update whit, or pack the model again"
        )
    dims, (low, high) = tuple(rest[:MAX_RANK]), rest[MAX_RANK:]
    dtypes, most = (2, 0) if version == 1 else (len(INPUT_DTYPES), 1)
    if not 1 <= rank <= MAX_RANK or any(dims[rank:]) or dtype >= dtypes or leading > most:
        raise ArtifactError("the program header holds an impossible input description")
    if math.isnan(low) != math.isnan(high) or low > high or math.isinf(low) or math.isinf(high):
        raise ArtifactError(f"the program header holds an impossible input range {low}..{high}")
    product(dims[:rank])
    if count > MAX_RECORDS or len(program) != HEADER_BYTES + count * RECORD_BYTES:
        raise ArtifactError(f"{count} records do not fill a program of {len(program)} bytes")
    return ProgramHeader(count, dims[:rank], INPUT_DTYPES[dtype], low, high, leading, version)


def parse_records(program: bytes, version: int = VERSION) -> list[Record]:
    """Read the records behind an already checked header.

    Args:
        program: the program tensor.
        version: format version of the header.

    Raises:
        ArtifactError: a record reads a value that is not there before it, or, in version 1,
            anything but the value right before it.
    """
    records = [Record(*fields) for fields in _RECORD.iter_unpack(program[HEADER_BYTES:])]
    for index, record in enumerate(records):
        if version == 1 and (record.source != index or record.other):
            raise ArtifactError(
                f"record {index} does not read the value before it: version 1 holds chains only"
            )
        if max(record.source, record.other) > index:
            raise ArtifactError(
                f"record {index} reads the value {max(record.source, record.other)}, "
                f"which does not exist before it"
            )
    return records
