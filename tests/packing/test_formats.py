import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from whit.errors import WhitError
from whit.packing.formats import choose_storage, storage_candidates
from whit.packing.huffman import code_lengths
from whit.runtime.storage import FORMAT_CODES

SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=30)
FEW = st.sampled_from([0.0, -0.0, 0.3, -0.3, 1.0, -1.0, 7.5])
HALVES = st.floats(width=16, allow_nan=False, allow_infinity=False)
ANY = st.floats(width=32, allow_nan=False, allow_infinity=False)
INTEGERS = st.integers(-9, 9).map(lambda k: float(np.float32(k) * np.float32(0.3)))
WIDE = st.integers(-300, 300).map(float)
MATRICES = st.one_of(
    *(arrays(np.float32, SHAPES, elements=kind) for kind in (FEW, HALVES, ANY, INTEGERS, WIDE)),
    arrays(np.float32, SHAPES, elements=ANY, fill=st.just(0.0)),
)


@given(MATRICES)
@settings(max_examples=150, deadline=None)
def test_the_choice_is_exact_and_smallest(values):
    choice = choose_storage(values)
    expected = (values + np.float32(0)).tobytes()
    assert choice.weight.dense().tobytes() == expected
    for candidate in storage_candidates(values):
        weight = candidate.weight()
        assert weight.stored_bytes == candidate.stored_bytes >= choice.weight.stored_bytes
        assert weight.dense().tobytes() == expected


@given(MATRICES, st.sets(st.sampled_from(sorted(FORMAT_CODES))))
@settings(max_examples=60, deadline=None)
def test_no_allowed_format_is_smaller(values, never):
    sizes = {}
    for candidate in storage_candidates(values):
        if candidate.form.name not in never:
            sizes.setdefault(candidate.form.name, []).append(candidate.stored_bytes)
    if not sizes:
        with pytest.raises(WhitError, match="forbidden"):
            choose_storage(values, never=never)
        return
    choice = choose_storage(values, never=never)
    assert choice.weight.form.name not in never
    assert choice.weight.stored_bytes == min(map(min, sizes.values()))
    for name, found in sizes.items():
        forced = choose_storage(values, only=[name])
        assert forced.weight.form.name == name
        assert forced.weight.stored_bytes == min(found) >= choice.weight.stored_bytes


def test_all_ways_to_forbid_formats_leave_the_smallest_of_the_rest():
    values = np.array([[1, -1, 0, 1, 0.0, 0, -1, 1]], dtype=np.float32)
    sizes = {found.form.name: found.stored_bytes for found in storage_candidates(values)}
    names = ["ternary5", "ternary", "mask_signs", "planes", "csr_signs", "codebook2", "int4"]
    assert set(names) <= set(sizes)
    for count in range(len(names) + 1):
        for never in itertools.combinations(names, count):
            rest = min(size for name, size in sizes.items() if name not in never)
            assert choose_storage(values, never=never).weight.stored_bytes == rest


def sparse(share, rows=64, columns=200, signs=False):
    random = np.random.default_rng(0)
    values = random.normal(size=(rows, columns)).astype(np.float32)
    values = np.sign(values) * np.float32(0.3) if signs else values
    return values * (random.random((rows, columns)) < share)


def integers(low, high, share=1.0, rows=64, columns=200):
    random = np.random.default_rng(1)
    values = random.integers(low, high + 1, (rows, columns)).astype(np.float32)
    values[0, :2] = low, high
    return values * (random.random((rows, columns)) < share)


ROWS = np.linspace(0.1, 0.2, 64, dtype=np.float32)[:, None]
BOOK = np.random.default_rng(2).normal(size=16).astype(np.float32)


@pytest.mark.parametrize(
    ("values", "name", "scales"),
    [
        (sparse(1.0), "float32", 0),
        (sparse(1.0, signs=True), "bits", 1),
        (sparse(1.0, signs=True) * np.arange(1, 65, dtype=np.float32)[:, None], "bits", 64),
        (np.sign(sparse(1.0)), "bits", 0),
        (sparse(0.5), "mask_float32", 0),
        (sparse(0.4, signs=True), "mask_signs", 1),
        (sparse(0.02), "csr_float32", 0),
        (sparse(0.02, signs=True), "csr_signs", 1),
        (integers(-1, 1), "ternary5", 0),
        (integers(-1, 1) * ROWS, "ternary5", 64),
        (integers(-2, 1), "planes", 0),
        (integers(-3, 3) * np.float32(0.3), "planes", 1),
        (integers(-8, 7) * ROWS, "int4", 64),
        (integers(-127, 127) * ROWS, "int8", 64),
        (integers(-128, 127), "int8", 0),
        (integers(-1000, 1000) * np.float32(0.1), "planes", 1),
        (integers(-8, 7, share=0.5) * ROWS, "mask_int4", 64),
        (integers(-127, 127, share=0.3) * ROWS, "mask_int8", 64),
        (integers(-8, 7, share=0.02) * ROWS, "csr_int4", 64),
        (integers(-127, 127, share=0.02) * ROWS, "csr_int8", 64),
        (sparse(1.0).astype(np.float16).astype(np.float32), "float16", 0),
        (sparse(0.3).astype(np.float16).astype(np.float32), "mask_float16", 0),
        (sparse(0.02).astype(np.float16).astype(np.float32), "csr_float16", 0),
        (BOOK[integers(0, 1).astype(int)], "codebook1", 0),
        (BOOK[integers(0, 3).astype(int)], "codebook2", 0),
        (BOOK[integers(0, 15).astype(int)], "codebook4", 0),
        (sparse(1.0).reshape(-1)[integers(0, 255).astype(int)], "codebook8", 0),
        (BOOK[integers(0, 15).astype(int)] * (sparse(0.4) != 0), "mask_codebook4", 0),
        (BOOK[integers(0, 15).astype(int)] * (sparse(0.02) != 0), "csr_codebook4", 0),
        (np.zeros((4, 4)), "csr_signs", 0),
    ],
)
def test_values_decide(values, name, scales):
    choice = choose_storage(values.astype(np.float32))
    if not values.any():  # as small as a bit mask: integers, and the lowest code
        assert choice.weight.form.integers and choice.weight.stored_bytes <= 2
        return
    assert choice.weight.form.name == name
    assert choice.weight.scale.size == scales
    assert choice.reason.startswith(f"{name}: ")
    np.testing.assert_array_equal(choice.weight.dense(), values.astype(np.float32))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (sparse(1.0, signs=True), "bits: only -s, +s, next "),
        (integers(-1, 1) * ROWS, "ternary5: only -s of its row, 0, +s of its row, 3"),
        (integers(-8, 7), "int4: only integers -8 to 7 (4 bits), "),
        (integers(-3, 3) * np.float32(0.3), "planes: only integers -3 to 3 times s (3 bits), "),
        (BOOK[integers(0, 15).astype(int)], "codebook4: only 16 different values, next "),
        (sparse(1.0).astype(np.float16).astype(np.float32), "float16: all exact in 16 bits, "),
    ],
)
def test_the_reason_says_what_the_values_are(values, reason):
    assert choose_storage(values.astype(np.float32)).reason.startswith(reason)


def test_a_two_four_weight_can_be_asked_for():
    values = sparse(1.0) * np.tile(np.array([1, 0, 0, 1], dtype=np.float32), 50)
    choice = choose_storage(values, only=["two_four_float32"])
    assert choice.reason.startswith("two_four_float32: many magnitudes, at most 2 of each 4")
    assert choice.weight.stored_bytes <= choose_storage(values).weight.stored_bytes
    np.testing.assert_array_equal(choice.weight.dense(), values)


def test_groups_of_a_convolution_follow_its_channels():
    kernels = np.zeros((2, 8, 3), dtype=np.float32)
    kernels[:, 0], kernels[:, 5] = 0.7, 0.2
    values = kernels.reshape(2, 24)
    choice = choose_storage(values, taps=3, only=["two_four_float16", "two_four_float32"])
    assert choice.weight.taps == 3
    np.testing.assert_array_equal(choice.weight.dense(), values)
    with pytest.raises(WhitError, match="needs at most 2 non-zero values in each 4"):
        choose_storage(values, only=["two_four_float32"])


@pytest.mark.parametrize(
    ("values", "only", "message"),
    [
        (integers(-1, 1), ["bits"], r"3 levels \(-1, 0, \+1\) do not fit in bits"),
        (integers(-9, 8), ["int4"], r"integers -9 to 8 do not fit in int4 \(-8 to 7\)"),
        (integers(-9, 8), ["int4"], r"int8 \(12,800 bytes\)"),
        (sparse(1.0), ["int8", "planes"], "as int8 or planes: int8 needs integers times a scale"),
        (sparse(1.0), ["float16"], "no binary16 numbers"),
        (sparse(1.0), ["codebook8"], r"more than 4096 different values do not fit in codebook8"),
        (BOOK[integers(0, 15).astype(int)], ["codebook2"], r"16 .* codebook2 \(4 entries\)"),
        (np.zeros((2, 2)), ["mask_codebook4"], "needs a value that is not 0"),
        (sparse(1.0), ["two_four_float32"], "at most 2 non-zero values in each 4"),
        (sparse(1.0), [], "no format was named"),
        (sparse(1.0), ["int3"], "no weight format 'int3'; the formats are float32, bits, "),
    ],
)
def test_what_does_not_fit_is_refused_in_words(values, only, message):
    with pytest.raises(WhitError, match=message):
        choose_storage(values.astype(np.float32), only=only)


def test_forbidden_formats_are_named():
    with pytest.raises(WhitError, match="float32 is forbidden.*Formats that fit: mask_float32"):
        choose_storage(sparse(1.0), only=["float32"], never=["float32"])
    with pytest.raises(WhitError, match="no weight format 'x'"):
        choose_storage(sparse(1.0), never=["x"])


def test_negative_zero_of_a_pruned_weight_is_a_zero():
    values = -np.ones((8, 8), dtype=np.float32) * np.eye(8, dtype=np.float32)
    assert choose_storage(values).weight.nonzero == 8


def test_a_float_row_of_another_magnitude_is_not_one_bit():
    values = np.ones((3, 4), dtype=np.float32)
    values[1, 2] = np.nextafter(np.float32(1), np.float32(2))
    assert choose_storage(values).weight.form.name != "bits"
    assert not choose_storage(values).weight.form.integers


def test_huffman_bytes_count_codes_table_and_scales():
    values = integers(-8, 7, share=0.3) * ROWS
    choice = choose_storage(values)
    symbols, counts = np.unique(choice.weight.values, return_counts=True)
    bits = int((np.array(code_lengths(counts.tolist())) * counts).sum())
    assert choice.huffman_bytes == -(-bits // 8) + 2 * symbols.size + 4 * 64
    shares = counts / counts.sum()
    entropy_bytes = float(-(shares * np.log2(shares)).sum()) * values.size / 8
    assert choice.huffman_bytes > entropy_bytes
    assert choose_storage(sparse(1.0)).huffman_bytes is None
    few = choose_storage(BOOK[integers(0, 15).astype(int)])
    assert few.huffman_bytes > few.weight.stored_bytes - 4  # 16 equally frequent values
