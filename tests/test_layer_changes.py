import copy

import pytest
import torch
from torch import nn

from whit.activation_calls import ActivationCall
from whit.layer_changes import Stages, differences
from whit.methods.low_bit.binarized_network import binarize
from whit.model_layers import FEW_LEVELS, layers_of
from whit.parts.group import Group
from whit.parts.masks import add_masks
from whit.parts.surgery import bake


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32, 4),
    )


def found(change, model=None, calls=(), left=()):
    """Differences after `change(model)`, which prepares in place or returns a new model."""
    model = network() if model is None else model
    built = layers_of(model)
    prepared = change(model) or model
    stages = [layers_of(prepared), layers_of(prepared), layers_of(bake(prepared))]
    return differences(Stages(built, built, *stages), calls, left, "spec()")


def how_of(result):
    return {change.path: change.how for change in result.changed}


def test_swapped_wrapped_and_quantised_layers_are_told():
    result = found(binarize)
    assert how_of(result) == {
        "0": ("weight: BinaryWeight", "2 values a channel"),
        "1": ("ReLU -> Sign",),
        "2": (
            "put into Sequential(ConstantPad2d, Conv2d)",
            "weight: BinaryWeight",
            "2 values a channel",
        ),
        "4": ("ReLU -> Sign",),
        "6": ("weight: BinaryWeight", "2 values a channel"),
    }
    assert [(s.kind, s.paths, s.numbers) for s in result.skipped] == [("BatchNorm2d", ("3",), 16)]
    assert "not covered" in result.skipped[0].reason


def test_layers_of_a_changed_kind_are_left_out_by_the_technique():
    result = found(lambda model: binarize(model, skip=["0"], activations=False))
    reasons = {skipped.paths: skipped.reason for skipped in result.skipped}
    assert reasons["0",] == (
        "layers of this kind are changed elsewhere: left out by spec() or its options"
    )
    assert ("1", "4") not in reasons  # activations are not the technique's business


def test_zeros_count_where_the_control_has_fewer():
    def prune(model):
        for _, mask in add_masks(model).values():
            mask.mask.view(-1)[::2] = 0

    changed = found(prune).changed
    assert {c.path: (c.how, c.zeros) for c in changed} == {
        path: (("weight: Mask",), 0.5) for path in ("0", "2", "6")
    }
    zero_head = network()
    nn.init.zeros_(zero_head[6].weight)
    result = found(lambda model: None, zero_head)
    assert result.changed == ()
    assert result.skipped == ()


def test_values_that_only_the_end_changes_are_seen():
    model = network()
    built = layers_of(model)
    fitted = layers_of(model)
    with torch.no_grad():
        model[6].weight.mul_(2).round_().div_(2)
        model[0].weight.view(-1)[:9] = 0
    stages = Stages(built, built, None, fitted, layers_of(model))
    changes = {c.path: c for c in differences(stages, (), (), "spec()").changed}
    assert changes["0"].how == ("weights set to 0",)
    assert changes["6"].how[0].endswith("values a channel")


def test_another_width_is_told_as_shapes_and_skips_nothing():
    wide, narrow = nn.Linear(32, 8), nn.Linear(16, 6)
    layers = [layers_of(nn.Sequential(m, nn.BatchNorm1d(m.out_features))) for m in (wide, narrow)]
    stages = Stages(layers[0], layers[0], None, layers[1], layers[1])
    result = differences(stages, (), (), "spec()")
    assert how_of(result) == {
        "0": ("8 => 6 outputs, 32 => 16 inputs",),
        "1": ("weight [8] => [6]", "bias [8] => [6]"),
    }
    assert result.skipped == ()


def test_removed_added_and_replaced_modules():
    def rebuild(model):
        model[6] = nn.Identity()
        model.add_module("7", nn.Linear(32, 4))

    assert how_of(found(rebuild)) == {"6": ("Linear -> Identity",), "7": ("added",)}
    shorter = found(lambda model: model.__delitem__(5))
    assert how_of(shorter)["6"] == ("removed",)
    grouped = found(lambda model: Group([model, copy.deepcopy(model)]))
    assert how_of(grouped) == {"": ("Sequential -> Group(ModuleList)",)}


def test_what_was_something_else_while_training_is_noted():
    model = network()
    built = layers_of(model)
    grouped = layers_of(Group([model]))
    stages = Stages(built, built, grouped, grouped, built)
    result = differences(stages, (), (), "spec()")
    assert result.changed == ()
    assert result.notes == ("While training, Sequential is a Group.",)


def test_a_module_under_two_names_is_changed_under_one():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.act1 = nn.Linear(4, 4), nn.GELU()
            self.act2 = self.act1

        def forward(self, x):
            return self.act2(self.linear(self.act1(x)))

    result = found(lambda model: binarize(model), Twice())
    assert how_of(result)["act1"] == ("GELU -> Sign",)
    assert [(s.paths, s.reason) for s in result.skipped] == [
        (("act2",), "the same module as 'act1', which was changed under that name only")
    ]


def test_a_tied_weight_says_that_the_other_layer_goes_on_alone():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.embedding = nn.Linear(6, 9, bias=False), nn.Embedding(9, 6)
            self.embedding.weight = self.head.weight

    result = found(lambda model: binarize(model, activations=False), Tied())
    reasons = [(skipped.paths, skipped.reason) for skipped in result.skipped]
    assert reasons == [
        (("embedding",), "its weight is that of 'head', and only there it was changed")
    ]


def test_calls_are_swapped_or_left():
    relu, tanh = ActivationCall("a", "Own", "relu", 3), ActivationCall("b", "Own", "tanh", 1)
    inside = ActivationCall("c", "TransformerEncoderLayer", "relu", 1, in_own_code=False)
    left = (ActivationCall("a", "Own", "relu", 1), tanh, inside)
    result = found(lambda model: None, calls=(relu, tanh, inside), left=left)
    assert [(c.path, c.how) for c in result.changed] == [
        ("a", ("2 of 3 calls of relu in forward swapped",))
    ]
    assert [(s.kind, s.paths) for s in result.skipped] == [
        ("relu (called)", ("a",)),
        ("tanh (called)", ("b",)),
        ("relu (called)", ("c",)),
    ]
    assert "torch's own" in result.skipped[2].reason
    untouched = found(lambda model: None, calls=(relu,), left=(relu,))
    assert untouched.changed == untouched.skipped == ()


@pytest.mark.parametrize(
    ("weight", "zeros", "levels"),
    [
        (torch.tensor([[1.0, -1.0] * 4, [2.0, -2.0] * 4]), 0.0, 2),
        (torch.tensor([[0.5, 0.0, -0.5, 0.5] * 3]), 0.25, 3),
        (torch.tensor([[0.0] * 14 + [1.0, 2.0]]), 0.875, FEW_LEVELS + 1),  # pruned, no code book
        (torch.arange(64.0).reshape(2, 32) + 1, 0.0, FEW_LEVELS + 1),
        (torch.zeros(2, 8), 1.0, 1),
    ],
)
def test_zeros_and_levels_of_a_weight(weight, zeros, levels):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight)
    seen = layers_of(layer)[""]
    assert (seen.zeros, seen.levels) == (zeros, levels)


def test_lazy_layers_have_no_shape_yet():
    assert layers_of(nn.LazyLinear(3))[""].shapes == {}
