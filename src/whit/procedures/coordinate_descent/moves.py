"""Moves: one weight takes another value of its set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whit.procedures.coordinate_descent.network import DiscreteLayer, DiscreteNetwork


@dataclass(frozen=True)
class Moves:
    """Changes of single weights or biases.

    Attributes:
        layer: int64 [moves], number of the layer in the network.
        position: int64 [moves], place in the flat weight; biases follow the weights.
        level: int64 [moves], the new index into the layer's values.
    """

    layer: Tensor
    position: Tensor
    level: Tensor

    def __len__(self) -> int:
        return len(self.layer)

    def layers(self) -> list[int]:
        """Return the numbers of the layers that change, ascending."""
        return sorted(set(self.layer.tolist()))

    def take(self, chosen: Tensor | slice) -> Moves:
        """Return some of the moves, in the given order."""
        return Moves(self.layer[chosen], self.position[chosen], self.level[chosen])

    @classmethod
    def joined(cls, several: Sequence[Moves]) -> Moves:
        """Return all moves, one after another."""
        parts = ([m.layer for m in several], [m.position for m in several])
        levels = [m.level for m in several]
        return cls(torch.cat(parts[0]), torch.cat(parts[1]), torch.cat(levels))


def levels_of(layer: DiscreteLayer, position: Tensor) -> Tensor:
    """Return the present indices at these positions, int64."""
    flat = layer.index.reshape(-1)
    if layer.bias_index is not None:
        flat = torch.cat([flat, layer.bias_index])
    return flat[position].long()


def set_levels(network: DiscreteNetwork, moves: Moves) -> Moves:
    """Change the indices, and return the moves that undo it. No position may occur twice.

    Args:
        network: whose layers are changed.
        moves: the changes.
    """
    before = torch.empty_like(moves.level)
    for number in moves.layers():
        layer, chosen = network.layers[number], moves.layer == number
        position, level = moves.position[chosen], moves.level[chosen]
        before[chosen] = levels_of(layer, position)
        weights, is_weight = layer.index.numel(), position < layer.index.numel()
        layer.index.view(-1)[position[is_weight]] = level[is_weight].to(torch.uint8)
        if layer.bias_index is not None:
            biases = position[~is_weight] - weights
            layer.bias_index[biases] = level[~is_weight].to(torch.uint8)
    return Moves(moves.layer, moves.position, before)


def positions_in(layer: DiscreteLayer) -> int:
    """Return how many weights and discrete biases a layer has."""
    return layer.index.numel() + (0 if layer.bias_index is None else len(layer.bias_index))


def unit_of(layer: DiscreteLayer, position: Tensor) -> Tensor:
    """Return the output channel of each position, int64."""
    weights, inputs = layer.index.numel(), layer.index[0].numel()
    return torch.where(position < weights, position // inputs, position - weights)


def positions_of_unit(layer: DiscreteLayer, unit: int) -> Tensor:
    """Return all positions of one output channel: its weights, then its discrete bias."""
    inputs = layer.index[0].numel()
    weights = torch.arange(unit * inputs, (unit + 1) * inputs)
    if layer.bias_index is None:
        return weights
    return torch.cat([weights, torch.tensor([layer.index.numel() + unit])])


def moves_at(network: DiscreteNetwork, number: int, position: Tensor) -> Moves:
    """Return all moves of these positions: to each other value, ascending, position by position.

    Args:
        network: as it is.
        number: of the layer.
        position: int64, each once.
    """
    layer = network.layers[number]
    others = len(layer.values) - 1
    level = torch.arange(others).repeat(len(position))
    level += level >= levels_of(layer, position).repeat_interleave(others)
    layers = torch.full_like(level, number)
    return Moves(layers, position.repeat_interleave(others), level)


def every_move(network: DiscreteNetwork) -> Moves:
    """Return all single moves of a network: the whole neighbourhood."""
    return Moves.joined(
        [
            moves_at(network, number, torch.arange(positions_in(layer)))
            for number, layer in enumerate(network.layers)
        ]
    )
