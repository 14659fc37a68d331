"""Networks of other people's shapes on MNIST, for benchmarks/packed_agreement.py.

    whit run benchmarks/mnist_networks.py:residual --seed 100 --out runs

Each is a task of its own, trained for one epoch: what counts is that all forms agree.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.nn.utils import parametrize

from whit import Settings, Task
from whit.parts.group import Group
from whit.parts.normalise import Normalise
from whit.tasks.mnist import mnist


class Residual(nn.Module):
    """Two convolutions around a shortcut, as in ResNet."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        plain = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if plain else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Inverted(nn.Module):
    """Expansion, depthwise convolution, gate and projection, as in MobileNet."""

    def __init__(self, width: int) -> None:
        super().__init__()
        wide = 4 * width
        self.expand, self.norm1 = nn.Conv2d(width, wide, 1, bias=False), nn.BatchNorm2d(wide)
        self.depth = nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False)
        self.norm2, self.gate = nn.BatchNorm2d(wide), nn.Conv2d(wide, wide, 1)
        self.project, self.norm3 = nn.Conv2d(wide, width, 1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu6(self.norm1(self.expand(x)))
        y = functional.hardswish(self.norm2(self.depth(y)))
        y = y * functional.hardsigmoid(self.gate(functional.adaptive_avg_pool2d(y, 1)))
        return x + self.norm3(self.project(y))


class Rounded(nn.Module):
    """Weights or activations on a grid, with a straight-through gradient.

    Args:
        low: lowest integer.
        high: highest integer.
        scale: of one step.
    """

    def __init__(self, low: int, high: int, scale: float) -> None:
        super().__init__()
        self.low, self.high, self.scale = low, high, scale

    def forward(self, x: Tensor) -> Tensor:
        rounded = torch.clamp(torch.round(x / self.scale), self.low, self.high) * self.scale
        return x + (rounded - x).detach()


def _start() -> list[nn.Module]:
    return [Normalise(128.0, 128.0), nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)]


def _end(width: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]


def _residual() -> nn.Module:
    blocks = [Residual(16, 16, 1), Residual(16, 32, 2)]
    return nn.Sequential(*_start(), nn.ReLU(), *blocks, *_end(32))


def _mobile() -> nn.Module:
    return nn.Sequential(*_start(), nn.Hardswish(), nn.MaxPool2d(2), Inverted(16), *_end(16))


def _four_bit() -> nn.Module:
    model = nn.Sequential(
        *_start(), nn.ReLU(), Rounded(0, 15, 0.25), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), Rounded(-1, 1, 1.0),
        nn.Flatten(), nn.Linear(32 * 16, 10),
    )  # fmt: skip
    for layer in model:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            parametrize.register_parametrization(layer, "weight", Rounded(-7, 7, 0.03125))
    return model


def _members() -> nn.Module:
    def member() -> nn.Module:
        return nn.Sequential(
            Normalise(128.0, 128.0), nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10)
        )

    return Group([member(), member(), member()])


def _task(name: str, build: Callable[[], nn.Module]) -> Task:
    settings = Settings(epochs=1, batch_size=128, learning_rate=5e-3)
    return replace(mnist(), name=name, build=lambda data: build(), settings=settings)


residual = _task("mnist-residual", _residual)
mobile = _task("mnist-mobile", _mobile)
four_bit = _task("mnist-four-bit", _four_bit)
members = _task("mnist-members", _members)
