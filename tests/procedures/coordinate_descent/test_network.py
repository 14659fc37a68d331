"""Discrete layers: values, scales, starts, and what cannot be treated."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from whit.errors import NotApplicable, SpecError
from whit.parts.levels import Levels, add_levels
from whit.parts.normalise import Normalise
from whit.parts.surgery import bake
from whit.procedures.coordinate_descent.network import DiscreteNetwork


def model():
    return nn.Sequential(
        Normalise(0.0, 2.0), nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3)
    )


def test_a_random_start_has_the_values_and_scales_of_the_card():
    network = DiscreteNetwork.from_model(model(), generator=torch.Generator().manual_seed(1))
    first, last = network.layers
    assert (first.path, last.path) == ("2", "4")
    assert first.scale == 0.25  # 1 / sqrt(16)
    assert last.scale == pytest.approx(4 / 6**0.5, rel=1 / 256)
    for layer in network.layers:
        assert layer.index.dtype == torch.uint8
        assert layer.index.shape == layer.module.weight.shape
        assert set(layer.index.unique().tolist()) == {0, 1, 2}
        assert layer.bias_index.shape == layer.module.bias.shape
    assert [type(m).__name__ for m in network.stages] == [
        "Normalise",
        "Flatten",
        "Linear",
        "ReLU",
        "Linear",
    ]
    before = first.module.weight.detach().clone()
    assert torch.equal(first.module.weight, before)
    network.write_back()
    expected = 0.25 * (first.index.double() - 1)
    assert torch.equal(first.module.weight.detach().double(), expected)
    assert torch.equal(first.module.bias.detach().double(), 0.25 * (first.bias_index.double() - 1))


def test_the_seed_decides_the_start():
    def start(seed):
        generator = torch.Generator().manual_seed(seed)
        return DiscreteNetwork.from_model(model(), generator=generator).layers[0].index

    assert torch.equal(start(1), start(1))
    assert not torch.equal(start(1), start(2))


def test_scales_are_exact_in_few_bits_so_that_sums_of_signs_are():
    network = DiscreteNetwork.from_model(nn.Linear(7, 3))
    mantissa = network.layers[0].scale * 2**12
    assert (
        torch.tensor(network.layers[0].scale).to(torch.bfloat16).item() == network.layers[0].scale
    )
    assert mantissa == int(mantissa)


def test_more_levels_are_finer_not_wider():
    few, many = (DiscreteNetwork.from_model(model(), values=k).layers[0] for k in (3, 9))
    assert few.scale * few.values.max() == many.scale * many.values.max() == 0.25


def test_values_and_scales_by_layer():
    network = DiscreteNetwork.from_model(
        model(), values={"2": "binary", "4": 5}, scales={"2": 0.5, "4": 2.0}
    )
    assert [layer.values.tolist() for layer in network.layers] == [
        [-1.0, 1.0],
        [-2.0, -1.0, 0.0, 1.0, 2.0],
    ]
    assert [layer.scale for layer in network.layers] == [0.5, 2.0]


def test_from_a_model_each_weight_takes_the_nearest_value():
    net = nn.Linear(3, 2)
    net.weight.data = torch.tensor([[1.9, -0.3, 0.1], [-2.2, 1.2, 0.9]])
    net.bias.data = torch.tensor([1.6, -0.2])
    layer = DiscreteNetwork.from_model(net, start="from_model", scales=2.0).layers[0]
    assert layer.index.tolist() == [[2, 1, 1], [0, 2, 1]]
    assert layer.bias_index.tolist() == [2, 1]
    fitted = DiscreteNetwork.from_model(net, start="from_model").layers[0]
    errors = []
    for scale in (0.8 * fitted.scale, fitted.scale, 1.25 * fitted.scale):
        tried = DiscreteNetwork.from_model(net, start="from_model", scales=scale).layers[0]
        errors.append(float((tried.weight() - net.weight.detach()).square().sum()))
    assert errors[1] == min(errors)
    rows = DiscreteNetwork.from_model(net, start="from_model", scales="channel").layers[0]
    assert rows.channel_scale.shape == (2,)
    kept = DiscreteNetwork.from_model(net, start="from_model", biases="keep").layers[0]
    assert kept.bias_index is None
    assert torch.equal(kept.bias(), net.bias.detach().double())


@pytest.mark.parametrize("scale", ["layer", "channel"])
@pytest.mark.parametrize("values", ["binary", "ternary", "powers_of_two"])
def test_own_values_are_those_of_the_model_to_the_last_bit(scale, values):
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.LazyLinear(3))
    net(torch.randn(1, 2, 5, 5))
    for layer in (net[0], net[2]):
        add_levels(layer, Levels(values, scale))
    bake(net)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    network = DiscreteNetwork.from_model(net, values="own", start="from_model")
    assert len(network.layers[0].values) == {"binary": 2, "ternary": 3, "powers_of_two": 7}[values]
    assert network.layers[0].bias_index is None  # a real bias stays as it is
    network.write_back()
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    chosen = DiscreteNetwork.from_model(net, values="auto", start="from_model")
    assert torch.equal(chosen.layers[0].index, network.layers[0].index)


def test_auto_takes_ternary_where_a_layer_holds_many_values():
    network = DiscreteNetwork.from_model(model(), values="auto", start="from_model")
    assert network.layers[0].values.tolist() == [-1.0, 0.0, 1.0]
    assert network.layers[0].bias_index is not None


def test_own_values_need_a_model_that_holds_few():
    with pytest.raises(NotApplicable, match="2 to 256, and its 96 weights hold 96"):
        DiscreteNetwork.from_model(model(), values="own", start="from_model")
    with pytest.raises(SpecError, match="needs start='from_model'"):
        DiscreteNetwork.from_model(model(), values="own")


@pytest.mark.parametrize(
    "values", [[], [1.0], [1.0, 0.0], [0.0, 0.0], [0.0, float("inf")], "turnary", 1, 300, None]
)
def test_sets_that_are_none_are_refused(values):
    with pytest.raises(SpecError):
        DiscreteNetwork.from_model(model(), values=values)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start": "rendom"}, "Did you mean 'random'"),
        ({"biases": "real"}, "biases was given"),
        ({"scales": -1.0}, "above 0"),
        ({"scales": "layer"}, "from a model"),
        ({"scales": {"5": 1.0}}, "no layers"),
        ({"values": {"5": "binary"}}, "no layers"),
        ({"skip": ("head",)}, "does not have"),
    ],
)
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(SpecError, match=words):
        DiscreteNetwork.from_model(model(), **options)


def shared():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    net[2].weight = net[0].weight
    return net


def bound():
    net = nn.Sequential(nn.Linear(4, 4))
    parametrize.register_parametrization(net[0], "weight", Levels("binary"))
    return net


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Sequential(nn.Conv1d(2, 2, 1), nn.Flatten(), nn.Linear(4, 2)), "'0', Conv1d"),
        (lambda: nn.Sequential(nn.Embedding(4, 4), nn.Linear(4, 2)), "'0', Embedding"),
        (lambda: nn.LSTM(4, 4), "LSTM"),
        (shared, "shares its weight with '0'"),
        (bound, "bake"),
        (lambda: nn.Sequential(nn.ReLU()), "no layer"),
    ],
)
def test_layers_that_cannot_be_treated_are_named(make, words):
    with pytest.raises(NotApplicable, match=words):
        DiscreteNetwork.from_model(make())


def test_skipped_layers_stay_as_they_are():
    network = DiscreteNetwork.from_model(model(), skip=("4",))
    assert [layer.path for layer in network.layers] == ["2"]
