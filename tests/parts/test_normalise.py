import pytest
import torch

from whit.errors import DataError
from whit.parts.normalise import Normalise


def test_integers_get_dyadic_constants() -> None:
    digits = torch.arange(17, dtype=torch.uint8).unsqueeze(1)
    layer = Normalise.fitted(digits)
    assert (layer.shift.item(), layer.scale.item()) == (8.0, 8.0)
    assert torch.equal(layer(digits.float()) * 8 + 8, digits.float())
    layer = Normalise.fitted(torch.zeros(1, 1, dtype=torch.uint8), (0.0, 255.0))
    assert (layer.shift.item(), layer.scale.item()) == (128.0, 128.0)


def test_floats_get_mean_and_deviation_of_each_feature() -> None:
    inputs = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    layer = Normalise.fitted(inputs)
    assert layer.shift.tolist() == [2.0, 5.0]
    assert layer.scale.tolist() == [1.0, 1.0], "a constant feature keeps its scale"
    assert layer(inputs).tolist() == [[-1.0, 0.0], [1.0, 0.0]]


def test_constants_are_buffers_and_copies() -> None:
    shift = torch.zeros(3)
    layer = Normalise(shift, 2.0)
    shift += 1
    assert set(layer.state_dict()) == {"shift", "scale"}
    assert not list(layer.parameters())
    assert layer.shift.tolist() == [0.0, 0.0, 0.0]


def test_raw_bytes_become_float() -> None:
    assert Normalise(8, 8)(torch.tensor([[16]], dtype=torch.uint8)).dtype == torch.float32


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 0.0), (0.0, -1.0), (float("nan"), 1.0)])
def test_senseless_constants_are_refused(shift: float, scale: float) -> None:
    with pytest.raises(DataError):
        Normalise(shift, scale)


def test_indices_are_refused() -> None:
    with pytest.raises(DataError, match="indices"):
        Normalise.fitted(torch.zeros(2, 2, dtype=torch.int64))
