import numpy as np
import pytest
import torch
from torch.nn import functional

from whit.errors import ArtifactError
from whit.runtime.layout import Activation, Record
from whit.runtime.operators import AvgPool2d, MaxPool2d, Reduce

WINDOWS = [
    ((2, 2), (2, 2), (0, 0)),
    ((3, 2), (1, 2), (1, 1)),
    ((1, 1), (1, 1), (0, 0)),
    ((7, 6), (1, 1), (3, 3)),
]


def floats(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("size, stride, pad", WINDOWS)
def test_max_pool2d(run, size, stride, pad):
    x = floats(2, 3, 7, 6)
    operator = MaxPool2d(size, stride, pad)
    expected = functional.max_pool2d(torch.from_numpy(x), size, stride, pad).numpy()
    np.testing.assert_array_equal(run(operator, x), expected)
    signs = functional.max_pool2d(torch.from_numpy(np.sign(x)), size, stride, pad).numpy()
    np.testing.assert_array_equal(run(operator, x < 0, "sign"), signs < 0)


@pytest.mark.parametrize("size, stride, pad", WINDOWS)
@pytest.mark.parametrize("domain", ["uint8", "int8", "int16", "int32"])
def test_max_pool2d_of_whole_numbers_never_takes_the_padding(run, size, stride, pad, domain):
    limits = np.iinfo(domain)
    x = np.random.default_rng(0).integers(limits.min, limits.max, (2, 3, 7, 6)).astype(domain)
    x[0, 0] = limits.min
    expected = functional.max_pool2d(torch.from_numpy(x).double(), size, stride, pad).numpy()
    np.testing.assert_array_equal(run(MaxPool2d(size, stride, pad), x, domain), expected)


def test_nan_wins_a_window(run):
    x = floats(1, 1, 4, 4)
    x[0, 0, 1, 1] = np.nan
    for operator in (MaxPool2d((2, 2), (2, 2)), AvgPool2d((2, 2), (2, 2))):
        assert np.isnan(run(operator, x)[0, 0]).tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize("size, stride, pad", WINDOWS)
@pytest.mark.parametrize("inside_only", [True, False])
def test_avg_pool2d(run, size, stride, pad, inside_only):
    x = floats(2, 3, 7, 6)
    expected = functional.avg_pool2d(
        torch.from_numpy(x), size, stride, pad, count_include_pad=not inside_only
    )
    found = run(AvgPool2d(size, stride, pad, inside_only), x)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
    signs = run(AvgPool2d(size, stride, pad, inside_only), x < 0, "sign")
    expected = functional.avg_pool2d(
        torch.from_numpy(np.sign(x)), size, stride, pad, count_include_pad=not inside_only
    )
    np.testing.assert_allclose(signs, expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("kind", [MaxPool2d, AvgPool2d])
@pytest.mark.parametrize(
    ("window", "shape"),
    [
        (((2, 2), (2, 2), (2, 2)), (1, 5, 5)),
        (((9, 9), (2, 2), (0, 0)), (1, 5, 5)),
        (((0, 2), (2, 2), (0, 0)), (1, 5, 5)),
        (((2, 2), (2, 0), (0, 0)), (1, 5, 5)),
        (((2, 2), (2, 2), (0, 0)), (5,)),
        (((2, 2), (2, 2), (0, 0)), (1, 5, 5, 5)),
    ],
)
def test_impossible_windows_are_refused(kind, window, shape):
    with pytest.raises(ArtifactError):
        kind(*window).result(Activation(shape, "float32"))


AXES = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("keep", [True, False])
def test_reduce(run, axes, keep):
    x = floats(2, 3, 4, 5)
    x[0, 1, 1, 1] = np.nan
    tensor, behind = torch.from_numpy(x), tuple(axis + 1 for axis in axes)
    if len(axes) == 3 and not keep:
        with pytest.raises(ArtifactError, match="leaves no axis"):
            run(Reduce("mean", axes, keep), x)
        return
    for mode, function in {"mean": torch.mean, "max": torch.amax, "sum": torch.sum}.items():
        found = run(Reduce(mode, axes, keep), x)
        expected = function(tensor, dim=behind, keepdim=keep).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_maximum_keeps_the_domain(run):
    signs = np.array([[[True, True], [True, False]]])
    assert run(Reduce("max", (1,)), signs, "sign").tolist() == [[True, False]]
    whole = np.array([[[-5, -3], [7, -128]]], dtype=np.int8)
    assert run(Reduce("max", (1,)), whole, "int8").tolist() == [[-3, 7]]
    assert run(Reduce("sum", (1,)), whole, "int8").tolist() == [[-8.0, -121.0]]
    assert run(Reduce("mean", (0,)), signs, "sign").tolist() == [[-1.0, 0.0]]


@pytest.mark.parametrize(
    "operator",
    [Reduce("mean", ()), Reduce("mean", (2,)), Reduce("mean", (1, 0)), Reduce("median", (0,))],
)
def test_impossible_reductions_are_refused(operator):
    with pytest.raises(ArtifactError):
        operator.result(Activation((3, 4), "float32"))


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (Reduce, {"size_h": 3, "size_w": 1}, "mode 3"),
        (Reduce, {"size_w": 16}, "beyond the fourth"),
        (Reduce, {"size_w": 1, "stride_h": 2}, "keeps axes, or not"),
        (AvgPool2d, {"pad_value": 2}, "counts in the way 2"),
        (AvgPool2d, {"pad_value": -1}, "counts in the way -1"),
    ],
)
def test_impossible_records_are_refused(kind, fields, message):
    with pytest.raises(ArtifactError, match=message):
        kind.read(Record(0, **fields), None, Activation((3, 4, 4), "float32"))
