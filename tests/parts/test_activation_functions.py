import pytest
import torch
from torch import nn
from torch.nn import functional

from whit.errors import NoEffect, WhitError
from whit.parts.activation_functions import (
    GATE_LIKE,
    KINDS,
    RELU_LIKE,
    ActivationUse,
    activation_uses,
    require_uses,
)


class Calling(nn.Module):
    """A module whose forward is one function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def kinds(function, x=None):
    uses = activation_uses(Calling(function), [torch.randn(2, 3) if x is None else x])
    return [use.kind for use in uses for _ in range(use.times)]


SPELLINGS = {
    "relu": [
        torch.relu, torch.relu_, functional.relu, functional.relu_, torch.Tensor.relu,
        torch.Tensor.relu_, lambda x: functional.relu(x, inplace=True),
        lambda x: functional.relu(input=x), lambda x: torch.relu(input=x),
    ],
    "relu6": [functional.relu6, lambda x: functional.relu6(x, True)],
    "leaky_relu": [functional.leaky_relu, functional.leaky_relu_],
    "prelu": [lambda x: functional.prelu(x, torch.ones(1)), lambda x: x.prelu(torch.ones(1))],
    "elu": [functional.elu, functional.elu_],
    "gelu": [functional.gelu, lambda x: functional.gelu(x, approximate="tanh")],
    "silu": [functional.silu, lambda x: functional.silu(x, inplace=True)],
    "hardswish": [functional.hardswish, lambda x: functional.hardswish(x, True)],
    "hardtanh": [functional.hardtanh, functional.hardtanh_],
    "clamp": [
        lambda x: x.clamp(min=0), lambda x: x.clamp(0), lambda x: x.clamp_(0.0),
        lambda x: torch.clamp(x, min=0), lambda x: torch.clip(x, 0), lambda x: x.clamp_min(0),
        lambda x: torch.clamp_min_(x, 0),
    ],
    "tanh": [torch.tanh, torch.tanh_, torch.Tensor.tanh, functional.tanh],
    "sigmoid": [torch.sigmoid, torch.Tensor.sigmoid_, functional.sigmoid],
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_spelling_is_one_call_of_its_kind(kind):
    for function in SPELLINGS[kind]:
        assert kinds(function) == [kind]


def test_the_kinds_are_apart():
    assert set(RELU_LIKE) | set(GATE_LIKE) == set(KINDS) == set(SPELLINGS)
    assert not set(RELU_LIKE) & set(GATE_LIKE)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.clamp(0, 1),
        lambda x: x.clamp(min=1e-6),
        lambda x: x.clamp(max=0),
        lambda x: x.clamp_min(1),
        lambda x: x.clamp(torch.zeros(3)),
        lambda x: torch.tanh(x, out=torch.empty(2, 3)),
        lambda x: x.abs() + functional.softmax(x, 1),
    ],
)
def test_other_calls_are_no_activations(function):
    assert kinds(function) == []


class Network(nn.Module):
    """Own calls beside torch's own modules, which call the same functions inside."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.relu = nn.ReLU()
        self.encoder = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.lstm = nn.LSTM(4, 4, batch_first=True)
        self.inner = nn.Sequential(Calling(torch.relu), nn.Tanh())
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls = self.calls + 1
        x = functional.relu(self.relu(self.linear(x)))
        x, _ = self.lstm(self.encoder(x))
        return torch.sigmoid(self.inner(_helper(x)))


def _helper(x):
    return functional.dropout(x, 0.5).relu()


def test_calls_belong_to_the_module_whose_code_makes_them():
    assert activation_uses(Network(), [torch.randn(2, 3, 4)]) == [
        ActivationUse("", "relu", 2),
        ActivationUse("inner.0", "relu", 1),
        ActivationUse("", "sigmoid", 1),
    ]


def test_the_model_and_the_random_state_are_as_before():
    model = Network().train()
    model.relu.eval()
    before, calls = torch.get_rng_state(), model.calls
    activation_uses(model, [torch.randn(2, 3, 4, generator=torch.Generator())])
    assert torch.equal(torch.get_rng_state(), before)
    assert model.calls is calls and model.calls == 0
    assert model.training and model.inner[0].training and not model.relu.training


def test_branches_on_values_can_be_followed():
    def branching(x):
        return torch.relu(x) if x.sum() > 0 else functional.gelu(x)

    assert kinds(branching, torch.ones(2)) == ["relu"]
    assert kinds(branching, -torch.ones(2)) == ["gelu"]


def test_several_inputs_and_an_example_that_does_not_fit():
    class Two(nn.Module):
        def forward(self, x, y):
            return torch.relu(x) + y

    assert activation_uses(Two(), (torch.ones(2), torch.ones(2))) == [ActivationUse("", "relu", 1)]
    model = Two().train()
    with pytest.raises(WhitError, match="TypeError.*tuple of its inputs"):
        activation_uses(model, (torch.ones(2),))
    assert model.training


def test_what_is_required_and_missing():
    x = [torch.ones(2, 3)]
    assert require_uses(Calling(torch.relu), x, RELU_LIKE) == [ActivationUse("", "relu", 1)]
    with pytest.raises(NoEffect, match=r"calls none of relu, relu6,.*clamp\(min=0\).*already\.$"):
        require_uses(Calling(torch.abs), x, RELU_LIKE)
    model = nn.Sequential(nn.Linear(3, 3), Calling(torch.tanh))
    with pytest.raises(NoEffect, match="It calls tanh in '1', .*nn.Tanh"):
        require_uses(model, x, RELU_LIKE)
    with pytest.raises(NoEffect, match="It calls sigmoid, but"):
        require_uses(Calling(torch.sigmoid), x, RELU_LIKE)


def test_traced_modules_are_left_to_torch():
    traced = torch.fx.symbolic_trace(Calling(torch.relu))
    assert activation_uses(traced, [torch.ones(2)]) == []
