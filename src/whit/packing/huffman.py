"""Canonical Huffman codes: what an entropy coder would make of the symbols of a weight.

No weight format uses them (every weight is read in place, without unpacking); their size is a
yardstick for the formats that there are. The mean length of a code lies between the entropy of
the symbols and one bit above it.

Reference:
    D. A. Huffman, A Method for the Construction of Minimum-Redundancy Codes, 1952.
"""

import heapq
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def code_lengths(counts: Sequence[int]) -> list[int]:
    """Return the length in bits of the code of each symbol.

    Args:
        counts: how often each symbol occurs, at least once; one symbol or more.

    Returns:
        Lengths from a Huffman tree; a single symbol has length 1.
    """
    if len(counts) == 1:
        return [1]
    heap = [(count, symbol) for symbol, count in enumerate(counts)]
    heapq.heapify(heap)
    parents = [0] * (2 * len(counts) - 1)
    for node in range(len(counts), len(parents)):
        (first, left), (second, right) = heapq.heappop(heap), heapq.heappop(heap)
        parents[left] = parents[right] = node
        heapq.heappush(heap, (first + second, node))
    depths = [0] * len(parents)
    for node in reversed(range(len(parents) - 1)):  # a parent has a larger number than its children
        depths[node] = depths[parents[node]] + 1
    return depths[: len(counts)]


def canonical_codes(lengths: Sequence[int]) -> list[int]:
    """Return the code of each symbol, which follows from the lengths alone.

    Args:
        lengths: length of each code in bits.

    Returns:
        Codes as numbers; of equal lengths, the earlier symbol has the smaller code.
    """
    codes = [0] * len(lengths)
    code, length = 0, 0
    for symbol in sorted(range(len(lengths)), key=lambda symbol: (lengths[symbol], symbol)):
        code <<= lengths[symbol] - length
        length = lengths[symbol]
        codes[symbol] = code
        code += 1
    return codes


def encode(symbols: NDArray[np.integer], lengths: Sequence[int]) -> bytes:
    """Write symbols as bits, the first bit of a code first, bytes filled from the lowest bit.

    Args:
        symbols: numbers of symbols, below ``len(lengths)``.
        lengths: length of the code of each symbol in bits.
    """
    codes = canonical_codes(lengths)
    words = [f"{code:0{length}b}" for code, length in zip(codes, lengths, strict=True)]
    text = "".join([words[symbol] for symbol in symbols.tolist()])
    bits = np.frombuffer(text.encode("ascii"), dtype=np.uint8) - ord("0")
    return np.packbits(bits, bitorder="little").tobytes()


def decode(packed: bytes, count: int, lengths: Sequence[int]) -> NDArray[np.int64]:
    """Read ``count`` symbols, the inverse of ``encode``."""
    codes = canonical_codes(lengths)
    symbol_of: Mapping[tuple[int, int], int] = {
        (length, code): symbol
        for symbol, (length, code) in enumerate(zip(lengths, codes, strict=True))
    }
    bits = iter(np.unpackbits(np.frombuffer(packed, dtype=np.uint8), bitorder="little").tolist())
    symbols = np.empty(count, dtype=np.int64)
    for position in range(count):
        length, code = 1, next(bits)
        while (length, code) not in symbol_of:
            length, code = length + 1, code << 1 | next(bits)
        symbols[position] = symbol_of[length, code]
    return symbols


def coded_bytes(counts: NDArray[np.integer], symbol_bytes: int) -> int:
    """Return the bytes of Huffman-coded symbols and of the table that decodes them.

    Args:
        counts: how often each distinct symbol occurs, at least once.
        symbol_bytes: bytes of one symbol in the table, where its code length takes one more.
    """
    lengths = np.array(code_lengths(counts.tolist()))
    bits = int((lengths * counts).sum())
    return (bits + 7) // 8 + counts.size * (1 + symbol_bytes)
