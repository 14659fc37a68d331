import copy
import pickle

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from whit.errors import WhitError
from whit.parts.activation_functions import KINDS, RELU_LIKE, activation_uses
from whit.parts.functional_activations import Replacement, swap_functional_activations
from whit.parts.group import Group
from whit.parts.straight_through import Sign, binary_sign
from whit.parts.surgery import bake

X = torch.tensor([[-2.0, -0.5, 0.0, 3.0]])


class Calling(nn.Module):
    """A module whose forward is one function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Network(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.first = nn.Linear(4, width)
        self.second = nn.Linear(width, 3)

    def forward(self, x, *, scale=1.0):
        return self.second(torch.relu(scale * self.first(x)))

    def expected(self, x):
        return self.second(binary_sign(self.first(x)))


def raised(x):
    return torch.relu(x) + 1


def swapped(model, apply=None, kinds=KINDS):
    swap_functional_activations(model, dict.fromkeys(kinds, Replacement(apply or Sign())))
    return model


@pytest.mark.parametrize(
    "function",
    [torch.relu, functional.relu, torch.Tensor.relu, functional.relu6, functional.leaky_relu,
     functional.elu, functional.gelu, functional.silu, functional.hardswish, functional.hardtanh,
     torch.tanh, functional.tanh, torch.sigmoid, functional.sigmoid, lambda x: x.clamp(min=0),
     lambda x: functional.prelu(x, torch.ones(1)), lambda x: torch.relu(input=x)],
)  # fmt: skip
def test_a_call_gives_what_the_replacement_gives(function):
    assert torch.equal(swapped(Calling(function))(X), binary_sign(X))


def in_place_sign(x):
    x.ge_(0).mul_(2).sub_(1)


IN_PLACE = [
    torch.relu_, torch.Tensor.relu_, lambda x: functional.relu(x, inplace=True),
    lambda x: functional.relu6(x, True), functional.leaky_relu_, functional.elu_,
    lambda x: functional.silu(x, inplace=True), functional.hardtanh_, torch.tanh_,
    torch.Tensor.sigmoid_, lambda x: x.clamp_(0), lambda x: functional.hardswish(x, True),
]  # fmt: skip


@pytest.mark.parametrize("in_place", [None, in_place_sign], ids=["copied", "own"])
def test_calls_in_place_change_their_argument(in_place):
    for function in IN_PLACE:
        model = Calling(function)
        swap_functional_activations(model, dict.fromkeys(KINDS, Replacement(Sign(), in_place)))
        for context in (torch.no_grad, torch.enable_grad):
            with context():
                x = X.clone()
                assert model(x) is x, "as the original function returns it"
                assert torch.equal(x, binary_sign(X))


def test_a_call_in_place_passes_the_gradient_on():
    def statement(x):
        x = 2 * x
        x.relu_()
        return x

    model = Calling(statement)
    swap_functional_activations(model, {"relu": Replacement(Sign(), in_place_sign)})
    x = torch.tensor([-1.0, -0.4, 0.4, 1.0], requires_grad=True)
    result = model(x)
    result.sum().backward()
    assert result.tolist() == [-1, -1, 1, 1]
    assert x.grad.tolist() == [0, 2, 2, 0], "within the window of 1 only"


def test_only_the_kinds_that_were_asked_for():
    def gated(x):
        return torch.sigmoid(x) * torch.relu(x)

    model = swapped(Calling(gated), kinds=RELU_LIKE)
    assert torch.equal(model(X), X.sigmoid() * binary_sign(X))
    assert [use.kind for use in activation_uses(model, [X])] == ["sigmoid"]
    swap_functional_activations(model, {"sigmoid": Replacement(torch.neg)})
    assert torch.equal(model(X), -X * binary_sign(X))
    swap_functional_activations(model, {"relu": Replacement(torch.neg)})
    assert torch.equal(model(X), -X * binary_sign(X)), "the first swap stays"


def test_modules_of_torch_keep_their_own_calls():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU()
            self.encoder = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0)
            self.lstm = nn.LSTM(4, 4)

        def forward(self, x):
            return self.lstm(self.encoder(self.relu(x)))[0]

    model = Mixed()
    before = model(X)
    assert swap_functional_activations(model, {"relu": Replacement(torch.neg)}) == [""]
    assert torch.equal(model(X), before)


def test_a_call_is_swapped_once_however_modules_are_nested():
    model = nn.Sequential(Calling(Calling(Calling(torch.relu))))
    swap_functional_activations(model, {"relu": Replacement(raised)})
    assert torch.equal(model(X), raised(X)), "the relu inside of the replacement is its own"


def test_helpers_and_methods_of_other_modules_count_as_own_code():
    class Other(nn.Module):
        def squash(self, x):
            return functional.relu(x)

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.other = Other()
            self.activation = functional.relu
            self.inner = Calling(torch.relu)

        def forward(self, x):
            parts = [self.other.squash(x), self.activation(x), (lambda y: y.relu())(x)]
            return torch.stack([*parts, self.inner.forward(x)])

    assert torch.equal(swapped(Own()).forward(X), binary_sign(X).expand(4, 1, 4))


def test_parametrisations_compute_weights_not_activations():
    class Positive(nn.Module):
        def forward(self, weight):
            return torch.relu(weight)

    model = Network()
    parametrize.register_parametrization(model.first, "weight", Positive())
    weight = model.first.weight.detach()
    swapped(model)
    parametrize.register_parametrization(model.second, "weight", Positive())
    assert torch.equal(model.first.weight, weight) and (weight >= 0).all()
    hidden = binary_sign(functional.linear(X, weight, model.first.bias))
    assert torch.equal(model(X), model.second(hidden))


def test_names_state_and_keywords_stay():
    model = Network()
    text, keys = repr(model), list(model.state_dict())
    swapped(model)
    assert repr(model) == text and list(model.state_dict()) == keys
    assert isinstance(model, Network) and type(model).__name__ == "Network"
    assert type(model.first) is nn.Linear
    assert torch.equal(model(X, scale=-1.0), model.second(binary_sign(-model.first(X))))
    fresh = swapped(Network())
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(X), model(X))
    assert type(fresh) is type(model)


def test_copies_and_pickles_are_swapped_and_alone():
    model = swapped(Network())
    for twin in (copy.deepcopy(model), copy.copy(model), pickle.loads(pickle.dumps(model))):
        assert isinstance(twin, Network)
        assert torch.equal(twin(X), model.expected(X))
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.first.weight.zero_()
    assert not torch.equal(twin(X), model(X))
    assert torch.equal(twin(X), twin.expected(X))


def test_an_instance_made_by_the_class_is_an_ordinary_one():
    fresh = type(swapped(Network()))(width=5)
    assert torch.equal(fresh(X), fresh.second(torch.relu(fresh.first(X))))


def test_a_forward_set_on_the_instance_is_swapped_too():
    model = Network()
    model.forward = lambda x: torch.relu(x)
    assert torch.equal(swapped(model)(X), binary_sign(X))

    model = Network()
    model.forward = model.expected_relu = Network.forward.__get__(model)
    twin = copy.deepcopy(swapped(model))
    with torch.no_grad():
        twin.first.weight.zero_()
    assert torch.equal(twin(X), twin.expected(X)), "the copy runs its own layers"


class OwnLinear(nn.Linear):
    def forward(self, x):
        return torch.relu(functional.linear(x, self.weight))


class Halved(nn.Module):
    def forward(self, weight):
        return 0.5 * weight


@pytest.mark.parametrize("first", ["swap", "parametrise"])
def test_a_parametrised_module_with_own_calls_can_be_baked(first):
    model = OwnLinear(4, 3)
    if first == "swap":
        swapped(model)
    parametrize.register_parametrization(model, "weight", Halved())
    if first == "parametrise":
        swapped(model)
    expected = binary_sign(functional.linear(X, model.weight))
    assert torch.equal(model(X), expected)
    twin = copy.deepcopy(model)
    bake(model)
    assert isinstance(model, OwnLinear) and not parametrize.is_parametrized(model)
    assert torch.equal(model(X), expected) and torch.equal(twin(X), expected)
    assert sorted(model.state_dict()) == ["bias", "weight"]


class Interrupted(nn.Module):
    def forward(self, x):
        raise KeyboardInterrupt


def test_an_interrupted_forward_leaves_nothing_on():
    model = swapped(nn.Sequential(Calling(torch.relu), Calling(Interrupted())))
    with pytest.raises(KeyboardInterrupt):
        model(X)
    assert torch.equal(torch.relu(X), X.clamp(0)) and torch.equal(model[0](X), binary_sign(X))


def test_functional_call_and_members_run_as_one():
    members = [swapped(Network()) for _ in range(3)]
    zeros = {name: torch.zeros_like(p) for name, p in members[0].named_parameters()}
    assert torch.equal(functional_call(members[0], zeros, X), torch.zeros(1, 3))
    loop, batched = Group(members), Group(members, way="batched")
    x = torch.randn(5, 4)
    assert torch.allclose(batched(x), torch.stack([m.expected(x) for m in members]))
    gradients = []
    for group in (loop, batched):
        group.zero_grad()
        group(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in group.parameters()])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))
    assert any(g.abs().max() > 0 for g in gradients[0])


def test_channels_last_stays():
    x = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    result = swapped(Calling(torch.relu))(x)
    assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_of_modules_work_and_of_functions_are_refused(reentrant):
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Network()

        def forward(self, x):
            return checkpoint(self.inner, x, use_reentrant=reentrant)

    class Part(Network):
        def forward(self, x):
            return checkpoint(super().forward, x, use_reentrant=reentrant)

    x = X.clone().requires_grad_()
    model = swapped(Whole())
    model(x).sum().backward()
    again, twin = X.clone().requires_grad_(), copy.deepcopy(model.inner)
    twin(again).sum().backward()
    assert torch.equal(x.grad, again.grad) and x.grad.abs().max() > 0
    with pytest.raises(WhitError, match="'relu' is called in a function.*whole modules"):
        swapped(Part())(x)


def test_export_keeps_the_paths_of_modules():
    model = swapped(nn.Sequential(Network(), Calling(functional.relu))).eval()
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    x = torch.randn(3, 4)
    exported = torch.export.export(model, (x,), dynamic_shapes=shapes, strict=False)
    assert torch.equal(exported.module()(x), model(x))
    names = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert "aten.relu.default" not in names and names.count("aten.where.Scalar") == 2
    linears = [n for n in exported.graph.nodes if str(n.target) == "aten.linear.default"]
    paths = [list(node.meta["nn_module_stack"].values())[-1][0] for node in linears]
    assert [path.removeprefix("L['self'].") for path in paths] == ["0.first", "0.second"]


def test_bad_replacements():
    with pytest.raises(WhitError, match="'rellu'; expected one of relu, "):
        swap_functional_activations(Network(), {"rellu": Replacement(Sign())})
    model = Network()
    with pytest.raises(WhitError, match="PReLU with parameters"):
        swap_functional_activations(model, {"relu": Replacement(nn.PReLU())})
    assert type(model) is Network, "a refused model is left as it was"
