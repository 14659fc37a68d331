"""A model of your own and arrays, and nothing of whit but one call.

Run it with `whit compare examples/own_arrays.py:waves`.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import whit


class Net(nn.Module):
    """Two convolutions over a signal, with functional calls as in anybody's model."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        channels = int(16 * width)
        self.conv1 = nn.Conv2d(1, channels, (1, 5), padding=(0, 2))
        self.conv2 = nn.Conv2d(channels, channels, (1, 5), padding=(0, 2))
        self.head = nn.Linear(channels * 8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores of the classes. Shapes: [batch, 1, 1, 32] -> [batch, 2]."""
        x = F.max_pool2d(F.relu(self.conv1(x)), (1, 2))
        x = F.max_pool2d(torch.relu(self.conv2(x)), (1, 2))
        return self.head(torch.flatten(x, 1))


random = np.random.RandomState(0)
kinds = random.randint(0, 2, 900)
phase, time = random.rand(900, 1), np.linspace(0, 1, 32)
signals = np.sin(2 * np.pi * ((3 + kinds[:, None]) * time + phase)) + random.randn(900, 32)
inputs = signals[:, None, None].astype("float32")

waves = whit.array_task(Net, inputs, np.array(["slow", "fast"])[kinds])
