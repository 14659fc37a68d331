import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from whit.packing.formats import choose_storage, storage_candidates

SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=30)
FEW = st.sampled_from([0.0, -0.0, 0.3, -0.3, 1.0, -1.0, 7.5])
ANY = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(
    st.one_of(arrays(np.float32, SHAPES, elements=FEW), arrays(np.float32, SHAPES, elements=ANY))
)
@settings(max_examples=200, deadline=None)
def test_the_choice_is_exact_and_smallest(values):
    choice = choose_storage(values)
    assert choice.weight.dense().tobytes() == (values + np.float32(0)).tobytes()
    for candidate in storage_candidates(values):
        assert choice.weight.stored_bytes <= candidate.stored_bytes
        np.testing.assert_array_equal(candidate.dense(), values)


def sparse(share, rows=64, columns=200, signs=False):
    random = np.random.default_rng(0)
    values = random.normal(size=(rows, columns)).astype(np.float32)
    values = np.sign(values) * np.float32(0.3) if signs else values
    return values * (random.random((rows, columns)) < share)


@pytest.mark.parametrize(
    ("values", "name", "scales"),
    [
        (sparse(1.0), "float32", 0),
        (sparse(1.0, signs=True), "bits", 1),
        (sparse(1.0, signs=True) * np.arange(1, 65, dtype=np.float32)[:, None], "bits", 64),
        (np.sign(sparse(1.0)), "bits", 0),
        (sparse(0.5), "mask_float32", 0),
        (sparse(0.5, signs=True), "mask_signs", 1),
        (sparse(0.02), "csr_float32", 0),
        (sparse(0.02, signs=True), "csr_signs", 1),
        (np.array([[0.0, 1.0, 1.0, -1.0]]), "ternary", 0),
        (np.zeros((4, 4)), "ternary", 0),
    ],
)
def test_values_decide(values, name, scales):
    choice = choose_storage(values.astype(np.float32))
    if name == "ternary":  # as small as the bitmask with signs, or smaller
        assert choice.weight.form.levels
        return
    assert choice.weight.form.name == name
    assert choice.weight.scale.size == scales
    assert choice.reason.startswith(name)


def test_negative_zero_of_a_pruned_weight_is_a_zero():
    values = -np.ones((8, 8), dtype=np.float32) * np.eye(8, dtype=np.float32)
    assert choose_storage(values).weight.nonzero == 8


def test_a_float_row_of_another_magnitude_is_not_one_bit():
    values = np.ones((3, 4), dtype=np.float32)
    values[1, 2] = np.nextafter(np.float32(1), np.float32(2))
    assert not choose_storage(values).weight.form.levels
