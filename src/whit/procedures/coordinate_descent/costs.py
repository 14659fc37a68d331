"""Costs that no gradient can lower, added to the loss: non-zero weights, energy, or your own.

    nonzero   strength * (non-zero weights) / (all weights)
    energy    strength * (energy of the non-zero multiply-accumulates) / (that of all), by the table
              of `measure.energy`: full-precision activations, weights of ceil(log2 k) bits

Biases are not counted. Both are shares of the largest possible cost, so that a strength of 0.01
weighs as much as 0.01 of the loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from whit.errors import SpecError
from whit.measure.energy import mac_pj
from whit.procedures.coordinate_descent.moves import Moves, levels_of, set_levels
from whit.procedures.coordinate_descent.network import DiscreteLayer, DiscreteNetwork


class Cost:
    """A cost of the user's own: `function(network) -> float`, any function of its indices.

    Args:
        function: is called once for each candidate, so it should be quick.
    """

    def __init__(self, function: Callable[[DiscreteNetwork], float]) -> None:
        """Keep the function."""
        self.function = function

    def value(self, network: DiscreteNetwork) -> float:
        """Return the cost as the network is; infinite for what is never to be taken.

        Raises:
            SpecError: the function returns what is no number.
        """
        returned = self.function(network)
        try:
            cost = float(returned)
        except (TypeError, ValueError):
            cost = math.nan
        if math.isnan(cost):
            raise SpecError(f"The cost returned {returned!r}; expected a number.")
        return cost

    def after(self, network: DiscreteNetwork, moves: Moves) -> Tensor:
        """Return the cost after each move alone, float64 [moves]; the network is left as it is."""
        costs = []
        for number in range(len(moves)):
            undo = set_levels(network, moves.take(slice(number, number + 1)))
            costs.append(self.value(network))
            set_levels(network, undo)
        return torch.tensor(costs, dtype=torch.float64)


class NonzeroCost(Cost):
    """A cost for every weight that is not 0, with a weight of its own in each layer.

    Args:
        network: whose layers are counted.
        strength: the cost if no weight were 0, >= 0.
        each: relative cost of a non-zero weight, one number for each layer; equal by default.
    """

    def __init__(
        self, network: DiscreteNetwork, strength: float, each: Sequence[float] | None = None
    ) -> None:
        """Work out the cost of one weight in each layer."""
        super().__init__(self._total)
        parts = [1.0] * len(network.layers) if each is None else list(each)
        sizes = [layer.index.numel() for layer in network.layers]
        whole = sum(part * size for part, size in zip(parts, sizes, strict=True))
        self.each = torch.tensor([strength * part / whole for part in parts], dtype=torch.float64)

    def _total(self, network: DiscreteNetwork) -> float:
        counts = [int((_nonzero(layer)[layer.index.long()]).sum()) for layer in network.layers]
        return float((self.each * torch.tensor(counts, dtype=torch.float64)).sum())

    def after(self, network: DiscreteNetwork, moves: Moves) -> Tensor:
        """As `Cost.after`, without calling anything."""
        change = torch.zeros(len(moves), dtype=torch.float64)
        for number in moves.layers():
            layer, chosen = network.layers[number], moves.layer == number
            nonzero = _nonzero(layer).double()
            position = moves.position[chosen]
            step = nonzero[moves.level[chosen]] - nonzero[levels_of(layer, position)]
            weighs = (position < layer.index.numel()).double()
            change[chosen] = self.each[number] * step * weighs
        return self.value(network) + change


def _nonzero(layer: DiscreteLayer) -> Tensor:
    return layer.values != 0


def energy_cost(network: DiscreteNetwork, strength: float, uses: Sequence[int]) -> NonzeroCost:
    """Return the modelled energy of the non-zero multiply-accumulates as a cost.

    Args:
        network: whose layers are counted.
        strength: the cost if no weight were 0, >= 0.
        uses: how often each weight of a layer is used a sample: 1 for linear layers, the number of
            output places for convolutions.
    """
    each = []
    for layer, times in zip(network.layers, uses, strict=True):
        bits = max(1, (len(layer.values) - 1).bit_length())
        each.append(times * mac_pj(bits, 32, max(1, layer.index[0].numel())))
    return NonzeroCost(network, strength, each)
