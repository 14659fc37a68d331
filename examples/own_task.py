"""A task of your own: data, a model, and nothing else.

Run it with `whit compare examples/own_task.py:rings`.
"""

import torch
from torch import nn

import whit


def load() -> whit.VectorData:
    """Make points on two rings; yours would read files. Inputs stay raw, classes are int64."""
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 2, (1200,), generator=generator)
    angle = 6.283 * torch.rand(1200, generator=generator)
    radius = 1.0 + label + 0.2 * torch.randn(1200, generator=generator)
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
    parts = zip(points.split((800, 200, 200)), label.split((800, 200, 200)), strict=True)
    train, valid, test = (whit.Split((x,), y) for x, y in parts)
    return whit.VectorData(train, valid, test, class_names=("inner", "outer"))


def build(data: whit.Data, width: float = 1.0) -> nn.Module:
    """Return the control model; techniques may ask for another width."""
    hidden = int(64 * width)
    return nn.Sequential(
        nn.Linear(2, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, 2),
    )


rings = whit.Task("rings", load, build, settings=whit.Settings(epochs=20, batch_size=50))
