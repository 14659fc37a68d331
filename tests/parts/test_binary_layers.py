import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional

from whit.errors import NoEffect, SpecError
from whit.parts.binary_layers import (
    BinaryWeight,
    binary_layers,
    drop_activations,
    layers_to_binarize,
    pad_binary_inputs,
    pads_zeros,
    require_activations,
    sign_activations,
    taken_padding,
)
from whit.parts.levels import Levels, add_levels, leveled_layers
from whit.parts.masks import add_masks
from whit.parts.straight_through import Sign, binary_sign


class Calling(nn.Module):
    """Calls its activations, one of them in place."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 300), nn.Linear(300, 300)

    def forward(self, x):
        x = functional.relu(self.first(x))
        return torch.relu_(self.second(x))


def test_binary_weights_are_levels():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    add_levels(model[0], BinaryWeight("layer"))
    add_levels(model[1], Levels("ternary"))
    assert binary_layers(model) == [model[0]]
    assert [path for path, _ in leveled_layers(model)] == ["0", "1"]


def test_stochastic_binary_weights_average_to_the_latent_ones():
    torch.manual_seed(0)
    layer = nn.Linear(3, 20_000, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, -0.2, 3.0]]))
    add_levels(layer, BinaryWeight("none", "stochastic"))
    draws = layer.weight.detach()
    assert set(draws.unique().tolist()) == {-1.0, 1.0}
    assert torch.allclose(draws.mean(0), torch.tensor([0.5, -0.2, 1.0]), atol=0.03)
    assert layer.eval().weight.unique(dim=0).tolist() == [[1, -1, 1]]


def test_layers_that_cannot_be_made_binary_are_refused():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    assert [path for path, _ in layers_to_binarize(model, "own", ["0"])] == ["2"]
    add_levels(model[2], Levels())
    assert [path for path, _ in layers_to_binarize(model, "own", weights=False)] == ["0", "2"]
    with pytest.raises(SpecError, match="'2' is quantised already"):
        layers_to_binarize(model, "own")
    pruned = nn.Sequential(nn.Linear(2, 2))
    add_masks(pruned)
    with pytest.raises(SpecError, match=r"'own\(\) \+ one_cycle_pruning\(\)'"):
        layers_to_binarize(pruned, "own")


def test_activations_are_required():
    require_activations(nn.Sequential(nn.ReLU()), None, "do not")
    require_activations(Calling(), torch.randn(2, 6), "do not")
    with pytest.raises(NoEffect, match="else do not"):
        require_activations(nn.Sequential(nn.Linear(2, 2)), None, "do not")
    with pytest.raises(NoEffect, match="calls none of relu"):
        require_activations(nn.Sequential(nn.Linear(2, 2)), torch.ones(1, 2), "do not")


def test_stochastic_signs_of_calls_follow_the_mode_of_their_module():
    torch.manual_seed(0)
    model = Calling()
    sign_activations(model, Sign(rounding="stochastic"))
    x = torch.randn(5, 6)
    assert not torch.equal(model(x), model(x))
    twin = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    for one in (model, twin):
        one.eval()
        assert torch.equal(one(x), one(x))
        hidden = binary_sign(one.first(x))
        assert torch.equal(one(x), binary_sign(one.second(hidden)))


def test_dropped_activations_leave_what_went_in():
    torch.manual_seed(0)
    x = torch.randn(5, 6)
    model = Calling()
    drop_activations(model)
    expected = model.second(model.first(x))
    assert torch.equal(model(x), expected)
    with torch.no_grad():
        assert torch.equal(model(x), expected), "the call in place too"
    model = nn.Sequential(nn.Linear(6, 2), nn.ReLU(), nn.Tanh())
    drop_activations(model)
    assert torch.equal(model(x), model[0](x))
    assert pickle.loads(pickle.dumps(model))(x).equal(model(x))


def test_padding_is_taken_over():
    conv = nn.Conv2d(1, 1, 3, padding=(1, 2))
    x = torch.randn(1, 1, 5, 5)
    before = conv(x)
    pad = taken_padding(conv, 0.0)
    assert torch.equal(conv(pad(x)), before)
    assert not pads_zeros(conv) and pads_zeros(nn.Conv2d(1, 1, 3, padding="same"))
    assert pad(x).shape == (1, 1, 7, 9)
    line = nn.Conv1d(1, 1, 5, padding="same", dilation=2)
    x = torch.randn(2, 1, 9)
    before = line(x)
    assert torch.allclose(line(taken_padding(line, 0.0)(x)), before, atol=1e-6)


def test_only_convolutions_with_binary_input_pad_anew():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        nn.Conv2d(2, 2, 3, padding=1),
        nn.Conv2d(2, 2, 3),
        nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
    )
    pad_binary_inputs(model, 1.0, list(model)[1:])
    assert [type(m).__name__ for m in model] == ["Conv2d", "Sequential", "Conv2d", "Conv2d"]
    assert model[1].pad.value == 1.0
