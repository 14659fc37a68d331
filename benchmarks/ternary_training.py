"""A technique for benchmarks/everyday_networks.py: weights of -s, 0 and +s, by training.

    whit run digits "benchmarks/ternary_training.py:ternary()"

Ternary weight networks (Li and Liu, 2016) in their plainest form, here only so that there is a
trained ternary network to time: not a method of whit.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from whit import Technique, technique


class Ternary(nn.Module):
    """-s, 0, +s: small weights become 0, s is the mean magnitude of the others."""

    def forward(self, weight: Tensor) -> Tensor:
        magnitude = weight.detach().abs()
        kept = magnitude > 0.7 * magnitude.mean()
        scale = magnitude[kept].mean()
        rounded = torch.where(kept, weight.detach().sign() * scale, torch.zeros(()))
        return rounded + (weight - weight.detach())  # exactly the rounded values, straight through


@technique
def ternary() -> Technique:
    """Train with ternary weights in all layers but the first and the last."""

    def prepare(model: nn.Module, data: object) -> nn.Module:
        layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        for layer in layers[1:-1]:
            parametrize.register_parametrization(layer, "weight", Ternary())
        return model

    return Technique(prepare_model=prepare)
