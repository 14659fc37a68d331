"""Predictions of what moves would do, from gradients; only exact scores decide.

    predicted change of a move by d:  d g + d^2 h / 2
    g = dE / dw,  h = the diagonal of the Gauss-Newton matrix

Moves are not small, so that g alone misleads. Behind `torch.sign` g is 0, behind a straight-through
sign it is what that says: then predictions are poor, and the exhaustive sweeps do the work.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from whit.errors import NotApplicable
from whit.procedures.coordinate_descent.criteria import CrossEntropy, MeanSquare
from whit.procedures.coordinate_descent.moves import (
    Moves,
    levels_of,
    moves_at,
    positions_of_unit,
)
from whit.procedures.coordinate_descent.places import Place
from whit.procedures.coordinate_descent.state import NetworkState

SAMPLES_AT_ONCE = 256


def gradients(state: NetworkState, curvature: bool = False) -> tuple[list[Tensor], list[Tensor]]:
    """Return g and h of every position of every layer, flat: weights, then biases.

    Args:
        state: of the network on its data.
        curvature: also work out h, which costs a backward pass for each output; else it is 0, as
            it is for criteria other than cross-entropy and mean squared error.
    """
    for module in state.modules.values():
        module.requires_grad_(True)
    try:
        with torch.enable_grad():
            first, second = None, None
            for part in state.parts_with_gradients():
                slopes, bends = _sums(state, part, curvature)
                first, second = _added(first, slopes), _added(second, bends)
    finally:
        for module in state.modules.values():
            module.requires_grad_(False)
    _charge(state, 3 + 2 * (state.output.shape[-1] if curvature else 0))
    assert first is not None and second is not None
    samples = len(state.target)
    return [total / samples for total in first], [total / samples for total in second]


def _added(totals: list[Tensor] | None, more: list[Tensor]) -> list[Tensor]:
    return more if totals is None else [a.add_(b) for a, b in zip(totals, more, strict=True)]


def _sums(state: NetworkState, part: slice, curvature: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Return g and h summed over some samples."""
    values = state.propagation.forward(state.inputs[part])
    output = state.propagation.output(values)
    backward = _Backward(state, values, output)
    first = backward.of_loss(state.criterion.losses(output, state.target[part]).sum())
    second = [torch.zeros_like(g) for g in first]
    if curvature:
        for vector in _directions(state, output):
            for total, more in zip(second, backward.squares(vector), strict=True):
                total += more
    return first, second


def _charge(state: NetworkState, forwards: int) -> None:
    state.macs += forwards * state.forward_macs * len(state.target)


def _directions(state: NetworkState, output: Tensor) -> list[Tensor]:
    """Return vectors v whose v v' add up to the second derivative of a sample's loss."""
    flat = output.detach()
    if isinstance(state.criterion, CrossEntropy):
        chance = flat.softmax(1)
        unit = torch.eye(flat.shape[1], dtype=flat.dtype)
        return [chance[:, c : c + 1].sqrt() * (unit[c] - chance) for c in range(flat.shape[1])]
    if isinstance(state.criterion, MeanSquare) and flat.dim() == 2:
        unit = torch.eye(flat.shape[1], dtype=flat.dtype) * (2 / flat.shape[1]) ** 0.5
        return [row.expand_as(flat) for row in unit]
    return []


class _Backward:
    """Backward passes over one forward pass, kept for several of them."""

    def __init__(self, state: NetworkState, values: dict[fx.Node, Tensor], output: Tensor) -> None:
        self.state, self.output = state, output
        self.results = [values[place.node] for place in state.places]
        self.inputs = [values[place.node.all_input_nodes[0]].detach() for place in state.places]

    def of_loss(self, loss: Tensor) -> list[Tensor]:
        """Return dE/dw by position."""
        modules = [place.module for place in self.state.places]
        weights = [m.weight for m in modules]
        biases = [
            place.module.bias
            for place in self.state.places
            if place.layer.bias_index is not None and place.module.bias is not None
        ]
        require_slope(loss)
        found = torch.autograd.grad(
            loss, [*weights, *biases], retain_graph=True, allow_unused=True, materialize_grads=True
        )
        left = iter(found[len(weights) :])
        return [
            torch.cat([g.reshape(-1), next(left)])
            if place.layer.bias_index is not None
            # A copy, so that nobody writes into what autograd returned.
            else g.reshape(-1).clone()
            for place, g in zip(self.state.places, found, strict=False)
        ]

    def squares(self, vector: Tensor) -> list[Tensor]:
        """Return the sum over samples of (d(v output) / dw)^2 by position."""
        deltas = torch.autograd.grad(
            self.output, self.results, vector, True, allow_unused=True, materialize_grads=True
        )
        return [
            _summed_squares(place, inputs, delta)
            for place, inputs, delta in zip(self.state.places, self.inputs, deltas, strict=True)
        ]


def _summed_squares(place: Place, inputs: Tensor, delta: Tensor) -> Tensor:
    """Return the sum over samples of the squared derivative of each weight and discrete bias."""
    total: Tensor | None = None
    for start in range(0, len(inputs), SAMPLES_AT_ONCE):
        stop = start + SAMPLES_AT_ONCE
        units, features = _rows(place, inputs[start:stop], delta[start:stop])
        if units.shape[2] == 1:  # without places the square of a product is a product of squares
            part = units.squeeze(2).square().T @ features.squeeze(2).square()
        else:
            part = _grouped(place, units, features).square().sum(0)
        part = part.reshape(-1)
        if place.layer.bias_index is not None:
            part = torch.cat([part, units.sum(2).square().sum(0)])
        total = part if total is None else total + part
    assert total is not None
    return total


def _rows(place: Place, inputs: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
    """Return [samples, units, places] and [samples, features, places]."""
    if place.linear:
        flat = inputs.reshape(len(inputs), -1, inputs.shape[-1]).transpose(1, 2)
        return delta.reshape(len(delta), -1, delta.shape[-1]).transpose(1, 2), flat
    conv = place.module
    assert isinstance(conv, nn.Conv2d)
    unfolded = functional.unfold(
        place.padded(inputs), conv.kernel_size, dilation=conv.dilation, stride=conv.stride
    )
    return delta.flatten(2), unfolded


def _grouped(place: Place, units: Tensor, features: Tensor) -> Tensor:
    groups = 1 if place.linear else int(getattr(place.module, "groups", 1))
    pairs = zip(units.chunk(groups, 1), features.chunk(groups, 1), strict=True)
    return torch.cat([u @ f.transpose(1, 2) for u, f in pairs], 1)


def require_slope(loss: Tensor) -> None:
    """Raise an error where a loss has no gradient to be guided by.

    Raises:
        NotApplicable: the criterion is not differentiable.
    """
    if not loss.requires_grad:
        raise NotApplicable(
            "The criterion gives losses without a gradient, which guided moves and the rule "
            "'gradient' follow. Use guided=0 with the rule 'best' or 'first'."
        )


def unit_slope(state: NetworkState, number: int, unit: int) -> Tensor:
    """Return dE/dw of the positions of one output channel, in their order.

    Only what is behind the layer is run, once forward and once backward.

    Args:
        state: of the network on its data.
        number: of the layer.
        unit: output channel.
    """
    place = state.places[number]
    delta = torch.empty_like(place.channel(state.values[place.node], unit))
    for part in state.parts_with_gradients(place):
        delta[part] = place.channel(_output_slope(state, place, part), unit)
    state.charge(place, 3)
    flat = delta.flatten()
    position = positions_of_unit(place.layer, unit)
    state.macs += len(position) * len(flat)
    slopes = [
        state.columns(place, some).flatten(1) @ flat
        for some in torch.split(position, state.channels_at_once(place))
    ]
    return torch.cat(slopes)


def _output_slope(state: NetworkState, place: Place, part: slice) -> Tensor:
    """Return the derivative of the mean loss by a layer's output, for some samples."""
    value = state.values[place.node][part].clone().requires_grad_(True)
    # Rows only where they are needed: all samples in turn need no copy of what is kept.
    rows = torch.arange(part.start, part.stop) if len(value) < len(state.target) else None
    with torch.enable_grad():
        output = state.propagation.onward(place.node, value, state.values, 1, rows)
        loss = state.criterion.losses(output, state.target[part]).sum() / len(state.target)
        require_slope(loss)
        found = torch.autograd.grad(loss, value, allow_unused=True, materialize_grads=True)
    delta: Tensor = found[0]
    return delta


def predicted_changes(
    state: NetworkState, number: int, unit: int, curvature: Tensor
) -> tuple[Moves, Tensor]:
    """Return the moves of one output channel and the change of the loss predicted for each.

    They are predictions: moves are made after their true loss only.

    Args:
        state: of the network on its data.
        number: of the layer.
        unit: output channel.
        curvature: h by position of the layer; it may be somewhat old.
    """
    layer = state.network.layers[number]
    position = positions_of_unit(layer, unit)
    slope = unit_slope(state, number, unit)
    moves = moves_at(state.network, number, position)
    others = len(layer.values) - 1
    step = layer.values[moves.level] - layer.values[levels_of(layer, moves.position)]
    step = step * layer.row_scales()[unit]
    bend = curvature[moves.position]
    changes = step * slope.repeat_interleave(others) + 0.5 * step.square() * bend
    for cost in state.costs:
        changes = changes + cost.after(state.network, moves) - cost.value(state.network)
    return moves, changes


def downhill(state: NetworkState, moves: Moves, slope: list[Tensor]) -> Moves:
    """Keep the moves to the neighbouring value against the gradient: the rule "gradient".

    Args:
        state: of the network.
        moves: candidates.
        slope: dE/dw by layer and position.
    """
    keep = torch.zeros(len(moves), dtype=torch.bool)
    for number in moves.layers():
        chosen = moves.layer == number
        position, layer = moves.position[chosen], state.network.layers[number]
        direction = -slope[number][position].sign().long()
        step = moves.level[chosen] - levels_of(layer, position)
        keep[chosen] = (direction != 0) & (step == direction)
    return moves.take(keep)
