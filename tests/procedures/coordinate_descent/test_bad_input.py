"""Numbers that are none, and data and layers that do not fit, are refused with the reason."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import prune, spectral_norm

from whit.errors import NotApplicable, SpecError
from whit.measure.meter import Meter
from whit.methods.low_bit.conntra import conntra_fit
from whit.procedures.coordinate_descent.batches import Batches
from whit.procedures.coordinate_descent.network import DiscreteNetwork
from whit.procedures.coordinate_descent.options import SweepOptions
from whit.procedures.coordinate_descent.scoring import ExactScorer


def model(outputs=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, outputs))


def data(samples=12):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(samples, 4, generator=generator), torch.arange(samples) % 3


def spoilt(tensor, number=math.nan):
    tensor = tensor.clone()
    tensor.view(-1)[5] = number
    return tensor


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_numbers_that_are_none_are_refused_in_inputs_and_targets(number):
    x, y = data()
    with pytest.raises(SpecError, match=r"Not every input is finite: 1 of 48 .* at \[1, 1\]"):
        conntra_fit(model(), spoilt(x, number), y)
    numbers = torch.randn(12, 3)
    with pytest.raises(SpecError, match="Not every target is finite"):
        conntra_fit(model(), x, spoilt(numbers, number), options=SweepOptions(criterion="mse"))
    with pytest.raises(SpecError, match="Not every input is finite"):
        conntra_fit(model(), x, y, valid=(spoilt(x, number), y))
    with pytest.raises(SpecError, match="Not every input is finite"):
        Batches(spoilt(x, number), y, lambda z: z, bias=True)


def test_weights_that_are_none_are_refused_by_layer():
    x, y = data()
    for name, words in (("weight", "weight of layer '0'"), ("bias", "bias of layer '0'")):
        net = model()
        getattr(net[0], name).data[0] = math.nan
        with pytest.raises(SpecError, match=words):
            conntra_fit(net, x, y, start="from_model")
    with torch.no_grad():
        conntra_fit(net, x, y, options=SweepOptions(sweeps=1))  # a random start draws it anew
    assert net[0].bias.isfinite().all()


def test_losses_and_costs_that_are_none_are_refused():
    x, y = data()
    with pytest.raises(SpecError, match="loss values are not finite"):
        conntra_fit(model(), x, y, options=SweepOptions(criterion=lambda z, t: z[:, 0] * math.nan))
    with pytest.raises(SpecError, match="The cost returned nan"):
        conntra_fit(model(), x, y, options=SweepOptions(cost=lambda network: math.nan))
    with pytest.raises(SpecError, match="The cost returned 'much'"):
        conntra_fit(model(), x, y, options=SweepOptions(cost=lambda network: "much"))
    with pytest.raises(SpecError, match="cost of the present weights is infinite"):
        conntra_fit(model(), x, y, options=SweepOptions(cost=lambda network: math.inf))
    with pytest.raises(SpecError, match="cost was given 5"):
        SweepOptions(cost=5)


@pytest.mark.parametrize("scale", [1e300, 1e-300, 1e38 * 10])
def test_scales_out_of_range_are_refused(scale):
    x, y = data()
    with pytest.raises(SpecError, match="nearer to 1"):
        conntra_fit(model(), x, y, scales=scale)


@pytest.mark.parametrize(
    ("inputs", "target", "words"),
    [
        (
            torch.ones(12, 4, dtype=torch.int64),
            data()[1],
            r"cannot take inputs of torch.int64 .* Give them as floats: x.float\(\)",
        ),
        (torch.ones(12, 7), data()[1], r"cannot take inputs of torch.float64 \[12, 7\]"),
        (data()[0], data()[1] + 1, "classes from 1 to 3, and the model gives 3 outputs"),
        (data()[0], data()[1] - 1, "classes from -1 to 1"),
        (data()[0].tolist(), data()[1], "inputs are a list"),
        (data()[0], data()[1].tolist(), "targets are a list"),
    ],
)
def test_data_that_do_not_fit_the_model_are_refused(inputs, target, words):
    with pytest.raises(SpecError, match=words):
        conntra_fit(model(), inputs, target)


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def hooked(register="register_forward_hook"):
    layer = nn.Linear(4, 5)
    getattr(layer, register)(lambda module, given, *rest: None)
    return layer


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: prune.l1_unstructured(nn.Linear(4, 5), "weight", 2), "other parameters"),
        (lambda: spectral_norm(nn.Linear(4, 5)), "other parameters"),
        (lambda: Doubled(4, 5), "a forward of its own"),
        (hooked, "forward hook"),
        (lambda: hooked("register_forward_pre_hook"), "forward hook"),
        (lambda: nn.LazyLinear(5), "without a shape"),
    ],
)
def test_layers_that_do_something_else_than_their_weight_says_are_refused(make, words):
    net = nn.Sequential(make(), nn.Tanh(), nn.Linear(5, 3))
    with pytest.raises(NotApplicable, match=f"'0', .*{words}"):
        DiscreteNetwork.from_model(net)


def test_a_hook_of_the_user_on_the_model_is_part_of_it_and_that_of_the_meter_is_not():
    x, y = data()
    net = model()
    net.register_forward_pre_hook(lambda module, given: (3 * given[0],))
    network = DiscreteNetwork.from_model(net)
    meter = Meter()
    with meter.training(net):
        scorer = ExactScorer(network, x, y)
    scorer.write_back()
    assert meter.charge().train_macs == 0
    with torch.no_grad():
        assert scorer.loss == pytest.approx(float(nn.functional.cross_entropy(net(x), y)), rel=1e-5)
        unhooked = float(nn.functional.cross_entropy(net.forward(x), y))
    assert scorer.loss != pytest.approx(unhooked, rel=1e-3)


def test_skip_as_a_text_is_one_path():
    assert [la.path for la in DiscreteNetwork.from_model(model(), skip="2").layers] == ["0"]
    with pytest.raises(SpecError, match="skip names 'head', which .* Known: 0, 1, 2"):
        DiscreteNetwork.from_model(model(), skip="head")


def test_a_typo_in_skip_names_the_layers_and_the_model_itself_has_a_name():
    with pytest.raises(SpecError, match="skip names '3', .* Known: 0, 1, 2"):
        DiscreteNetwork.from_model(model(), skip="3")
    net = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    net.shift = nn.Parameter(torch.zeros(3))
    with pytest.raises(NotApplicable, match=r"layers: the model itself \(skip=''\), Sequential \("):
        DiscreteNetwork.from_model(net)


def test_a_scale_of_all_layers_is_named_by_its_option():
    with pytest.raises(SpecError, match="^scales was given -1; expected a number above 0"):
        DiscreteNetwork.from_model(model(), scales=-1)


def test_a_random_start_is_never_dead():
    x = torch.tensor([[1.0], [-1.0]])
    dead_seeds = 0
    for seed in range(40):
        net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Tanh(), nn.Linear(1, 1, bias=False))
        generator = torch.Generator().manual_seed(seed)
        drawn = [torch.randint(3, (1, 1), generator=generator) for _ in range(2)]
        dead_seeds += all(int(index) == 1 for index in drawn)
        conntra_fit(
            net, x, x, seed=seed, options=SweepOptions(criterion="mse", sweeps=2, restarts=3)
        )
    assert dead_seeds > 0


def test_restarts_from_a_model_are_refused():
    with pytest.raises(SpecError, match="has one"):
        conntra_fit(model(), *data(), start="from_model", options=SweepOptions(restarts=2))
