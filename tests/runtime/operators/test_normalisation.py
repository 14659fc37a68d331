import numpy as np
import pytest
import torch
from torch.nn import functional

from whit.errors import ArtifactError
from whit.runtime.layout import Activation, Record
from whit.runtime.operators import GroupNorm, LayerNorm


def floats(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape, scale=2).astype(np.float32) + 0.5


def tensor(array, *shape):
    return None if array is None else torch.from_numpy(array).reshape(*shape)


@pytest.mark.parametrize("axes, shape", [(1, (5,)), (2, (4, 5)), (3, (3, 4, 5))])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("shifted", [True, False])
def test_layer_norm(run, axes, shape, weighted, shifted):
    x, columns = floats(2, 3, 4, 5), int(np.prod(shape))
    weight = floats(columns, seed=1) if weighted else None
    shift = floats(columns, seed=2) if shifted else None
    found = run(LayerNorm(axes, 1e-5, weight, shift, columns), x)
    expected = functional.layer_norm(
        torch.from_numpy(x), shape, tensor(weight, *shape), tensor(shift, *shape), 1e-5
    )
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("shape", [(6,), (6, 5), (6, 4, 3)])
def test_group_norm(run, groups, weighted, shape):
    x = floats(3, *shape)
    weight, shift = (floats(6, seed=1), floats(6, seed=2)) if weighted else (None, None)
    found = run(GroupNorm(groups, 1e-3, weight, shift), x)
    grouped = x.reshape(3, groups, -1).astype(np.float64)
    mean, variance = grouped.mean(2, keepdims=True), grouped.var(2, keepdims=True)
    expected = ((grouped - mean) / np.sqrt(variance + 1e-3)).reshape(x.shape)
    if weighted:
        ends = (6,) + (1,) * (len(shape) - 1)
        expected = expected * weight.reshape(ends) + shift.reshape(ends)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    if len(shape) > 1:
        torch_result = functional.group_norm(
            torch.from_numpy(x), groups, tensor(weight, -1), tensor(shift, -1), 1e-3
        )
        np.testing.assert_allclose(found, torch_result.numpy(), rtol=1e-5, atol=1e-5)


def test_nan_reaches_its_own_group_only(run):
    x = floats(1, 4, 2)
    x[0, 0, 0] = np.nan
    found = run(GroupNorm(2, 1e-5, None, None), x)
    assert np.isnan(found[0, :2]).all()
    assert np.isfinite(found[0, 2:]).all()


def test_an_empty_batch_stays_empty(run):
    assert run(GroupNorm(2, 1e-5, None, None), floats(0, 4, 2)).shape == (0, 4, 2)


@pytest.mark.parametrize(
    ("operator", "shape"),
    [
        (LayerNorm(0, 1e-5, None, None, 1), (4,)),
        (LayerNorm(2, 1e-5, None, None, 4), (4,)),
        (LayerNorm(1, 1e-5, None, None, 5), (4,)),
        (LayerNorm(1, 1e-5, floats(3), None, 4), (4,)),
        (GroupNorm(0, 1e-5, None, None), (4,)),
        (GroupNorm(3, 1e-5, None, None), (4, 2)),
        (GroupNorm(2, 1e-5, None, floats(3)), (4, 2)),
    ],
)
def test_impossible_shapes_are_refused(operator, shape):
    with pytest.raises(ArtifactError):
        operator.result(Activation(shape, "float32"))


@pytest.mark.parametrize("kind, code", [(LayerNorm, 2), (LayerNorm, 1), (GroupNorm, 3)])
def test_other_granularities_are_refused(kind, code):
    with pytest.raises(ArtifactError, match="has no constants or one per"):
        kind.read(Record(0, scale=code, first=0), None, Activation((4,), "float32"))
