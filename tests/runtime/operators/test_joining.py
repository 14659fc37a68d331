import numpy as np
import pytest

from whit.errors import ArtifactError
from whit.runtime.layout import Activation
from whit.runtime.operators import Add, Concat, Multiply


def floats(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 1, 1), (1, 4, 5), (1, 1, 1)])
def test_axes_of_size_one_are_repeated(run, shape):
    x, other = floats(2, 3, 4, 5), floats(2, *shape, seed=1)
    np.testing.assert_array_equal(run(Add(), x, other=other), x + other)
    np.testing.assert_array_equal(run(Multiply(), x, other=other), x * other)


def test_signs_and_whole_numbers_are_added_as_floats(run):
    found = run(
        Add(), np.array([[True, False]]), "sign", np.array([[5, -7]], dtype=np.int8), "int8"
    )
    assert found.tolist() == [[4.0, -6.0]]
    assert np.isnan(run(Multiply(), floats(1, 2), other=np.full((1, 2), np.nan, np.float32))).all()


@pytest.mark.parametrize("shape", [(5,), (2, 4), (3, 2), (3, 4, 1), (4,)])
def test_shapes_that_do_not_repeat_are_refused(shape):
    with pytest.raises(ArtifactError, match="cannot repeat"):
        Add().result(Activation((3, 4), "float32"), Activation(shape, "float32"))


def test_the_source_is_never_repeated():
    with pytest.raises(ArtifactError, match="cannot repeat"):
        Multiply().result(Activation((1, 4), "float32"), Activation((3, 4), "float32"))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_concat_joins_along_each_axis(run, axis):
    sizes = [3, 4, 5]
    sizes[axis] = 2
    x, other = floats(2, 3, 4, 5), floats(2, *sizes, seed=1)
    expected = np.concatenate([x, other], axis=axis + 1)
    np.testing.assert_array_equal(run(Concat(axis), x, other=other), expected)


def test_concat_keeps_equal_domains_only(run):
    signs, bytes_ = np.array([[True, False]]), np.array([[200, 3]], dtype=np.uint8)
    assert run(Concat(0), signs, "sign", signs, "sign").tolist() == [[True, False, True, False]]
    assert run(Concat(0), bytes_, "uint8", bytes_, "uint8").dtype == np.uint8
    assert run(Concat(0), signs, "sign", bytes_, "uint8").tolist() == [[-1.0, 1.0, 200.0, 3.0]]


@pytest.mark.parametrize(
    ("axis", "left", "right"),
    [(2, (3, 4), (3, 4)), (0, (3, 4), (3, 5)), (1, (3, 4), (3, 4, 1)), (0, (1 << 27,), (1 << 28,))],
)
def test_concat_refuses_what_does_not_fit(axis, left, right):
    with pytest.raises(ArtifactError):
        Concat(axis).result(Activation(left, "float32"), Activation(right, "float32"))


@pytest.mark.parametrize("operator", [Add(), Multiply(), Concat(0)])
def test_a_missing_second_value_is_refused(operator):
    assert operator.inputs == 2
    with pytest.raises(ArtifactError, match="reads two values"):
        operator.result(Activation((3,), "float32"))
