"""What other tools leave behind: fake quantisation, Brevitas, torch.ao; changes in place."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from packing_networks import (
    INTEGERS,
    Function,
    between,
    check,
    domains,
)
from torch import nn

from whit.errors import CannotPack
from whit.packing import pack

DATA = Path(__file__).parent / "data"


CHANGES = {
    "add_": lambda x: (x * 2).add_(1.5),
    "mul_": lambda x: (x + 1).mul_(-3.0),
    "sub_": lambda x: (x + 1).sub_(0.25),
    "div_": lambda x: (x + 1).div_(4),
    "add_two": lambda x: (x * 2).add_(x),
    "mul_two": lambda x: (x * 2).mul_(x),
    "sub_two": lambda x: (x * 2).sub_(x.relu()),
    "augmented": lambda x: F.relu_(x * 2 - 1),
    "hardtanh_": lambda x: F.hardtanh_(x * 2),
    "leaky_relu_": lambda x: F.leaky_relu_(x * 2, 0.3),
    "elu_": lambda x: F.elu_(x * 2),
    "clamp_": lambda x: (x * 2).clamp_(min=-0.5),
    "sigmoid_": lambda x: torch.sigmoid_(x * 2),
    "flat": lambda x: (x * 2).view(-1, 6).add_(1),
    "sign": lambda x: (x * 2).add_(0.5).sign_(),
    "reversed": lambda x: torch.rsub(x, x.relu()) + torch.rsub(x, 1.0),
    "divided": lambda x: torch.sub(3.0, x) / 4,
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_in_place_and_arithmetic(name):
    check(Function(CHANGES[name]), torch.randn(30, 2, 3), tolerance=1e-6)


def test_a_change_in_place_that_another_view_shows_is_refused():
    def forward(x):
        doubled = x * 2
        doubled.view(-1, 6).add_(1)
        return doubled * 3

    with pytest.raises(CannotPack, match=r"add_.*in place.*'mul'"):
        pack(Function(forward), torch.randn(3, 2, 3))


class Fake(nn.Module):
    """Fake quantisation of one tensor, per channel where there are several scales."""

    def __init__(self, scale, low, high, zero=0):
        super().__init__()
        self.limits = (low, high)
        self.register_buffer("scale", torch.as_tensor(scale))
        self.register_buffer("zero", torch.full_like(self.scale, zero).to(torch.int32))

    def forward(self, x):
        if self.scale.dim():
            return torch.fake_quantize_per_channel_affine(x, self.scale, self.zero, 0, *self.limits)
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, *self.limits)


class FakeLinear(nn.Linear):
    def __init__(self, inputs, outputs, low, high):
        super().__init__(inputs, outputs)
        self.fake = Fake(self.weight.detach().abs().amax(1) / high, low, high)

    def forward(self, x):
        return F.linear(x, self.fake(self.weight), self.bias)


@pytest.mark.parametrize(("low", "high", "form"), [(-7, 7, "int4"), (-127, 127, "int8")])
def test_fake_quantisation_of_weights_and_activations(low, high, form):
    model = nn.Sequential(
        Fake(1 / 16, -128, 127), FakeLinear(24, 32, low, high), nn.ReLU(),
        Fake(1 / 32, 0, 255, 3), FakeLinear(32, 16, low, high), nn.ReLU(),
        Fake(1 / 64, 0, 15), FakeLinear(16, 5, low, high),
    )  # fmt: skip
    packed = check(model, torch.randn(50, 24), tolerance=0.05)
    assert {layer.format for layer in packed.layers} == {form}
    assert between(packed) <= INTEGERS


class BrevitasSign(nn.Module):
    """What torch.export shows of QuantIdentity with SignedBinaryActPerTensorConst."""

    def __init__(self, scale):
        super().__init__()
        self.register_buffer("scale", torch.tensor([float(scale)]))

    def forward(self, x):
        scale = self.scale / torch.ones(1).type_as(x).abs()
        x = torch.where(x > scale, scale.type_as(x), x)
        x = torch.where(x < -scale, (-scale).type_as(x), x)
        return ((x >= 0.0).to(torch.float32) * 2.0 - 1.0) * scale.type_as(x)


class BrevitasRelu(nn.Module):
    """What torch.export shows of QuantReLU with 4 bits."""

    def __init__(self, scale):
        super().__init__()
        self.register_buffer("scale", torch.tensor(float(scale)))
        self.register_buffer("zero", torch.tensor(0.0))
        self.register_buffer("bits", torch.tensor(4.0))

    def forward(self, x):
        x = torch.round(torch.relu(x) / self.scale + self.zero.detach())
        highest, lowest = 2**self.bits - 1, self.bits * 0
        x = torch.where(x > highest, highest.type_as(x), x)
        x = torch.where(x < lowest, lowest.type_as(x), x)
        return (x - self.zero.detach()) * self.scale


@pytest.mark.parametrize(
    ("name", "activation", "forms", "domain"),
    [
        ("binary", BrevitasSign, {"bits"}, "sign"),
        ("ternary", BrevitasSign, {"ternary5"}, "sign"),
        ("int4", BrevitasRelu, {"int4"}, "uint8"),
    ],
)
def test_exported_values_of_brevitas(name, activation, forms, domain):
    """The values come from Brevitas itself, see data/make_brevitas.py, which packs it live too."""
    with np.load(DATA / "brevitas.npz") as stored:
        values = {key: torch.from_numpy(stored[key]) for key in stored.files}
    norm = nn.BatchNorm1d(16)
    first, second = nn.Linear(24, 16, bias=False), nn.Linear(16, 5, bias=False)
    with torch.no_grad():
        first.weight.copy_(values[f"{name}.weight1"])
        second.weight.copy_(values[f"{name}.weight2"])
        parts = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        for part, value in zip(parts, values[f"{name}.norm"], strict=True):
            part.copy_(value)
    scales = [values[f"{name}.scale{k}"] for k in (1, 2)]
    model = nn.Sequential(activation(scales[0]), first, norm, activation(scales[1]), second)
    packed = check(model, values["x"], tolerance=1e-5, classes=False)
    expected = values[f"{name}.output"].numpy()
    np.testing.assert_allclose(packed.program(values["x"].numpy()), expected, atol=1e-5)
    assert {layer.format for layer in packed.layers} <= forms
    assert between(packed) == {"int32", domain}


def test_modules_of_torch_ao_with_their_observers_off():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao import quantization as ao

        model = nn.Sequential(
            ao.QuantStub(), nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5)
        )
        model.train().qconfig = ao.get_default_qat_qconfig("fbgemm")
        model = ao.prepare_qat(model)
        x = torch.randn(30, 1, 8, 8)
        model(x)
        model.eval()
        with pytest.raises(CannotPack, match="disable_observer"):
            pack(model, x)
        model.apply(ao.disable_observer)
    packed = check(model, x, tolerance=0.02)
    assert [layer.format for layer in packed.layers] == ["int8", "int8"]
    assert domains(packed)[2] == "int32"
    model.apply(ao.disable_fake_quant)
    assert [layer.format for layer in check(model, x).layers] == ["float32", "float32"]
