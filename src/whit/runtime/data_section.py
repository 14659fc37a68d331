"""The data tensor: constants one after another, in the order in which the records name them.

Numbers wider than a byte start at a multiple of their width (at most 4); the gaps are zero bytes.
The reader accepts this canonical form only, so two references can never overlap.
"""

import numpy as np
from numpy.typing import NDArray

from whit.errors import ArtifactError
from whit.runtime.bits import unpack_bits
from whit.runtime.layout import MAX_ELEMENTS


class DataWriter:
    """Collects constants and gives each its offset."""

    def __init__(self) -> None:
        """Start with no bytes."""
        self._parts = bytearray()

    def append(self, data: bytes, alignment: int = 1) -> int:
        """Append bytes at the next multiple of ``alignment`` and return their offset."""
        self._parts += bytes(-len(self._parts) % alignment)
        offset = len(self._parts)
        self._parts += data
        return offset

    def to_bytes(self) -> bytes:
        """Return everything that was appended."""
        return bytes(self._parts)


class DataReader:
    """Hands out constants in order and checks every offset and length before use."""

    def __init__(self, data: bytes) -> None:
        """Read from the start of ``data``."""
        self._data = data
        self.position = 0
        self._elements = 0

    def seek(self, offset: int) -> None:
        """Go to the constant at ``offset``.

        Raises:
            ArtifactError: the offset is not the next place of the canonical order.
        """
        if offset != self.position:
            self._skip_gap(offset)

    def array(self, count: int, dtype: np.dtype[np.unsignedinteger] | str) -> NDArray[np.generic]:
        """Read ``count`` little-endian numbers, aligned to their width.

        Raises:
            ArtifactError: fewer bytes are left, or a gap is not zero.
        """
        kind = np.dtype(dtype)
        self._skip_gap(self.position + -self.position % kind.itemsize)
        end = self.position + count * kind.itemsize
        if end > len(self._data):
            raise ArtifactError(
                f"the data tensor ends at byte {len(self._data)}, a constant at byte {end}"
            )
        values = np.frombuffer(self._data, dtype=kind, count=count, offset=self.position)
        self.position = end
        return values.astype(kind.newbyteorder("="))

    def floats(self, count: int) -> NDArray[np.float32]:
        """Read ``count`` float32 numbers."""
        return self.array(count, "<f4").astype(np.float32, copy=False)

    def bits(self, count: int) -> NDArray[np.bool_]:
        """Read ``count`` bits as booleans.

        Raises:
            ArtifactError: too few bytes are left, or bits behind the last one are not 0.
        """
        packed = self.array((count + 7) // 8, "u1").astype(np.uint8, copy=False)
        if count % 8 and packed[-1] >> (count % 8):
            raise ArtifactError("pad bits behind the last bit of a constant are not 0")
        return unpack_bits(packed, count)

    def claim(self, elements: int) -> None:
        """Count decoded elements, so that a small file cannot ask for endless memory.

        Raises:
            ArtifactError: more than 2^28 elements in all.
        """
        self._elements += elements
        if self._elements > MAX_ELEMENTS:
            raise ArtifactError(f"the program asks for more than {MAX_ELEMENTS} weights")

    def finish(self) -> None:
        """Check that nothing is left.

        Raises:
            ArtifactError: bytes behind the last constant.
        """
        if self.position != len(self._data):
            left = len(self._data) - self.position
            raise ArtifactError(f"{left} bytes of the data tensor belong to no operator")

    def _skip_gap(self, offset: int) -> None:
        gap = self._data[self.position : offset]
        if not 0 <= offset - self.position < 4 or offset > len(self._data) or any(gap):
            raise ArtifactError(
                f"a constant lies at byte {offset}, the canonical order expects "
                f"byte {self.position} or the next multiple of its width"
            )
        self.position = offset
