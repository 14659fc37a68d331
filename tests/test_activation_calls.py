import pytest
import torch
from torch import nn
from torch.nn import functional

from whit.activation_calls import watched_forward


class Calling(nn.Module):
    """Calls a function on what a linear layer gives."""

    def __init__(self, call):
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.call = call

    def forward(self, x):
        return self.call(self.linear(x))


SPELLINGS = [
    (torch.relu, "relu"),
    (functional.relu, "relu"),
    (lambda x: functional.relu(x, inplace=True), "relu"),
    (lambda x: x.relu_(), "relu"),
    (functional.gelu, "gelu"),
    (functional.mish, "mish"),
    (functional.softplus, "softplus"),
    (torch.tanh, "tanh"),
    (lambda x: x.clamp(min=0), "clamp"),
]


@pytest.mark.parametrize(("call", "name"), SPELLINGS)
def test_every_spelling_is_found_in_the_module_that_makes_it(call, name):
    model = nn.Sequential(Calling(call), nn.ReLU(), Calling(lambda x: call(call(x))))
    macs, calls = watched_forward(model, (torch.randn(2, 6),))
    assert macs == 2 * 2 * 36
    found = [(c.path, c.kind, c.function, c.count) for c in calls]
    assert found == [("0", "Calling", name, 1), ("2", "Calling", name, 2)]


@pytest.mark.parametrize(
    "call", [lambda x: x.clamp(-1, 1), lambda x: x.clamp(0, 6), torch.softmax, torch.exp]
)
def test_other_functions_are_no_activations(call):
    wrapped = (lambda x: call(x, 1)) if call is torch.softmax else call
    assert watched_forward(Calling(wrapped), (torch.randn(2, 6),))[1] == ()


def test_modules_of_torch_that_hide_a_call_are_named():
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
    _, calls = watched_forward(nn.Sequential(layer), (torch.randn(2, 3, 6),))
    assert [(c.path, c.kind, c.function, c.in_own_code) for c in calls] == [
        ("0", "TransformerEncoderLayer", "relu", False)
    ]


def test_branches_on_values_are_followed_and_the_mode_of_the_model_is_kept():
    class Branch(nn.Module):
        def forward(self, x):
            return torch.relu(x) if x.sum() > 0 else torch.tanh(x)

    model = Branch()
    assert watched_forward(model, (torch.ones(2, 3),))[1][0].function == "relu"
    assert watched_forward(model, (-torch.ones(2, 3),))[1][0].function == "tanh"
    assert model.training
