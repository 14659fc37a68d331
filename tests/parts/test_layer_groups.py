import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from whit.errors import NoEffect, SpecError
from whit.parts.layer_groups import graft_groups
from whit.parts.masks import add_masks
from whit.parts.normalise import Normalise
from whit.tasks.models import ResidualBlock


def owner_of(module, layers="convolution"):
    groups = graft_groups(module, layers)
    return {key: group.owner for group in groups for key in group.keys}, groups


class Shuffled(nn.Module):
    """Registers its parts in another order than it runs them, and names none of them "conv"."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.norm_b = nn.BatchNorm2d(4)
        self.norm_a = nn.BatchNorm2d(4)
        self.b = nn.Conv2d(4, 4, 1)
        self.a = nn.Conv2d(1, 4, 1)
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x):
        x = self.norm_a(self.a(x)).relu() * self.gain
        return self.head(self.norm_b(self.b(x)).mean((2, 3)))


def test_the_way_of_the_data_decides_not_the_order_of_registration():
    owner, groups = owner_of(Shuffled())
    assert groups.by_graph and groups.reason == ""
    assert {k for k, o in owner.items() if o == "a"} == {
        "a.weight", "a.bias", "gain", "norm_a.weight", "norm_a.bias", "norm_a.running_mean",
        "norm_a.running_var", "norm_a.num_batches_tracked",
    }  # fmt: skip
    assert owner["norm_b.weight"] == owner["head.weight"] == owner["head.bias"] == "b"
    assert set(owner) == set(Shuffled().state_dict())


def test_linear_layers_may_own_a_group():
    owner, _ = owner_of(Shuffled(), "convolution_and_linear")
    assert owner["head.weight"] == "head" and owner["norm_b.weight"] == "b"


def test_a_shortcut_owns_its_norm():
    block = ResidualBlock(2, 4, 2)
    owner, groups = owner_of(nn.Sequential(block, nn.BatchNorm2d(4)))
    assert groups.by_graph
    assert owner["0.shortcut.norm.weight"] == "0.shortcut.conv"
    assert owner["0.norm2.weight"] == "0.conv2" and owner["0.norm1.running_var"] == "0.conv1"
    assert owner["1.weight"] == "0.shortcut.conv", "behind an addition: the one that ran last"


def test_entries_before_any_convolution_have_no_owner():
    model = nn.Sequential(
        Normalise.fitted(torch.rand(9, 1, 4, 4), None), nn.BatchNorm2d(1), nn.Conv2d(1, 2, 1)
    )
    owner, groups = owner_of(model)
    assert owner["1.weight"] is None and owner["2.weight"] == "2"
    without = [g for g in groups if g.owner is None]
    assert len(without) == 1 and without[0].weight is None


def test_without_convolutions_linear_layers_own():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    owner, groups = owner_of(model)
    assert owner["1.running_mean"] == "0" and owner["2.bias"] == "2" and len(groups) == 2
    assert owner_of(nn.Linear(2, 3))[0] == {"weight": "", "bias": ""}


class Deciding(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv1d(1, 2, 1)
        self.norm = nn.BatchNorm1d(2)
        self.b = nn.Conv1d(2, 2, 1)

    def forward(self, x):
        x = self.norm(self.a(x))
        return self.b(x) if x.sum() > 0 else x


def test_what_cannot_be_followed_falls_back_and_says_so():
    owner, groups = owner_of(Deciding())
    assert not groups.by_graph and "control flow" in groups.reason
    assert owner["norm.weight"] == "a" and owner["b.bias"] == "b"


def test_a_shared_module_counts_under_all_its_names():
    model = nn.Sequential(nn.Conv1d(1, 1, 1), nn.BatchNorm1d(1))
    model.again = model[1]
    owner, _ = owner_of(nn.Sequential(model))
    assert owner["0.1.weight"] == owner["0.again.weight"] == "0.0"


def test_of_a_parametrised_layer_the_latent_weight_counts():
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.BatchNorm1d(3))
    add_masks(model)
    groups = graft_groups(model)
    (group,) = groups
    assert groups.by_graph
    assert group.weight == "0.parametrizations.weight.original" and "1.weight" in group.keys
    assert "0.parametrizations.weight.0.mask" in model.state_dict()
    assert not any("mask" in key for key in group.keys)
    normed = nn.Sequential(parametrizations.weight_norm(nn.Conv1d(2, 3, 2)))
    (group,) = graft_groups(normed)
    assert group.weight == "0.parametrizations.weight.original1"
    assert "0.parametrizations.weight.original0" in group.keys


def test_refusals():
    with pytest.raises(NoEffect, match="neither a convolution nor a linear"):
        graft_groups(nn.Sequential(nn.Flatten()))
    with pytest.raises(SpecError, match="convolution_and_linear"):
        graft_groups(nn.Linear(2, 2), "all")
