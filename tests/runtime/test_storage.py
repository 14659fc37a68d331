import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from whit.errors import ArtifactError
from whit.runtime.codings import Profile
from whit.runtime.data_section import DataReader, DataWriter
from whit.runtime.float_codings import CodeBook
from whit.runtime.layout import Record
from whit.runtime.layouts import holds_two_four
from whit.runtime.storage import FORMAT_CODES, FORMATS
from whit.runtime.weights import StoredWeight, read_weight

GOLDEN = Path(__file__).parents[1] / "golden"
ROW = 3  # columns of the malformed weights below
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
SHAPES = st.one_of(
    st.sampled_from([(1, 1), (1, 7), (5, 3), (3, 129), (2, 300), (7, 16)]),
    st.tuples(st.integers(1, 12), st.integers(1, 40)),
)
INTEGERS = {
    "bits": (-1, 1),
    "ternary": (-1, 1),
    "ternary5": (-1, 1),
    "int4": (-8, 7),
    "int8": (-128, 127),
}


def by_name(name):
    return FORMATS[FORMAT_CODES[name]]


def dtype_of(values):
    return np.int8 if values.min() >= -128 and values.max() <= 127 else np.int16


@st.composite
def matrices(draw, form):
    """A matrix that fits a format, with some zeros where the layout leaves them out."""
    shape, coding = draw(SHAPES), form.coding
    if coding.name == "bits" and not form.layout.sparse:
        return draw(arrays(np.int8, shape, elements=st.sampled_from([-1, 1])))
    if coding.name == "planes":
        bits = draw(st.integers(2, 16))
        low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        values = draw(arrays(np.int16, shape, elements=st.integers(low, high)))
        return values.astype(dtype_of(values))
    if coding.integers:
        values = draw(arrays(np.int8, shape, elements=st.integers(*INTEGERS[coding.name])))
    elif isinstance(coding, CodeBook):
        book = draw(st.lists(FLOATS, min_size=1, max_size=1 << coding.bits, unique=True))
        values = draw(arrays(np.float32, shape, elements=st.sampled_from(book)))
    else:
        numbers = st.floats(width=16, allow_nan=False, allow_infinity=False)
        numbers = numbers if coding.name == "float16" else FLOATS
        values = draw(arrays(np.float32, shape, elements=numbers, fill=st.just(0.0)))
    values = values + values.dtype.type(0)
    if form.layout.name == "two_four":
        values[:, 1::4], values[:, 2::4] = 0, 0
    if isinstance(coding, CodeBook) and form.layout.sparse:
        values[0, 0] = values[0, 0] or 1  # a book is never empty
        if np.unique(values[values != 0]).size > 1 << coding.bits:
            values[values == 1] = 0
    return values


def written(weight):
    """The data section of a weight behind one other byte, so that alignment matters."""
    writer = DataWriter()
    writer.append(b"x")
    first = weight.write(writer)
    return first, writer.to_bytes()


def round_trip(weight, **fields):
    first, data = written(weight)
    reader = DataReader(data)
    reader.array(1, "u1")
    found = read_weight(Record(1, **weight.record_fields(), first=first, **fields), reader)
    reader.finish()
    assert written(found) == (first, data)
    return found


@pytest.mark.parametrize("form", FORMATS.values(), ids=lambda form: form.name)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_every_format_round_trips_exactly(form, data):
    values = data.draw(matrices(form))
    size = data.draw(st.sampled_from([0, 1, values.shape[0]])) if form.integers else 0
    scale = np.linspace(0.5, 2, size, dtype=np.float32)
    weight = StoredWeight(form, values, scale)
    found = round_trip(weight)
    assert found.values.dtype == values.dtype
    assert found.values.tobytes() == values.tobytes()
    np.testing.assert_array_equal(found.scale, scale)
    assert found.stored_bytes == weight.stored_bytes


@pytest.mark.parametrize("form", FORMATS.values(), ids=lambda form: form.name)
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_sizes_are_told_without_encoding(form, data):
    other = data.draw(st.sampled_from([f for f in FORMATS.values() if f.integers == form.integers]))
    values = data.draw(matrices(other))
    distinct = np.unique(values).size
    profile = Profile(
        rows=values.shape[0],
        columns=values.shape[1],
        nonzero=int(np.count_nonzero(values)),
        low=float(values.min()),
        high=float(values.max()),
        entries=distinct,
        half=by_name("float16").encode(values) is not None,
        paired=holds_two_four(values),
    )
    encoded = form.encode(values)
    expected = None if encoded is None else len(encoded)
    assert form.size(profile) == expected


def test_the_formats_are_those_of_the_document():
    names = [FORMATS[code].name for code in range(29)]
    assert len(FORMATS) == 29
    assert names[:12] == [
        "float32", "bits", "ternary", "mask_float32", "mask_signs", "csr_float32", "csr_signs",
        "float16", "ternary5", "int8", "int4", "planes",
    ]  # fmt: skip
    assert names[12:] == [
        "codebook1", "codebook2", "codebook4", "codebook8", "mask_float16", "mask_int8",
        "mask_int4", "mask_codebook4", "mask_codebook8", "csr_float16", "csr_int8", "csr_int4",
        "csr_codebook4", "csr_codebook8", "two_four_float32", "two_four_float16", "two_four_int8",
    ]  # fmt: skip
    bits = {form.name: form.bits for form in FORMATS.values()}
    assert bits["bits"] == 1 and bits["mask_signs"] == bits["csr_signs"] == 2
    assert bits["ternary5"] == 2 and bits["csr_int4"] == 4 and bits["two_four_float16"] == 16


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("bits", [[1, -1, -1], [1, -1, -1], [1, -1, -1]], "b601"),
        ("ternary", [[1, 0, -1, 1, -1]], "7103"),
        ("ternary5", [[-1, 0, 1, 0, -1, 1]], "3002"),  # 0 + 3 + 18 + 27 + 0; 2
        ("int4", [[1, -1, -8]], "f108"),
        ("int8", [[1, -1, -128]], "01ff80"),
        ("planes", [[1, -2, 0]], "020201"),  # sign plane 010, low plane 100
        ("planes", [[3, -4, 0]], "03020101"),
        ("float16", [[1.0, -2.0]], "003c00c0"),
        ("codebook1", [[0.5, -1.0, 0.5]], "01000000000080bf0000003f05"),
        ("mask_int8", [[0, 5, 0, -1]], "0a05ff"),
        ("mask_float16", [[0.0, 1.0]], "0200003c"),
        ("mask_codebook4", [[0.0, 1.0]], "02000000000000000000803f00"),
        ("csr_int4", [[0, 5], [0, 0], [-1, 3]], "010002010001f503"),
        ("csr_float16", [[0.0, 1.0]], "0101003c"),
        ("two_four_int8", [[0, 5, 0, -1, 0, 0, 7, 0]], "8d05ff0007"),  # positions 1, 3; 0, 2
        ("two_four_float16", [[0.0, 0.0, 0.0, 1.0]], "0c000000003c"),
        ("two_four_float32", [[0.0, 1.0]], "04000000000000000000803f"),
    ],
)
def test_formats_have_the_documented_bytes(name, values, expected):
    form = by_name(name)
    matrix = np.array(values, dtype=np.int8 if form.integers else np.float32)
    assert form.encode(matrix).hex() == expected


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("bits", [[1, 0]]),
        ("mask_signs", [[2, 0]]),
        ("ternary", [[2]]),
        ("ternary5", [[-2]]),
        ("int4", [[8]]),
        ("int8", [[128]]),
        ("planes", [[1 << 15]]),
        ("float16", [[0.1]]),
        ("float16", [[1e6]]),
        ("codebook1", [[1.0, 2.0, 3.0]]),
        ("codebook8", [[float("inf")]]),
        ("mask_codebook4", [[0.0, 0.0]]),
        ("two_four_int8", [[1, 1, 1, 0]]),
    ],
)
def test_values_that_do_not_fit_are_not_encoded(name, values):
    form = by_name(name)
    matrix = np.array(values, dtype=np.int32 if form.integers else np.float32)
    assert form.encode(matrix) is None


def test_sizes_of_the_formats():
    random = np.random.default_rng(0)
    levels = random.integers(-1, 2, (37, 41)).astype(np.int8)
    assert len(by_name("ternary5").encode(levels)) == -(-37 * 41 // 5)
    dense = random.normal(size=(128, 128)).astype(np.float32)
    halves = dense * np.tile(np.array([1, 0, 0, 1], dtype=np.float32), 32)
    assert len(by_name("two_four_float32").encode(halves)) <= 0.54 * 4 * halves.size
    sparse = random.normal(size=(784, 512)).astype(np.float32) * (random.random((784, 512)) < 0.05)
    for name in ("mask_float32", "csr_float32"):
        assert len(by_name(name).encode(sparse)) <= 0.12 * 4 * sparse.size


def test_wide_rows_use_wider_indices():
    values = np.zeros((2, 70_000), dtype=np.float32)
    values[1, 69_999] = 2.5
    weight = StoredWeight(FORMATS[5], values)
    assert weight.stored_bytes == 2 * 4 + 4 + 4
    np.testing.assert_array_equal(round_trip(weight).values, values)


def test_two_four_exists_exactly_where_no_group_has_three_non_zeros():
    form = by_name("two_four_int8")
    for group in itertools.product([0, 1], repeat=4):
        for last in itertools.product([0, 1], repeat=3):
            values = np.array([[*group, *last]], dtype=np.int8) * np.arange(1, 8, dtype=np.int8)
            possible = sum(group) <= 2 and sum(last) <= 2
            assert holds_two_four(values) == possible
            assert (form.encode(values) is not None) == possible
            if possible:
                np.testing.assert_array_equal(round_trip(StoredWeight(form, values)).values, values)


@given(arrays(np.int8, (3, 20), elements=st.integers(-2, 2)), st.sampled_from([1, 2, 4, 5]))
@settings(max_examples=60, deadline=None)
def test_groups_of_a_convolution_run_along_the_channels(values, taps):
    channels_fastest = values.reshape(3, 20 // taps, taps).transpose(0, 2, 1).reshape(3, 20)
    form = by_name("two_four_int8")
    expected = form.encode(np.ascontiguousarray(channels_fastest))
    assert form.encode(values, taps) == expected
    assert holds_two_four(values, taps) == (expected is not None)
    if expected is not None:
        found = form.decode(DataReader(expected), 3, 20, taps)
        np.testing.assert_array_equal(found, values)


def malformed(name, data, message, columns=ROW):
    return pytest.param(name, bytes.fromhex(data), columns, message, id=f"{name} {message}")


@pytest.mark.parametrize(
    ("name", "data", "columns", "message"),
    [
        malformed("ternary", "02", "forbidden code 2"),
        malformed("ternary", "40", "pad bits"),
        malformed("bits", "ff", "pad bits"),
        malformed("ternary5", "f3", "243 or more", columns=5),
        malformed("ternary5", "1b", "not 0"),
        malformed("int4", "0010", "pad bits"),
        malformed("int8", "0000", "ends at byte"),
        malformed("planes", "0107", "1 bit planes"),
        malformed("planes", "11", "17 bit planes"),
        malformed("planes", "03070700", "fewer hold"),
        malformed("planes", "0201", "ends at byte"),
        malformed("planes", "020800", "pad bits"),
        malformed("codebook1", "02000000", "head of a code book"),
        malformed("codebook1", "01010000", "head of a code book"),
        malformed("codebook1", "01000000000080bf0000803f00", "not used"),
        malformed("codebook1", "010000000000803f000080bf05", "ascending"),
        malformed("codebook1", "010000000000803f0000803f05", "ascending"),
        malformed("codebook1", "010000000000803f0000807f05", "finite"),
        malformed("codebook1", "010000000000803f0000c07f05", "finite"),
        malformed("codebook1", "000000000000008000", "-0.0"),
        malformed("codebook1", "000000000000803f01", "above 0"),
        malformed("codebook1", "000000000000803f08", "pad bits"),
        malformed("mask_signs", "03", "ends at byte"),
        malformed("mask_float32", "0100000000000000", "stores a zero"),
        malformed("mask_float32", "0100000000000080", "stores a zero"),
        malformed("mask_float32", "010100000000803f", "canonical"),
        malformed("mask_int8", "0100", "stores a zero"),
        malformed("mask_int4", "0310", "stores a zero"),
        malformed("mask_float16", "01000000", "stores a zero"),
        malformed("mask_codebook4", "01000000000000000000000000", "stores a zero"),
        malformed("csr_signs", "05000000", "more values"),
        malformed("csr_signs", "02010100", "ascend"),
        malformed("csr_signs", "010300", "ascend"),
        malformed("csr_int8", "010000", "stores a zero"),
        malformed("two_four_int8", "010505", "do not ascend"),
        malformed("two_four_int8", "050505", "do not ascend"),
        malformed("two_four_int8", "140505", "pad bits"),
        malformed("two_four_int8", "0e0005", "lowest free"),
        malformed("two_four_int8", "080000", "lowest free"),
        malformed("two_four_int8", "0c0105", "behind the end"),
        malformed("two_four_float16", "040100000000", "canonical"),
        malformed("two_four_float16", "040000000080", "lowest free"),
    ],
)
def test_malformed_weights_are_refused(name, data, columns, message):
    record = Record(1, weight_format=FORMAT_CODES[name], rows=1, columns=columns, first=0)
    with pytest.raises(ArtifactError, match=message):
        read_weight(record, DataReader(data))


@pytest.mark.parametrize("form", FORMATS.values(), ids=lambda form: form.name)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_there_is_one_way_to_write_a_weight(form, data):
    """Whatever bytes are accepted are those that would be written."""
    noise = data.draw(st.binary(min_size=1, max_size=40))
    rows, columns = data.draw(st.sampled_from([(1, 1), (1, 3), (2, 5), (3, 4)]))
    reader = DataReader(noise)
    try:
        values = form.decode(reader, rows, columns)
    except ArtifactError:
        return
    found = form.encode(values)
    if found is None or found != noise[: reader.position]:  # NaN: refused by the program
        assert form.coding.name in ("float16",) and np.isnan(values).any()


@pytest.mark.parametrize("fields", [{"weight_format": 29}, {"weight_format": 0, "scale": 1}])
def test_unknown_formats_and_scales_are_refused(fields):
    with pytest.raises(ArtifactError, match="unknown"):
        read_weight(Record(1, rows=1, columns=3, first=0, **fields), DataReader(bytes(12)))


def test_columns_that_are_no_kernels_are_refused():
    record = Record(2, weight_format=28, rows=1, columns=5, first=0, size_h=2, size_w=2)
    with pytest.raises(ArtifactError, match="no multiple of 4"):
        read_weight(record, DataReader(bytes(12)))


@pytest.mark.parametrize("form", FORMATS.values(), ids=lambda form: form.name)
def test_memory_for_decoding_is_bounded(form):
    code = FORMAT_CODES[form.name]
    with pytest.raises(ArtifactError, match="too large"):
        read_weight(Record(1, weight_format=code, rows=1 << 20, columns=1 << 20), DataReader(b""))
    reader = DataReader(b"")
    reader.claim(1 << 28)
    with pytest.raises(ArtifactError, match="more than"):
        read_weight(Record(1, weight_format=code, rows=1, columns=1, first=0), reader)


def test_the_golden_weights_of_version_1_are_read():
    from whit.runtime.artifact import read_artifact
    from whit.runtime.layout import HEADER_BYTES, RECORD_BYTES

    artifact = read_artifact(GOLDEN / "binary_version1.whit")
    program, found = artifact.program, []
    for start in range(HEADER_BYTES, len(program), RECORD_BYTES):
        kind, code, scale = program[start : start + 3]
        rows, columns, first = np.frombuffer(program[start + 8 : start + 20], "<u4").tolist()
        if kind not in (1, 2):
            continue
        record = Record(
            kind, code, scale, rows=rows, columns=columns, first=first,
            size_h=program[start + 24], size_w=program[start + 25],
        )  # fmt: skip
        reader = DataReader(artifact.data)
        reader.position = first
        weight = read_weight(record, reader)
        writer = DataWriter()
        writer.append(artifact.data[:first])
        assert weight.write(writer) == first
        assert writer.to_bytes() == artifact.data[: reader.position]
        found.append(weight.form.name)
    assert found
