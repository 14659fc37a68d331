from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from whit.errors import NoEffect
from whit.parts.surgery import bake, swap_modules, weight_parametrizations, weighted_layers


class Double(nn.Module):
    def forward(self, x):
        return 2 * x


def network():
    block = nn.Sequential()
    block.add_module("linear", nn.Linear(3, 3))
    block.add_module("head", nn.Sequential(nn.Linear(3, 2)))
    model = nn.Sequential()
    model.add_module("conv", nn.Conv2d(1, 1, 1))
    model.add_module("block", block)
    model.add_module("relu", nn.ReLU())
    return model


def paths(model, skip=()):
    return [path for path, _ in weighted_layers(model, skip)]


def test_layers_come_in_registration_order():
    assert paths(network()) == ["conv", "block.linear", "block.head.0"]
    assert paths(nn.Linear(1, 1)) == [""]


@pytest.mark.parametrize(
    ("skip", "left"),
    [
        (["conv"], ["block.linear", "block.head.0"]),
        (["block"], ["conv"]),
        (["head"], ["conv", "block.linear"]),
        (["block.linear", "conv"], ["block.head.0"]),
    ],
)
def test_skip_by_path_or_child_name(skip, left):
    assert paths(network(), skip) == left


def test_skip_of_nothing_and_of_everything():
    with pytest.raises(NoEffect, match="'con'.*block.linear"):
        paths(network(), ["con"])
    with pytest.raises(NoEffect, match="beside the skipped"):
        paths(network(), ["conv", "block"])
    with pytest.raises(NoEffect, match="no linear or convolution"):
        paths(nn.Sequential(nn.ReLU()))


def test_swap_replaces_nested_children_in_place():
    model = nn.Sequential(nn.ReLU(), nn.Sequential(nn.ReLU(), nn.Linear(1, 1)))
    done = swap_modules(model, lambda m: isinstance(m, nn.ReLU), lambda _: nn.Tanh())
    assert sorted(done) == ["0", "1.0"]
    assert isinstance(model[0], nn.Tanh) and isinstance(model[1][0], nn.Tanh)


def test_swap_may_wrap_what_it_replaces():
    model = nn.Sequential(nn.Linear(1, 1))
    linear = model[0]
    swap_modules(
        model, lambda m: isinstance(m, nn.Linear), lambda m: nn.Sequential(m, nn.Identity())
    )
    assert model[0][0] is linear


def test_bake_leaves_ordinary_parameters_with_the_effective_values():
    layer = nn.Linear(2, 2)
    latent = layer.weight.detach().clone()
    model = nn.Sequential(layer)
    for _ in range(2):
        parametrize.register_parametrization(layer, "weight", Double())
    assert len(weight_parametrizations(layer)) == 2
    x = torch.randn(3, 2)
    before = model(x)
    assert bake(model) is model
    assert set(model.state_dict()) == {"0.weight", "0.bias"}
    assert torch.equal(layer.weight, 4 * latent)
    assert torch.equal(model(x), before)
    assert weight_parametrizations(layer) == [] and type(layer) is nn.Linear


def test_a_path_means_this_module_alone():
    """Elsewhere a child of the same name stays, as `first="real"` of a residual network needs."""
    block = nn.Sequential(OrderedDict(conv1=nn.Conv2d(4, 4, 3), conv2=nn.Conv2d(4, 4, 3)))
    model = nn.Sequential(OrderedDict(conv1=nn.Conv2d(1, 4, 3), block=block))
    assert [p for p, _ in weighted_layers(model, ["conv1"])] == ["block.conv1", "block.conv2"]
    assert [p for p, _ in weighted_layers(model, ["conv2"])] == ["conv1", "block.conv1"]
    assert [p for p, _ in weighted_layers(model, ["block"])] == ["conv1"]
