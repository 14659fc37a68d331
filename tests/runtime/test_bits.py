import numpy as np
import pytest

from whit.runtime.bits import (
    binary_gemm_reference,
    bytes_to_words,
    pack_bits,
    popcount,
    unpack_bits,
)


@pytest.mark.parametrize("count", range(1, 131))
def test_product_of_signs_equals_integer_product(count):
    random = np.random.default_rng(count)
    left, right = random.integers(0, 2, (5, count)), random.integers(0, 2, (7, count))
    words = [bytes_to_words(pack_bits(bits.astype(bool))) for bits in (left, right)]
    expected = (1 - 2 * left) @ (1 - 2 * right).T
    found = binary_gemm_reference(words[0], words[1], count)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)


def test_lowest_bit_comes_first():
    assert pack_bits(np.array([True] + [False] * 8)).tolist() == [1, 0]
    assert unpack_bits(np.array([3], dtype=np.uint8), 3).tolist() == [True, True, False]
    assert bytes_to_words(np.array([[1, 2]], dtype=np.uint8)).tolist() == [[0x0201]]


def test_popcount_without_bitwise_count(monkeypatch):
    words = np.random.default_rng(0).integers(0, 2**63, (4, 3), dtype=np.uint64)
    fast = popcount(words)
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    np.testing.assert_array_equal(popcount(words), fast)
    assert fast[0, 0] == bin(int(words[0, 0])).count("1")
