import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from whit.errors import ArtifactError
from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.layout import Record
from whit.runtime.storage import FORMAT_CODES, FORMATS
from whit.runtime.weights import StoredWeight, read_weight


def stored(name, values, scale=(), taps=1):
    form = FORMATS[FORMAT_CODES[name]]
    dtype = np.int8 if form.integers else np.float32
    values = np.array(values)
    values = values.astype(dtype if np.abs(values).max() < 128 else np.int16)
    return StoredWeight(form, values, np.array(scale, dtype=np.float32), taps)


@given(
    arrays(np.int16, (3, 7), elements=st.integers(-(1 << 15), (1 << 15) - 1)),
    st.integers(-1, 20),
    st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_fewer_planes_are_the_middle_of_the_integers_that_share_them(values, planes, scaled):
    scale = np.array([0.5, 2, 0.3], dtype=np.float32) if scaled else np.empty(0, np.float32)
    weight = StoredWeight(FORMATS[11], values, scale)
    n = weight.bits
    kept = min(max(planes, 1), n)
    found = weight.dense(planes=planes)
    for row, column in np.ndindex(3, 7):
        k = int(values[row, column])
        step = 1 << (n - kept)
        expected = np.float32(k // step * step + (step - 1) / 2)
        expected = expected * scale[row] if scaled else expected
        assert found[row, column] == expected
    np.testing.assert_array_equal(weight.dense(planes=16), weight.dense())


def test_the_lowest_integer_with_each_number_of_planes():
    weight = stored("planes", [[-8, 7, 0]])
    assert weight.bits == 4
    assert weight.dense(planes=1).tolist() == [[-4.5, 3.5, 3.5]]
    assert weight.dense(planes=2).tolist() == [[-6.5, 5.5, 1.5]]
    assert weight.dense(planes=3).tolist() == [[-7.5, 6.5, 0.5]]
    assert weight.dense(planes=4).tolist() == [[-8, 7, 0]]


def test_other_formats_ignore_planes():
    weight = stored("int8", [[-128, 127]], [0.5])
    assert weight.dense(planes=1).tolist() == [[-64, 63.5]]


def test_bits_and_largest_magnitudes():
    assert stored("planes", [[0, 0]]).bits == 2
    assert stored("planes", [[-300, 2]]).bits == 10
    assert stored("planes", [[-300, 2]]).largest == 512
    assert stored("int8", [[1]]).largest == 128
    assert stored("ternary5", [[1]]).bits == 2
    assert stored("csr_signs", [[1]]).largest == 1
    assert stored("float32", [[1]]).largest == 0
    assert stored("ternary5", [[1] * 500]).stored_bits == 1.6
    assert stored("bits", [[1, -1]]).signs and not stored("codebook1", [[1, -1]]).signs


def test_integers_without_a_scale_are_exact():
    assert stored("int4", [[3, -8]]).exact_integers
    assert not stored("int4", [[3, -8]], [0.5]).exact_integers
    assert stored("int4", [[3, -8]], [0.5]).without_scale().exact_integers
    assert not stored("float16", [[3, -8]]).exact_integers


def test_scaling_keeps_integers_and_widens_floats_only_where_it_must():
    factors = np.array([0.5, 0.3], dtype=np.float32)
    integers = stored("int4", [[1, 2], [3, 4]]).scaled(factors)
    assert integers.form.name == "int4"
    np.testing.assert_array_equal(integers.scale, factors)
    halves = stored("mask_float16", [[1, 0], [3, 4]])
    assert halves.scaled(np.float32([0.5, 2])).form.name == "mask_float16"
    widened = halves.scaled(factors)
    assert widened.form.name == "mask_float32"
    np.testing.assert_array_equal(widened.dense(), halves.dense() * factors[:, None])
    assert widened.stored_bytes == 4 + 3 * 4


def test_values_that_do_not_fit_their_format_are_refused():
    with pytest.raises(ArtifactError, match="do not fit the weight format int4"):
        _ = stored("int4", [[9]]).stored_bytes


@pytest.mark.parametrize("kind", [1, 2])
def test_the_kernel_is_known_from_the_record_of_a_convolution(kind):
    """A linear record uses none of these fields; a convolution groups along its channels."""
    values = np.zeros((2, 8, 3), dtype=np.float32)
    values[:, 0], values[:, 5] = 1, 2
    weight = stored("two_four_float32", values.reshape(2, 24), taps=3 if kind == 2 else 1)
    if kind == 1:
        with pytest.raises(ArtifactError, match="do not fit"):
            _ = weight.stored_bytes  # three ones in a row
        weight = stored("two_four_float32", values.transpose(0, 2, 1).reshape(2, 24))
    writer = DataWriter()
    first = weight.write(writer)
    fields = {"size_h": 1, "size_w": 3} if kind == 2 else {}
    record = Record(kind, **weight.record_fields(), first=first, **fields)
    found = read_weight(record, DataReader(writer.to_bytes()))
    assert found.taps == weight.taps
    np.testing.assert_array_equal(found.dense(), weight.dense())
