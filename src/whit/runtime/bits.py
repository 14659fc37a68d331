"""Bits and words: +1 is bit 0, -1 is bit 1, so a dot product is n - 2 * popcount(a xor b).

Bits fill bytes, and bytes fill little-endian 64-bit words, from the lowest bit up. Both operands
of a product carry the same pad bits (0), so that the padding never counts.
"""

import numpy as np
from numpy.typing import NDArray

_BYTE_COUNTS = np.array([bin(value).count("1") for value in range(256)], dtype=np.uint8)
_BLOCK_BYTES = 1 << 22


def pack_bits(negative: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Pack the last axis of booleans [..., n] into bytes [..., ceil(n / 8)], lowest bit first."""
    return np.packbits(negative, axis=-1, bitorder="little")


def unpack_bits(packed: NDArray[np.uint8], count: int) -> NDArray[np.bool_]:
    """Return the first ``count`` bits of the last axis as booleans [..., count]."""
    return np.unpackbits(packed, axis=-1, count=count, bitorder="little").astype(np.bool_)


def bytes_to_words(packed: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return bytes [rows, b] as words [rows, ceil(b / 8)], the missing bytes set to 0."""
    rows, width = packed.shape
    words = np.zeros((rows, -(-width // 8) * 8), dtype=np.uint8)
    words[:, :width] = packed
    return words.view("<u8").astype(np.uint64, copy=False)


def popcount(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Count the 1 bits of each word."""
    if hasattr(np, "bitwise_count"):
        counts: NDArray[np.uint8] = np.bitwise_count(words)
        return counts
    as_bytes = np.ascontiguousarray(words).view(np.uint8).reshape(*words.shape, 8)
    total: NDArray[np.uint8] = _BYTE_COUNTS[as_bytes].sum(axis=-1, dtype=np.uint8)
    return total


def binary_gemm_reference(
    left: NDArray[np.uint64], right: NDArray[np.uint64], count: int
) -> NDArray[np.int32]:
    """Multiply two packed sign matrices exactly.

    Args:
        left: words [m, w].
        right: words [n, w].
        count: number of true bits of a row, pads excluded.

    Returns:
        Dot products [m, n], each count - 2 * popcount(left xor right).
    """
    result = np.empty((left.shape[0], right.shape[0]), dtype=np.int32)
    block = max(1, _BLOCK_BYTES // max(1, 8 * right.size))
    for start in range(0, left.shape[0], block):
        rows = left[start : start + block]
        differing = np.zeros((rows.shape[0], right.shape[0]), dtype=np.int32)
        for word in range(right.shape[1]):
            differing += popcount(rows[:, word, None] ^ right[None, :, word])
        result[start : start + block] = count - 2 * differing
    return result
