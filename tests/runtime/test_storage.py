import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from whit.errors import ArtifactError
from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.layout import Record
from whit.runtime.storage import FORMATS
from whit.runtime.weights import StoredWeight, read_weight

SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def round_trip(weight):
    writer = DataWriter()
    writer.append(b"x")  # so that alignment matters
    first = weight.write(writer)
    data = writer.to_bytes()
    reader = DataReader(data)
    reader.array(1, "u1")
    found = read_weight(Record(1, **weight.record_fields(), first=first), reader)
    reader.finish()
    return found


@pytest.mark.parametrize("form", FORMATS.values(), ids=lambda form: form.name)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_every_format_round_trips_exactly(form, data):
    if form.levels:
        lowest = st.sampled_from([-1, 1] if form.name == "bits" else [-1, 0, 1])
        values = data.draw(arrays(np.int8, SHAPES, elements=lowest))
        size = data.draw(st.sampled_from([0, 1, values.shape[0]]))
        scale = np.linspace(0.5, 2, size, dtype=np.float32)
    else:
        values = data.draw(arrays(np.float32, SHAPES, elements=FLOATS, fill=st.just(0.0)))
        values = values + np.float32(0)
        scale = np.empty(0, dtype=np.float32)
    weight = StoredWeight(form, values, scale)
    found = round_trip(weight)
    assert found.values.tobytes() == values.tobytes()
    np.testing.assert_array_equal(found.scale, scale)
    assert found.stored_bytes == weight.stored_bytes


def test_dense_formats_take_the_documented_bytes():
    levels = np.tile(np.array([[1, -1, -1]], dtype=np.int8), (3, 1))
    assert FORMATS[1].encode(levels) == bytes([0b10110110, 0b1])
    assert FORMATS[2].encode(np.array([[1, 0, -1, 1, -1]], dtype=np.int8)) == bytes([0x71, 0x03])
    assert FORMATS[1].encode(np.array([[1, 0]], dtype=np.int8)) is None


def test_wide_rows_use_wider_indices():
    values = np.zeros((2, 70_000), dtype=np.float32)
    values[1, 69_999] = 2.5
    weight = StoredWeight(FORMATS[5], values)
    assert weight.stored_bytes == 2 * 4 + 4 + 4
    np.testing.assert_array_equal(round_trip(weight).values, values)


@pytest.mark.parametrize(
    ("code", "data", "message"),
    [
        (2, b"\x02", "forbidden code"),
        (1, b"\xff", "pad bits"),
        (4, b"\x03", "ends at byte"),
        (3, b"\x01\0\0\0\0\0\0\0", "stores a zero"),
        (6, b"\x05\x00\x00\x00", "more values"),
        (6, b"\x02\x01\x01\x00", "ascend"),
        (9, b"", "unknown"),
    ],
)
def test_malformed_weights_are_refused(code, data, message):
    with pytest.raises(ArtifactError, match=message):
        read_weight(Record(1, weight_format=code, rows=1, columns=3, first=0), DataReader(data))


def test_memory_for_decoding_is_bounded():
    record = Record(1, weight_format=6, rows=1 << 20, columns=1 << 20, first=0)
    with pytest.raises(ArtifactError, match="too large"):
        read_weight(record, DataReader(b""))
