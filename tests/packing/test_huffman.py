from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whit.packing.huffman import canonical_codes, code_lengths, coded_bytes, decode, encode

COUNTS = st.lists(st.integers(1, 1000), min_size=1, max_size=60)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=300))
@settings(max_examples=150, deadline=None)
def test_symbols_round_trip(numbers):
    _, symbols, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    lengths = code_lengths(counts.tolist())
    packed = encode(symbols, lengths)
    assert decode(packed, symbols.size, lengths).tolist() == symbols.tolist()
    table = 5 * counts.size
    assert coded_bytes(counts, 4) == len(packed) + table


@given(COUNTS)
@settings(max_examples=150, deadline=None)
def test_the_mean_length_is_between_the_entropy_and_one_bit_more(counts):
    lengths = np.array(code_lengths(counts))
    shares = np.array(counts) / sum(counts)
    entropy = float(-(shares * np.log2(shares)).sum())
    mean = float((shares * lengths).sum())
    if len(counts) == 1:
        assert mean == 1  # a symbol that is always the same still takes its bit
    else:
        assert entropy - 1e-9 <= mean < entropy + 1


@given(COUNTS)
@settings(max_examples=100, deadline=None)
def test_codes_are_canonical_and_no_code_begins_another(counts):
    lengths = code_lengths(counts)
    words = [
        f"{code:0{length}b}" for code, length in zip(canonical_codes(lengths), lengths, strict=True)
    ]
    assert [len(word) for word in words] == lengths
    ordered = sorted(range(len(words)), key=lambda symbol: (lengths[symbol], symbol))
    assert [words[symbol] for symbol in ordered] == sorted(words)
    assert not any(b.startswith(a) for a, b in zip(sorted(words), sorted(words)[1:], strict=False))
    if len(counts) > 1:
        assert sum(Fraction(1, 1 << length) for length in lengths) == 1


def test_a_known_tree():
    assert code_lengths([5, 9, 12, 13, 16, 45]) == [4, 4, 3, 3, 3, 1]
    assert canonical_codes([4, 4, 3, 3, 3, 1]) == [14, 15, 4, 5, 6, 0]


def test_the_size_counts_bits_and_the_table():
    assert coded_bytes(np.array([900, 50, 50]), 1) == -(-(900 + 200) // 8) + 3 * 2


def test_a_stream_that_ends_early_is_noticed():
    with pytest.raises(StopIteration):
        decode(b"\x00", 20, [1, 1])
