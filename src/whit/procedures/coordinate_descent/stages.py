"""Which networks and options the whole-neighbourhood scorer takes, and the networks' parts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from whit.errors import NotApplicable
from whit.procedures.coordinate_descent.channels import leaves_its_input
from whit.procedures.coordinate_descent.network import DiscreteNetwork
from whit.procedures.coordinate_descent.options import SweepOptions

Elementwise = Callable[[Tensor], Tensor]
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
DEFAULT_GUIDED = 8
# What the fast engine does instead, by the option of the exact one.
INSTEAD = {
    "rule": "always takes the best moves",
    "order": "always visits the units in random order",
    "block": "scores the moves of a group of units against the same state",
    "batch": "draws batches of its own, or takes all samples",
    "pairs": "makes single moves only",
    "restarts": "starts once",
    "keep": "keeps the last state",
    "nonzero_cost": "lowers the loss alone",
    "energy_cost": "lowers the loss alone",
}


def against_neighbourhood(network: DiscreteNetwork, options: SweepOptions, known: str) -> str:
    """Return why the whole-neighbourhood engine cannot do this; "" where it can.

    Args:
        network: to be trained.
        options: asked for.
        known: criterion that is the task's loss, "cross_entropy" or "mse".
    """
    reasons = _against_options(options, known)
    if reasons:
        # An engine that could not take the criterion either is no way out.
        fits = options.criterion == known or (
            known == "cross_entropy" and options.criterion != "mse"
        )
        return f"{reasons}. " + ("Use scorer='exact'." if fits else "Leave criterion out.")
    try:
        front, _ = split_stages(network)
    except NotApplicable as reason:
        return str(reason)
    norms = [m for stage in front for m in stage.modules() if isinstance(m, BATCH_NORMS)]
    if norms and options.batch_statistics:
        return (
            "a batch norm lies before the first layer, and at a random start it takes its "
            "statistics from all samples. Use scorer='exact'."
        )
    return ""


def _against_options(options: SweepOptions, known: str) -> str:
    plain = SweepOptions()
    found = [
        f"{name}={getattr(options, name)!r}, but it {text}"
        for name, text in INSTEAD.items()
        if getattr(options, name) != getattr(plain, name)
    ]
    if options.criterion != known:
        found.append(f"criterion={options.criterion!r}, but it always lowers the task's loss")
    if not found and options.guided != DEFAULT_GUIDED:
        found.append(f"guided={options.guided}, but it scores all moves of a unit")
    return "; ".join(found)


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
