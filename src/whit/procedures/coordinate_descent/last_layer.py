"""Steps over the last layer of a two-layer network, and over its scales."""

from __future__ import annotations

import torch
from torch import Tensor

from whit.procedures.coordinate_descent.neighbourhood import Neighbourhood
from whit.procedures.coordinate_descent.pursuit import Moves
from whit.procedures.coordinate_descent.two_layer import Rows, TwoLayer


def output_slopes(network: TwoLayer, rows: Rows) -> tuple[Tensor, Tensor]:
    """Return gradient and diagonal of the Hessian of each sample's loss by its logits.

    Shapes: both [outputs, samples].
    """
    if network.criterion == "mse":
        slope = (rows.logits - rows.target).mul_(2 / len(rows.logits))
        return slope, torch.full_like(slope, 2 / len(rows.logits))
    softmax = torch.softmax(rows.logits, 0)
    curve = softmax - softmax.square()
    return softmax.scatter_add_(0, rows.target[None], -torch.ones_like(curve[:1])), curve


def predicted_moves(network: TwoLayer, adjacent: bool, least_gain: float) -> tuple[Moves, int]:
    """Rank the moves of the last layer by gradient and curvature; return also how many there are.

    The changes are predictions: d g + d^2 h / 2 with the Gauss-Newton term h = E[p (1 - p) h_j^2].
    Columns count the hidden units in the order of the groups, the bias last.

    Args:
        network: loaded with samples.
        adjacent: moves to the next value up or down only.
        least_gain: decrease of the mean loss that a move must promise, >= 0.
    """
    weights = network.second
    slope = torch.zeros(weights.index.shape, dtype=network.dtype)
    curve = torch.zeros_like(slope)
    for rows in network.rows:
        error, spread = output_slopes(network, rows)
        for part, hidden in network.last_inputs(rows):
            slope[:, part] += error @ hidden
            curve[:, part] += spread @ hidden.square()
    index = weights.index[:, network.last_columns()]
    values, scale = weights.values.to(network.dtype), weights.scale[:, None].to(network.dtype)
    best, chosen, count = torch.zeros_like(slope), index.clone(), 0
    for k in range(len(values)):
        allowed = (index - k).abs() == 1 if adjacent else index != k
        count += int(allowed.sum())
        amount = (values[k] - values[index]) * scale
        change = amount * slope + amount.square() * curve / 2
        better = allowed & (change < best)
        best, chosen = torch.where(better, change, best), torch.where(better, k, chosen)
    return _ranked(network, best / network.samples, chosen, least_gain), count


def exact_moves(network: TwoLayer, adjacent: bool, least_gain: float) -> tuple[Moves, int]:
    """Rank the moves of the last layer by their exact changes; as `predicted_moves`."""
    changes = Neighbourhood(network, adjacent).last_layer()[:, :, network.last_columns()]
    best, chosen = changes.min(0)
    return _ranked(network, best, chosen, least_gain), int(changes.isfinite().sum())


def _ranked(network: TwoLayer, change: Tensor, chosen: Tensor, least_gain: float) -> Moves:
    weights = network.second
    order = change.flatten().argsort(stable=True)
    order = order[change.flatten()[order] < -least_gain]
    row, column = order // change.shape[1], order % change.shape[1]
    value = chosen[row, column]
    old = weights.values[weights.index[row, network.last_columns()[column]]]
    amount = (weights.values[value] - old) * weights.scale[row]
    return Moves(row, column, value, amount.to(change.dtype))


def moved_logits(network: TwoLayer, moves: Moves) -> list[Tensor]:
    """Return the logits of all samples after moves of the last layer, [outputs, samples] each."""
    change = torch.zeros(network.second.index.shape, dtype=network.dtype)
    change[moves.row, moves.column] = moves.amount
    every = []
    for rows in network.rows:
        logits = rows.logits.clone()
        for part, hidden in network.last_inputs(rows):
            logits.addmm_(change[:, part], hidden.t())
        every.append(logits)
    return every


def scale_of_logits(network: TwoLayer) -> float:
    """Return the factor, within 1/2..2, by which Newton's method would multiply all logits."""
    slope = curve = 0.0
    for rows in network.rows:
        error, spread = output_slopes(network, rows)
        slope += float((error * rows.logits).sum())
        curve += float((spread * rows.logits.square()).sum())
        if network.criterion == "cross_entropy":  # the rest of the Hessian: -p_c p_k
            softmax = torch.softmax(rows.logits, 0)
            mean = (softmax * rows.logits).sum(0)
            curve += float(((softmax * rows.logits).square().sum(0) - mean.square()).sum())
    return min(max(1 - slope / max(curve, 1e-30), 0.5), 2.0)
