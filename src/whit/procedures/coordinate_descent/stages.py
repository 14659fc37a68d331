"""Which networks the whole-neighbourhood scorer takes, and their parts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from whit.errors import NotApplicable
from whit.procedures.coordinate_descent.channels import leaves_its_input
from whit.procedures.coordinate_descent.network import DiscreteNetwork

Elementwise = Callable[[Tensor], Tensor]


def split_stages(network: DiscreteNetwork) -> tuple[list[nn.Module], Elementwise]:
    """Return the modules before the first layer, and the activation between the two.

    Both are copies in evaluation mode, without gradients; the activation leaves its input as it is.

    Raises:
        NotApplicable: the network is not `... -> Linear -> elementwise -> Linear`.
    """
    layers = [layer.module for layer in network.layers]
    stages = network.stages
    where = [k for k, stage in enumerate(stages) if any(stage is m for m in layers)]
    if len(layers) != 2 or len(where) != 2 or not all(isinstance(m, nn.Linear) for m in layers):
        raise NotApplicable(
            f"The whole-neighbourhood scorer takes a chain of two linear layers; this network has "
            f"{len(layers)} discrete layers. Use scorer='exact'."
        )
    if where[1] != len(stages) - 1:
        raise NotApplicable(
            f"The whole-neighbourhood scorer needs the second linear layer at the end, and "
            f"{type(stages[-1]).__name__} comes after it. Use scorer='exact'."
        )
    middle = stages[where[0] + 1 : where[1]]

    single = nn.Sequential(*(still(stage) for stage in middle)).float()
    double = copy.deepcopy(single).double()
    untouched = len(single) > 0 and leaves_its_input(single[0])

    def activation(x: Tensor) -> Tensor:
        x = x if untouched else x.clone()
        mapped: Tensor = (double if x.dtype == torch.float64 else single)(x)
        return mapped

    _require_elementwise(activation, middle)
    plain = len(middle) == 1 and type(middle[0]) is nn.ReLU
    return [still(stage) for stage in stages[: where[0]]], torch.relu if plain else activation


def still(module: nn.Module) -> nn.Module:
    """Return a copy that does not learn: on the CPU, in evaluation mode, without gradients."""
    return copy.deepcopy(module).cpu().eval().requires_grad_(False)


def _require_elementwise(activation: Elementwise, middle: Sequence[nn.Module]) -> None:
    """Refuse a function that does not treat each element alike; try it on a few numbers."""
    numbers = torch.linspace(-2.0, 2.0, 12).reshape(4, 3)
    names = ", ".join(type(stage).__name__ for stage in middle) or "nothing"
    try:
        with torch.no_grad():
            alone = torch.stack([activation(row[None])[0] for row in numbers.reshape(12, 1)])
            together = activation(numbers)
            same = together.shape == numbers.shape and torch.equal(together.reshape(12, 1), alone)
    except (RuntimeError, ValueError):  # a batch norm that knows its number of channels
        same = False
    if not same:
        raise NotApplicable(
            f"The whole-neighbourhood scorer needs an elementwise activation between the two "
            f"layers; there is {names}. Use scorer='exact'."
        )
