import torch
from torch import nn
from torch.nn import functional

from whit.parts.binary_layers import ACTIVATIONS, pad_binary_inputs, padding_readers
from whit.parts.sign_readers import activation_readers, sign_readers
from whit.parts.straight_through import Sign


class Parallel(nn.Module):
    """Two first layers, a sum of sign and map, a mean, and a layer behind another one."""

    def __init__(self, calls=False):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 4, 3, padding=1)
        self.norm, self.relu = nn.BatchNorm2d(4), nn.ReLU()
        self.read, self.behind = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.mixed, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)
        self.unused = nn.Conv2d(4, 4, 3, padding=1)
        self.calls = calls

    def forward(self, x):
        act = functional.relu if self.calls else self.relu
        h = act(self.norm(self.a(x) + self.b(x)))
        y = self.mixed(self.behind(self.read(input=h)) + h)
        return self.head(act(y).mean((2, 3)))


def names(model, readers):
    return {name for name, module in model.named_modules() if any(module is r for r in readers)}


def test_only_layers_behind_nothing_but_signs_read_signs():
    for calls in (False, True):
        model = Parallel(calls)
        for x in (torch.ones(2, 1, 5, 5), torch.randn(2, 1, 5, 5)):
            readers = sign_readers(model, ACTIVATIONS, (x,))
            assert names(model, readers) == {"read", "unused"}


def test_layers_that_read_an_activation_among_others():
    for calls in (False, True):
        model = Parallel(calls)
        readers = activation_readers(model, ACTIVATIONS, (torch.randn(2, 1, 5, 5),))
        assert names(model, readers) == {"read", "mixed", "head", "unused"}


def test_without_an_example_all_but_the_first_count():
    model = Parallel()
    every = {"b", "read", "behind", "mixed", "head", "unused"}
    assert names(model, sign_readers(model, ACTIVATIONS, None)) == every
    assert names(model, activation_readers(model, ACTIVATIONS, None)) == every


def test_pools_and_signs_of_ones_own_keep_signs():
    torch.manual_seed(0)  # few means of signs could all be -1 or +1 by chance
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 2, 1), Sign(),
        nn.AvgPool2d(2), nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(2, 2),
    )  # fmt: skip
    readers = sign_readers(model, ACTIVATIONS, (torch.randn(64, 1, 6, 6),))
    assert names(model, readers) == {"3", "9"}


def test_the_model_stays_as_it_is():
    model = Parallel(calls=True)
    model.norm.eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    kind, random = type(model), torch.get_rng_state()
    sign_readers(model, ACTIVATIONS, (torch.randn(2, 1, 5, 5, generator=torch.Generator()),))
    assert type(model) is kind and not model.norm.training and model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not model.read._forward_hooks and torch.equal(torch.get_rng_state(), random)


def test_padding_follows_what_is_read():
    model = Parallel()
    x = torch.randn(2, 1, 5, 5)
    assert padding_readers(model, 0.0, (x,)) == []
    pad_binary_inputs(model, -1.0, padding_readers(model, -1.0, (x,)))
    kinds = {name: type(module) for name, module in model.named_children()}
    assert kinds["a"] is kinds["b"] is kinds["mixed"] is nn.Conv2d
    assert kinds["read"] is nn.Sequential and model.read.pad.value == -1.0
