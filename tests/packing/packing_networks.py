"""What the packing tests build networks from, and how they compare torch with the file."""

import numpy as np
import torch
from torch import nn

from whit.packing import pack

INTEGERS = {"uint8", "int8", "int16", "int32", "sign"}


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Quantiser(nn.Module):
    """Round to scale * integers from low to high."""

    def __init__(self, scale, low, high):
        super().__init__()
        self.scale, self.low, self.high = scale, low, high

    def forward(self, x):
        return torch.clamp(torch.round(x / self.scale), self.low, self.high) * self.scale


def randomise(model):
    """Give batch norms parameters and statistics that matter, gamma < 0 included; return eval."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.normal_()
                module.bias.normal_()
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return model.eval()


def settle(model, x):
    """Give batch norms the statistics of a batch, as training does; gamma of both signs."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5)
                module.weight[::3] *= -1
                module.bias.normal_(0, 0.3)
    with torch.no_grad():
        model.train()(x)
    return model.eval()


def dyadic(model):
    """Make batch norms exact in float32: powers of two, so that ties fall the same way."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            count = len(module.weight)
            with torch.no_grad():
                module.weight.copy_(2.0 ** torch.randint(-5, -2, (count,)))
                module.weight[::3] *= -1
                module.bias.copy_(torch.randint(-8, 9, (count,)) / 16)
                module.running_mean.copy_(torch.randint(-8, 9, (count,)) / 4)
                module.running_var.fill_(1.0)
            module.eps = 0.0
    return model.eval()


def on_grid(layer, levels, scale=1.0, per_row=False):
    """Draw the weights of a layer from integers -levels..levels (0: only -1 and +1) times scale."""
    shape = layer.weight.shape
    numbers = torch.randint(-levels, levels + 1, shape) if levels else torch.randint(0, 2, shape)
    numbers = numbers if levels else numbers * 2 - 1
    factors = torch.full((shape[0],), float(scale))
    if per_row:
        factors = factors * 2.0 ** torch.randint(-2, 3, (shape[0],))
    with torch.no_grad():
        layer.weight.copy_(numbers * factors.reshape(-1, *[1] * (len(shape) - 1)))
        if layer.bias is not None:
            layer.bias.copy_(torch.randint(-8, 9, layer.bias.shape) / 16)
    return layer


def raw(x):
    """Return a batch as the program takes it."""
    numbers = x.detach().numpy()
    return numbers.astype(np.int32) if numbers.dtype == np.int64 else numbers


def torch_output(model, x):
    with torch.no_grad():
        return model.eval()(x).numpy()


def check(model, x, *, exact=False, tolerance=1e-4, classes=True, **options):
    """Pack and compare with torch: bit for bit, or relative to the largest output."""
    expected = torch_output(model, x)
    packed = pack(model, x[:2], **options)
    found = packed.program(raw(x))
    assert found.shape == expected.shape
    if exact:
        np.testing.assert_array_equal(found, expected)
    else:
        largest = max(float(np.abs(expected).max()), 1e-3)
        np.testing.assert_allclose(found / largest, expected / largest, atol=tolerance, rtol=0)
        if classes:  # two classes may have the very same sum
            np.testing.assert_array_equal(found.argmax(-1), expected.argmax(-1))
    return packed


def kinds(packed):
    return [step.operator.kind for step in packed.program.steps]


def domains(packed):
    """Return the domain of the input and of each value."""
    return [packed.program.input.dtype, *(step.result.domain for step in packed.program.steps)]


def matrices(packed):
    return [k for k, kind in enumerate(kinds(packed)) if kind in ("linear", "conv2d")]


def between(packed):
    """Return the domains from the first matrix to what the last one reads."""
    places = matrices(packed)
    return set(domains(packed)[places[0] + 1 : places[-1] + 1])
