import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from whit.packing.integer_grid import integer_grid, integer_grids

SCALES = st.floats(2.0**-20, 2.0**20, width=32)


def rebuilt(grid):
    integers, scale = grid
    floats = integers.astype(np.float32)
    return floats * scale[:, None] if scale.size else floats


def column(*numbers):
    return np.array(numbers, dtype=np.float32)[:, None]


@given(
    arrays(
        np.int16, st.tuples(st.integers(1, 6), st.integers(1, 30)), elements=st.integers(-127, 127)
    ),
    st.lists(SCALES, min_size=6, max_size=6),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_whatever_lies_on_a_grid_of_bytes_is_found_exactly(integers, scales, shared):
    scale = np.array(scales[: integers.shape[0]], dtype=np.float32)
    values = integers * (scale[:1] if shared else scale[:, None])
    values = values.astype(np.float32)
    grid = integer_grid(values)
    assert grid is not None
    np.testing.assert_array_equal(rebuilt(grid), values)
    assert np.abs(grid[0].astype(int)).max() <= np.abs(integers).max()
    assert (grid[1] > 0).all() and grid[1].size in (0, 1, values.shape[0])
    for other in integer_grids(values):
        np.testing.assert_array_equal(rebuilt((other.integers, other.scale)), values)
        assert other.width >= 1


@given(
    arrays(
        np.int16,
        st.tuples(st.integers(1, 5), st.integers(1, 20)),
        elements=st.integers(-32767, 32767),
    ),
    SCALES,
)
@example(np.array([[32767, 32766]], dtype=np.int16), 0.3)
@settings(max_examples=60, deadline=None)
def test_wide_integers_with_one_scale_are_found(integers, scale):
    values = integers.astype(np.float32) * np.float32(scale)
    grid = integer_grid(values)
    assert grid is not None
    np.testing.assert_array_equal(rebuilt(grid), values)


@pytest.mark.parametrize(
    "rows",
    [
        [[2047, 1000, -3], [5, 1999, 1203]],  # magnitudes up to 2047
        [[30000, 1, -7], [1, -20001, 5]],  # the scale is the smallest magnitude
    ],
)
def test_wide_integers_with_a_scale_per_row_are_found(rows):
    values = np.array(rows, dtype=np.float32) * column(0.3, 0.0071)
    integers, scale = integer_grid(values)
    assert integers.dtype == np.int16 and scale.size == 2
    np.testing.assert_array_equal(integers, rows)


def test_powers_of_two_as_scales_of_rows_are_found():
    rows = np.array([[30001, 29999, -20003], [10007, 30013, 20011]], dtype=np.float32)
    integers, scale = integer_grid(rows * column(2.0**-30, 2.0**10))
    np.testing.assert_array_equal(integers, rows)
    np.testing.assert_array_equal(scale, [2.0**-30, 2.0**10])


@pytest.mark.parametrize(
    ("values", "integers", "scale"),
    [
        ([[0.5, -0.5], [0.5, 0.5]], [[1, -1], [1, 1]], [0.5]),
        ([[0.5, -0.5], [2, 0]], [[1, -1], [1, 0]], [0.5, 2]),
        ([[1, -1], [0, 1]], [[1, -1], [0, 1]], []),
        ([[0, 0], [0, 0]], [[0, 0], [0, 0]], []),
        ([[3, -3], [3, 0]], [[1, -1], [1, 0]], [3]),
        ([[0.3, 0], [0, 0]], [[1, 0], [0, 0]], [0.3]),
        ([[7, -8], [1, 0]], [[7, -8], [1, 0]], []),
        ([[300, 7], [1, 0]], [[300, 7], [1, 0]], []),
        ([[3.5, 2], [0, 1]], [[7, 4], [0, 2]], [0.5]),  # the second row alone would take 1
    ],
)
def test_scales_are_shared_and_left_out_where_they_can_be(values, integers, scale):
    found = integer_grid(np.array(values, dtype=np.float32))
    assert found[0].tolist() == integers
    np.testing.assert_array_equal(found[1], np.array(scale, dtype=np.float32))


def test_rows_with_common_multiples_share_a_scale_that_is_not_their_own():
    scale = np.float32(0.0137)
    integers = np.array([[5, -7, 3], [2, 0, -2], [0, 0, 0], [6, 3, 3]])
    found = integer_grid(integers.astype(np.float32) * scale)
    np.testing.assert_array_equal(found[0], integers)
    np.testing.assert_array_equal(found[1], [scale])


def test_all_ways_to_scale_are_offered():
    values = np.array([[7, -6, 5], [700, 600, -500]], dtype=np.float32)
    found = {grid.scale.size: grid for grid in integer_grids(values)}
    assert found[0].integers.tolist() == values.tolist()
    assert found[2].integers.tolist() == [[7, -6, 5], [7, 6, -5]]
    assert found[2].scale.tolist() == [1, 100]
    assert found[2].width == 4 and found[0].width == 11


def test_values_one_ulp_off_the_grid_are_refused():
    values = (np.arange(-60, 60, dtype=np.float32) * np.float32(0.37)).reshape(2, 60)
    assert integer_grid(values) is not None
    values[1, 17] = np.nextafter(values[1, 17], np.float32(100))
    assert integer_grid(values) is None


@pytest.mark.parametrize("last", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_on_no_grid(last):
    assert integer_grid(np.array([[1, 2, last]], dtype=np.float32)) is None


def test_random_floats_are_on_no_grid():
    random = np.random.default_rng(0)
    assert integer_grids(random.normal(size=(40, 50)).astype(np.float32)) == []
    on_a_grid = random.integers(-127, 128, (40, 50)).astype(np.float32) * np.float32(0.1)
    on_a_grid[-1] = random.normal(size=50)
    assert integer_grids(on_a_grid) == []


@pytest.mark.parametrize("scale", [1e-45, 3e-44, 2.0**-126, 1.2e-38, 2.0**120])
def test_the_smallest_and_largest_scales_are_found(scale):
    values = np.array([[1, -3, 7], [7, 5, 0]], dtype=np.float32) * np.float32(scale)
    np.testing.assert_array_equal(rebuilt(integer_grid(values)), values)
