"""Sizes of whole files against the float32 state dict of the same network."""

import pytest
import torch
from packing_networks import randomise
from torch import nn

from whit.packing import pack
from whit.parts.normalise import Normalise
from whit.parts.straight_through import Sign


def binary_net(activation=Sign):
    """The CIFAR-10 network of BinaryNet: 128-128-256-256-512-512 and 1024-1024-10."""
    layers: list[nn.Module] = [Normalise(128.0, 128.0)]
    channels = 3
    for number, width in enumerate((128, 128, 256, 256, 512, 512)):
        layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=False))
        layers += [nn.MaxPool2d(2)] if number % 2 else []
        layers += [nn.BatchNorm2d(width), activation()]
        channels = width
    layers.append(nn.Flatten())
    for columns, rows in ((8192, 1024), (1024, 1024)):
        layers += [nn.Linear(columns, rows, bias=False), nn.BatchNorm1d(rows), activation()]
    return nn.Sequential(*layers, nn.Linear(1024, 10, bias=False), nn.BatchNorm1d(10))


def with_weights(model, change):
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            with torch.no_grad():
                module.weight.copy_(change(module.weight))
    return randomise(model)


def float_bytes(model):
    state = model.state_dict()
    return sum(4 * value.numel() for value in state.values() if value.is_floating_point())


def pixels():
    return torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)


def overhead(packed):
    return packed.nbytes - sum(layer.after_bytes for layer in packed.layers)


def binary(weight):
    return torch.where(weight >= 0, 1.0, -1.0)


def scaled(weight):
    scale = weight.abs().flatten(1).mean(1).reshape(-1, *[1] * (weight.dim() - 1))
    return torch.where(weight >= 0, scale, -scale)


def ternary(weight):
    return torch.randint_like(weight, -1, 2)


@pytest.mark.parametrize(
    ("change", "share", "form"),
    [(binary, 1 / 26, "bits"), (scaled, 1 / 26, "bits"), (ternary, 1 / 14, "ternary5")],
)
def test_binary_net(change, share, form):
    model = with_weights(binary_net(), change)
    packed = pack(model, pixels())
    assert {layer.format for layer in packed.layers} == {form}
    assert packed.nbytes <= share * float_bytes(model)
    assert overhead(packed) <= 1024 + 0.02 * packed.nbytes


def test_the_float_network_is_no_larger_than_its_state_dict():
    model = with_weights(binary_net(nn.ReLU), lambda weight: weight)
    packed = pack(model, pixels())
    assert packed.nbytes <= float_bytes(model)
    assert overhead(packed) <= 1024 + 0.02 * packed.nbytes


def mlp():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(),
        nn.Linear(256, 10),
    )  # fmt: skip


def sparse(weight):
    return torch.where(weight.abs() >= weight.abs().flatten().quantile(0.95), weight, 0.0)


def two_of_four(weight):
    groups = weight.reshape(-1, 4)
    kept = groups.abs().topk(2, dim=1).indices
    return (groups * torch.zeros_like(groups).scatter(1, kept, 1.0)).reshape(weight.shape)


def eight_bits(weight):
    scale = weight.abs().amax() / 127
    return torch.round(weight / scale) * scale


@pytest.mark.parametrize(
    ("change", "share"),
    [
        (sparse, 0.12),
        (lambda weight: sparse(eight_bits(weight)), 0.06),
        (two_of_four, 0.54),
        (lambda weight: two_of_four(eight_bits(weight)), 0.17),
        (eight_bits, 0.26),
        (lambda weight: weight.half().float(), 0.51),
    ],
)
def test_multilayer_perceptron(change, share):
    model = with_weights(mlp(), change)
    packed = pack(model, torch.randn(2, 1, 28, 28))
    assert packed.nbytes <= share * float_bytes(model)
    assert overhead(packed) <= 1024 + 0.02 * packed.nbytes + 4 * (512 + 256 + 10)  # biases
