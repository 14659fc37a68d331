"""What happens to one channel between a discrete layer and the next: no other channel is needed.

Shapes: a channel of many candidates is [candidates, samples, *places]; places are the rows and
columns behind a convolution, the middle axes behind a linear layer, or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from whit.parts.straight_through import Sign
from whit.procedures.coordinate_descent.graph import Call

BatchNorm = nn.modules.batchnorm._BatchNorm
Step = Callable[[Tensor, int], Tensor]
# They return new numbers and leave their input as it is, if not told to work in place.
NEW_NUMBERS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.SiLU,
    nn.GELU,
    nn.Tanh,
    nn.Sigmoid,
    nn.Hardtanh,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Softplus,
    Sign,
)
DROPOUTS = nn.modules.dropout._DropoutNd
POOLINGS = (
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.ConstantPad2d,
    nn.ReflectionPad2d,
    nn.ReplicationPad2d,
)


class ChannelNorm(nn.Module):
    """Batch norm by stored statistics, or by those of each candidate's own samples.

    Args:
        norm: with its affine part; its running statistics are those that are stored.
        batch: whether to use the statistics of the batch, biased variance.

    Attributes:
        copies: holds how many candidates lie in the batch axis; may be shared with other norms.
        record: whether the next forward call stores the statistics of the batch.
    """

    def __init__(self, norm: BatchNorm, batch: bool) -> None:
        """Keep the norm."""
        super().__init__()
        self.norm = norm
        self.batch = batch or norm.running_mean is None
        self.copies = [1]
        self.record = False

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [copies * samples, channels, ...]."""
        norm = self.norm
        if not self.batch:
            mean, variance = norm.running_mean, norm.running_var
            return functional.batch_norm(
                x, mean, variance, norm.weight, norm.bias, False, 0.0, norm.eps
            )
        apart = x.reshape(self.copies[0], -1, *x.shape[1:])
        axes = [a for a in range(apart.dim()) if a not in (0, 2)]
        variance, mean = torch.var_mean(apart, axes, correction=0, keepdim=True)
        if self.record:
            self._store(mean.flatten(), variance.flatten())
        # One pass: x * gain + offset.
        gain = 1 / torch.sqrt(variance + norm.eps)
        offset = -mean * gain
        if norm.affine:
            shape = (1, 1, -1, *[1] * (x.dim() - 2))
            weight = norm.weight.reshape(shape)
            gain, offset = gain * weight, offset * weight + norm.bias.reshape(shape)
        return torch.addcmul(offset, apart, gain).flatten(0, 1)

    def _store(self, mean: Tensor, variance: Tensor) -> None:
        if self.norm.running_mean is not None and self.norm.running_var is not None:
            self.norm.running_mean.copy_(mean.detach())
            self.norm.running_var.copy_(variance.detach())

    def channel(self, x: Tensor, unit: int) -> Tensor:
        """Normalise one channel [candidates, samples, *places]."""
        norm = self.norm
        if self.batch:
            axes = list(range(1, x.dim()))
            variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        else:
            assert norm.running_mean is not None and norm.running_var is not None
            mean, variance = norm.running_mean[unit], norm.running_var[unit]
        normal = (x - mean) / torch.sqrt(variance + norm.eps)
        return normal * norm.weight[unit] + norm.bias[unit] if norm.affine else normal


@dataclass(frozen=True)
class Segment:
    """The steps of one channel from a discrete layer to the next.

    Attributes:
        steps: `(x, unit) -> x`, in order.
        flattened: whether the places of a channel became neighbouring features.
    """

    steps: tuple[Step, ...]
    flattened: bool

    def __call__(self, x: Tensor, unit: int) -> Tensor:
        """Take one channel [candidates, samples, *places] to the next layer's input."""
        for step in self.steps:
            x = step(x, unit)
        return x


def channel_segment(
    modules: Sequence[nn.Module] | None, layer: nn.Module, places: int
) -> Segment | None:
    """Return the steps of one channel, or None where a module mixes channels.

    Args:
        modules: between the layer and the next, in evaluation mode; None for no single row.
        layer: `nn.Linear` or `nn.Conv2d`.
        places: how many axes of places the layer's output has.
    """
    if modules is None:
        return None
    steps: list[Step] = []
    flattened = False
    for module in modules:
        images = isinstance(layer, nn.Conv2d) and not flattened
        plain = isinstance(layer, nn.Linear) and places == 0
        if isinstance(module, nn.Identity | DROPOUTS):
            continue
        if isinstance(module, ChannelNorm):
            if not (images or plain):
                return None
            steps.append(module.channel)
        elif _flattens(module):
            if not (images or plain or flattened):
                return None
            if images:
                steps.append(lambda x, unit: x.flatten(2))
                flattened = True
        elif isinstance(module, POOLINGS):
            if not images or getattr(module, "return_indices", False):
                return None
            steps.append(_on_images(module))
        elif acts_on_each_element(module):
            steps.append(_on_elements(module))
        else:
            return None
    return Segment(tuple(steps), flattened)


def _flattens(module: nn.Module) -> bool:
    if isinstance(module, nn.Flatten):
        return module.start_dim == 1 and module.end_dim == -1
    if isinstance(module, Call) and module.function in (torch.flatten, "flatten"):
        return (module.rest, module.named) in (((1,), {}), ((), {"start_dim": 1}))
    return False


def _on_images(module: nn.Module) -> Step:
    def step(x: Tensor, unit: int) -> Tensor:
        images: Tensor = module(x.flatten(0, 1).unsqueeze(1))
        return images.reshape(*x.shape[:2], *images.shape[2:])

    return step


def leaves_its_input(module: nn.Module) -> bool:
    """Say whether a module is known not to change its input; functions and others may do so."""
    return type(module) in NEW_NUMBERS and not getattr(module, "inplace", False)


def _on_elements(module: nn.Module) -> Step:
    untouched = leaves_its_input(module)

    def step(x: Tensor, unit: int) -> Tensor:
        mapped: Tensor = module(x if untouched else x.clone())
        return mapped

    return step


def acts_on_each_element(module: nn.Module) -> bool:
    """Say whether a module maps each number by itself, by trying it on random numbers."""
    generator = torch.Generator().manual_seed(0)
    whole = 3 * torch.randn(4, 6, 8, generator=generator, dtype=torch.float64)
    chosen = torch.randperm(whole.numel(), generator=generator)[: whole.numel() // 2]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            mapped, part = module(whole.clone()), module(whole.flatten()[chosen])
    except Exception:  # whatever a module that expects other shapes raises: it is another kind
        return False
    same = isinstance(mapped, Tensor) and mapped.shape == whole.shape
    return same and isinstance(part, Tensor) and torch.equal(mapped.flatten()[chosen], part)
