import pytest
import torch
from torch import nn

from whit.errors import WhitError
from whit.parts.activation_maps import activation_maps


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 5, 3)
        self.relu, self.never = nn.ReLU(), nn.ReLU()

    def forward(self, x):
        return self.relu(self.second(self.relu(self.first(x))))


def test_shapes_of_all_calls():
    model = Twice()
    model.second.eval()
    found = {one.path: one for one in activation_maps(model, (nn.ReLU,), (torch.ones(4, 1, 8, 8),))}
    assert found["relu"].shapes == [(4, 6, 6), (5, 4, 4)]
    assert "own module" in found["relu"].unfit(2) and "not called" in found["never"].unfit(2)
    assert not model.second.training and model.first.training, "flags stay as they were"
    assert not model.relu._forward_hooks


def test_what_no_map_is_said_of():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2), nn.ReLU())
    on_map, on_vector = activation_maps(model, (nn.ReLU,), (torch.ones(1, 1, 2, 2),))
    assert on_map.unfit(4) == "" and "4 values, below 5" in on_map.unfit(5)
    assert "vectors" in on_vector.unfit(2)
    with pytest.raises(WhitError, match="fails on the example"):
        activation_maps(model, (nn.ReLU,), (torch.ones(1, 3),))
