"""Small networks for the tests of the benchmark."""

import numpy as np
import torch
from torch import nn

from whit.packing import pack
from whit.parts.straight_through import Sign


class Residual(nn.Module):
    """A block with a shortcut, a gate and a concatenation: no chain."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.short, self.end = nn.Conv2d(2, 4, 1), nn.Linear(8, 3)

    def forward(self, x):
        y = self.second(torch.relu(self.first(x))) + self.short(x)
        y = torch.relu(y) * torch.sigmoid(y)
        pooled = [y.mean((2, 3)), torch.amax(y, (2, 3))]
        return self.end(torch.cat(pooled, 1))


def binary_mlp():
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), Sign(), nn.Linear(32, 16), Sign(),
        nn.Linear(16, 4),
    )  # fmt: skip
    return _signs(model)


def binary_conv():
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), Sign(), nn.ConstantPad2d(1, 1.0),
        nn.Conv2d(8, 8, 3), nn.MaxPool2d(2), Sign(), nn.Flatten(), nn.Linear(128, 4),
    )  # fmt: skip
    return _signs(model)


def float_chain():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2),
        nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(16, 16), nn.LayerNorm(16), nn.GELU(),
        nn.Linear(16, 4), nn.LogSoftmax(1),
    ).eval()  # fmt: skip


def inputs_of(shape, count=8, seed=0):
    return torch.from_numpy(
        np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)
    )


def packed(model, shape, path, **options):
    """Pack a model into a file and return its path."""
    return pack(model.eval(), inputs_of(shape), **options).save(path)


def _signs(model):
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.Linear | nn.Conv2d):
                part.weight.sign_()
    return model.eval()
