from itertools import permutations

import numpy as np
import pytest
import torch
from torch.nn import functional

from whit.errors import ArtifactError
from whit.runtime.layout import Activation
from whit.runtime.operators import OPERATORS, Flatten, Pad2d, Reshape, Transpose


def floats(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_flatten_and_reshape(run):
    x = floats(2, 3, 4, 5)
    np.testing.assert_array_equal(run(Flatten(), x), x.reshape(2, 60))
    np.testing.assert_array_equal(run(Reshape((5, 12)), x), x.reshape(2, 5, 12))
    np.testing.assert_array_equal(run(Reshape((60,)), x < 0, "sign"), (x < 0).reshape(2, 60))


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_transpose_in_every_order(run, rank):
    x = floats(2, 3, 4, 5, 6)[(slice(None),) * (rank + 1) + (0,) * (4 - rank)]
    for order in permutations(range(rank)):
        expected = torch.from_numpy(x).permute(0, *(axis + 1 for axis in order)).numpy()
        np.testing.assert_array_equal(run(Transpose(order), x), expected)
    assert run(Transpose(tuple(range(rank))), x < 0, "sign").dtype == np.bool_


def test_padding_keeps_domains_that_hold_the_number(run):
    x = floats(2, 3, 4, 5)
    expected = functional.pad(torch.from_numpy(x), (2, 0, 1, 3), value=0.5).numpy()
    np.testing.assert_array_equal(run(Pad2d((1, 2, 3, 0), 0.5), x), expected)
    assert run(Pad2d((1, 1, 1, 1), -1.0), x < 0, "sign")[0, 0, 0, 0]
    assert run(Pad2d((1, 1, 1, 1), 0.0), x < 0, "sign").dtype == np.float32
    whole = np.ones((1, 1, 2, 2), dtype=np.int8)
    assert run(Pad2d((1, 0, 0, 0), -128.0), whole, "int8").tolist() == [
        [[[-128] * 2, [1, 1], [1, 1]]]
    ]
    for value in (-129.0, 0.5, np.inf, np.nan):
        assert run(Pad2d((1, 0, 0, 0), value), whole, "int8").dtype == np.float32
    large = np.ones((1, 1, 1, 1), dtype=np.int32)
    assert run(Pad2d((1, 0, 0, 0), -(2.0**31)), large, "int32").dtype == np.int32
    assert run(Pad2d((1, 0, 0, 0), 2.0**31), large, "int32").dtype == np.float32


@pytest.mark.parametrize(
    ("operator", "shape"),
    [
        (Reshape((7,)), (1, 5, 5)),
        (Reshape((0, 25)), (1, 5, 5)),
        (Pad2d((1, 1, 1, 1), 0.0), (4,)),
        (Pad2d((255, 255, 255, 255), 0.0), (1 << 14, 1 << 7, 1 << 7)),
        (Transpose((0, 1)), (4,)),
        (Transpose((0, 0)), (4, 4)),
        (Transpose((1, 2)), (4, 4)),
    ],
)
def test_impossible_shapes_are_refused(operator, shape):
    with pytest.raises(ArtifactError):
        operator.result(Activation(shape, "float32"))


def test_codes_are_unique():
    assert len({operator.kind for operator in OPERATORS.values()}) == len(OPERATORS) == 30
