import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whit.errors import ArtifactError
from whit.runtime.layout import Activation, Record, integer_domain
from whit.runtime.operators import Lookup, Quantize, Requantize


def int32(*numbers):
    return np.array(numbers, dtype=np.int32)


@pytest.mark.parametrize(
    ("low", "high", "domain"),
    [
        (0, 255, "uint8"),
        (3, 7, "uint8"),
        (-1, 127, "int8"),
        (-128, 0, "int8"),
        (-1, 128, "int16"),
        (0, 256, "int16"),
        (-32768, 32767, "int16"),
    ],
)
def test_domains_by_their_limits(run, low, high, domain):
    assert integer_domain(low, high) == domain
    found = run(Quantize(0.0, 1.0, low, high), np.array([[-1e9, 1e9]], dtype=np.float32))
    assert found.tolist() == [[low, high]]
    assert found.dtype == domain


@pytest.mark.parametrize("low, high", [(5, 4), (-32769, 0), (0, 32768)])
def test_limits_without_a_domain_are_refused(low, high):
    with pytest.raises(ArtifactError, match="no domain"):
        Quantize(0.0, 1.0, low, high).result(Activation((1,), "float32"))


def test_quantize_rounds_half_to_even_and_nan_to_low(run):
    x = np.array([[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, np.nan, np.inf, -np.inf]], dtype=np.float32)
    assert run(Quantize(0.0, 1.0, -7, 7), x).tolist() == [[-2, -2, 0, 0, 2, 2, -7, 7, -7]]
    assert run(Quantize(0.5, 2.0, 0, 15), x).tolist() == [[0, 0, 0, 0, 2, 4, 0, 15, 0]]


@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=8),
    st.floats(-100, 100, width=32),
    st.floats(-64, 64, width=32),
)
def test_quantize_is_its_formula_in_float32(values, shift, factor):
    x = np.array([values], dtype=np.float32)
    operator = Quantize(shift, factor, -128, 127)
    expected = []
    for value in x[0]:
        product = np.float32(np.float32(value - np.float32(shift)) * np.float32(factor))
        expected.append(min(max(round(float(product)), -128), 127))
    assert operator.run(x).tolist() == [expected]


def by_hand(x, offset, multiplier, exponent, low, high):
    rounded = round(Fraction(x * multiplier + offset, 2**exponent))  # half to even
    return min(max(rounded, low), high)


def int64(*numbers):
    return np.array(numbers, dtype=np.int64)


@given(
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=6),
    st.integers(-(2**62), 2**62),
    st.integers(0, 2**31 - 1),
    st.integers(1, 62),
)
def test_requantize_is_its_formula_in_whole_numbers(values, offset, multiplier, exponent):
    operator = Requantize(int32(multiplier), int64(offset), exponent, -32768, 32767)
    try:
        operator.result(Activation((len(values),), "int32"))
    except ArtifactError:
        assert 2**31 * multiplier + abs(offset) + 2**exponent >= 2**63
        return
    expected = [by_hand(v, offset, multiplier, exponent, -32768, 32767) for v in values]
    assert operator.run(int32(values)).tolist() == [expected]


def test_requantize_rounds_half_to_even_also_below_zero(run):
    x = int32([-5, -3, -2, -1, 0, 1, 2, 3, 5])
    assert run(Requantize(int32(1), None, 1, -9, 9), x, "int32").tolist() == [
        [-2, -2, -1, 0, 0, 0, 1, 2, 2]
    ]


def test_requantize_at_the_ends_of_64_bits(run):
    x = int32([-(2**31), 2**31 - 1])
    largest = Requantize(int32(2**31 - 1), None, 61, -32768, 32767)
    assert run(largest, x, "int32").tolist() == [
        [by_hand(v, 0, 2**31 - 1, 61, -32768, 32767) for v in x[0].tolist()]
    ]
    source = Activation((1,), "int32")
    with pytest.raises(ArtifactError, match="leave 64 bits"):
        Requantize(int32(2**31 - 1), int64(-(2**62)), 62, 0, 255).result(source)


@pytest.mark.parametrize("domain", ["sign", "uint8", "int8", "int16"])
def test_requantize_of_each_domain_and_channel(run, domain):
    x = np.array([[[-1, 1], [1, 1], [1, -1]]])
    if domain == "uint8":
        x = np.abs(x) * 200
    stored = x < 0 if domain == "sign" else x.astype(domain)
    multipliers, offsets = int32(3, 5, 0), int64(-30, 0, 1000)
    found = run(Requantize(multipliers, offsets, 2, -8, 300), stored, domain)
    expected = [
        [by_hand(int(v), int(offsets[c]), int(multipliers[c]), 2, -8, 300) for v in x[0, c]]
        for c in range(3)
    ]
    assert found.tolist() == [expected]
    assert found.dtype == np.int16


@pytest.mark.parametrize(
    ("operator", "domain", "message"),
    [
        (Requantize(int32(1), None, 1, 0, 9), "float32", "whole numbers"),
        (Requantize(int32(1), None, 0, 0, 9), "int32", "shifts by 0"),
        (Requantize(int32(1), None, 63, 0, 9), "int32", "shifts by 63"),
        (Requantize(int32(-1), None, 1, 0, 9), "int32", "negative"),
        (Requantize(int32(1, 2), None, 1, 0, 9), "int32", "does not fit"),
        (Requantize(int32(1), int64(1, 2), 1, 0, 9), "int32", "does not fit"),
        (Requantize(int32(1), None, 1, 9, 0), "int32", "no domain"),
        (Lookup(np.ones(3, dtype=np.float32)), "int8", "reads uint8"),
        (Lookup(np.ones(257, dtype=np.float32)), "uint8", "257 entries"),
    ],
)
def test_impossible_operators_are_refused(operator, domain, message):
    with pytest.raises(ArtifactError, match=message):
        operator.result(Activation((3,), domain))


@pytest.mark.parametrize(
    ("kind", "record", "message"),
    [
        (Requantize, Record(26, scale=0, first=0), "multipliers"),
        (Requantize, Record(26, scale=3, first=0), "multipliers"),
        (Requantize, Record(26, scale=1, operand=3, first=0), "an offset is missing"),
        (Requantize, Record(26, scale=1), "no place"),
        (Quantize, Record(25), "no place"),
        (Lookup, Record(28, columns=0, first=0), "0 entries"),
        (Lookup, Record(28, columns=257, first=0), "257 entries"),
    ],
)
def test_impossible_records_are_refused(kind, record, message):
    with pytest.raises(ArtifactError, match=message):
        kind.read(record, None, Activation((3,), "int32"))


def test_lookup_takes_the_last_for_what_is_larger(run):
    table = np.array([0.5, -1.0, math.pi], dtype=np.float32)
    x = np.array([[0, 1, 2, 3, 255]], dtype=np.uint8)
    np.testing.assert_array_equal(run(Lookup(table), x, "uint8"), table[[0, 1, 2, 2, 2]][None])
    whole = np.arange(256, dtype=np.float32)
    assert run(Lookup(whole), x, "uint8").tolist() == [[0, 1, 2, 3, 255]]
