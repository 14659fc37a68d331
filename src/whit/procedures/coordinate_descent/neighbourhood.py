"""The loss change of every move of a two-layer network, without one forward call for each.

First layer: a move of weight (i, j) by d changes the pre-activation of unit i by d x_j, and the
loss of a sample by F of that (see `unit_changes`). Sums of F over the samples are products with the
indicators of the levels of x (see `input_block`).

Last layer: a move of weight (c, i) by d changes the loss of a sample by
log(1 + p_c (exp(d h_i) - 1)) - [y = c] d h_i, with the softmax p.

Everything here is exact where the inputs lie at their levels; with a grid of levels instead, the
scores of the first layer are predictions, and `exact_sums` gives the exact ones, slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from whit.procedures.coordinate_descent.two_layer import Rows, TwoLayer
from whit.procedures.coordinate_descent.unit_changes import UnitChanges

ENTRIES_AT_ONCE = 1 << 15
COUPLING_SAMPLES = 1000
MOST_CORRECTION = 4.0


@dataclass(frozen=True, eq=False)
class GroupScores:
    """What the moves of the first-layer weights of some units would change.

    Attributes:
        changes: of the mean loss, [values, units, inputs (+ 1)]; infinite where a weight is already
            or for moves that are left out.
        curvature: [units, units], second derivatives of the mean loss by the pre-activations, a
            mean over samples; the diagonal as seen by steps of the size of the moves. None where
            it was not asked for.
        candidates: how many moves were scored.
    """

    changes: Tensor
    curvature: Tensor | None
    candidates: int


class Neighbourhood:
    """Loss changes of all moves at the current weights; make a new one after an accepted move.

    Args:
        network: loaded with samples.
        adjacent: only moves to the next value up or down; else to every other value.
    """

    def __init__(self, network: TwoLayer, adjacent: bool = False) -> None:
        """Compute the softmax of all samples, once."""
        self.network = network
        self.adjacent = adjacent
        cross_entropy = network.criterion == "cross_entropy"
        self.softmax = [
            torch.softmax(rows.logits, 0) if cross_entropy else rows.logits for rows in network.rows
        ]

    def first_layer(
        self, group: int, exact: bool | None = None, curvature: bool = False
    ) -> GroupScores:
        """Score the moves of the first layer of a group.

        Args:
            group: number of the group.
            exact: False takes the sums over levels, exact or not; True the exact sums; None the
                exact ones where sums over levels are predictions.
            curvature: estimate it too, for `pursue`.
        """
        network, weights = self.network, self.network.first
        units = network.groups[group]
        index = weights.index[units].to(torch.uint8).t().contiguous()
        scale = weights.scale[units].to(network.dtype)
        shared = float(scale[0]) if bool((scale == scale[0]).all()) else None
        unit = scale if shared is None else shared
        changes = network.rows[0].logits.new_full((len(weights.values), *index.shape), torch.inf)
        distances = self.distances(weights.values)
        sums: dict[float, Tensor] = {}
        for rows, softmax in zip(network.rows, self.softmax, strict=True):
            scorer = UnitChanges(network, rows, group, softmax)
            by_levels = rows.inputs.exact if exact is None else not exact
            add = _sums_over_levels if by_levels else exact_sums
            for distance, summed in add(scorer, rows, list(distances), unit):
                known = sums.get(distance)
                sums[distance] = summed if known is None else known.add_(summed)
        # 0 where a weight has the value, infinite elsewhere: sums are faster than `where`.
        elsewhere = [
            (index == k).to(network.dtype).reciprocal_().sub_(1) for k in range(len(changes))
        ]
        for distance, pairs in distances.items():
            mean = sums[distance].div_(network.samples)
            for old, new in pairs:
                torch.minimum(changes[new], mean + elsewhere[old], out=changes[new])
        count = _count(index, len(changes), self.adjacent)
        curved = self._curvature(group, sums, scale) if curvature else None
        return GroupScores(changes.transpose(1, 2), curved, count)

    def _curvature(self, group: int, means: dict[float, Tensor], scale: Tensor) -> Tensor:
        """Estimate the second derivatives by the pre-activations of a group.

        The diagonal comes from moves there and back, over all samples. Between units, that is
        E[h_i' h_k' Cov(w_i, w_k)] over the first samples, with the softmax as distribution of the
        outputs; it is brought to the diagonal's scale.
        """
        network = self.network
        power = sum(rows.inputs.power for rows in network.rows) / network.samples
        both = [
            (there + means[-distance]).sum(0) / distance**2
            for distance, there in means.items()
            if distance > 0
        ]
        diagonal = torch.stack(both).mean(0).div_(scale.square() * max(power, 1e-30)).clamp_min_(0)
        between = self._between_units(group, float(scale.mean()))
        own = between.diagonal().clamp_min(1e-30)
        factor = (diagonal / own).clamp_max_(MOST_CORRECTION).sqrt_()
        between.mul_(factor[:, None] * factor)
        between.diagonal().copy_(diagonal)
        return between

    def _between_units(self, group: int, step: float) -> Tensor:
        network, rows = self.network, self.network.rows[0]
        weight = network.second_columns(network.groups[group])
        pre, logits = rows.pre[group][:COUPLING_SAMPLES], rows.logits[:, :COUPLING_SAMPLES]
        slope = (network.activation(pre + step) - network.activation(pre - step)).div_(2 * step)
        if network.criterion == "mse":
            outer = weight.t() @ weight * (2 / len(weight))
            return (slope.t() @ slope).mul_(outer / len(pre))
        softmax = torch.softmax(logits, 0)
        mean = (softmax.t() @ weight).mul_(slope)
        between = -(mean.t() @ mean)
        for of_output, row in zip(softmax, weight, strict=True):
            reached = slope * row
            between.addmm_((reached * of_output[:, None]).t(), reached)
        return between.div_(len(pre))

    def distances(self, values: Tensor) -> dict[float, list[tuple[int, int]]]:
        """Return, for each distance between two values, the pairs (old, new) that lie so apart."""
        listed = values.tolist()
        found: dict[float, list[tuple[int, int]]] = {}
        for old, a in enumerate(listed):
            for new, b in enumerate(listed):
                if old != new and (not self.adjacent or abs(old - new) == 1):
                    # Evenly spaced values differ in the last bits: 0.6 - 0.4 and 0.4 - 0.2.
                    found.setdefault(float(f"{b - a:.12g}"), []).append((old, new))
        return found

    def last_layer(self) -> Tensor:
        """Return the changes of the mean loss by moves of the last layer.

        Shapes: [values, outputs, hidden (+ 1)], infinite where a weight is already or for moves
        that are left out.
        """
        network, weights = self.network, self.network.second
        columns = network.last_columns()
        index = weights.index[:, columns]
        ordered = torch.full((len(weights.values), *index.shape), torch.inf, dtype=network.dtype)
        for distance, pairs in self.distances(weights.values).items():
            total = torch.zeros(index.shape, dtype=network.dtype)
            for rows, softmax in zip(network.rows, self.softmax, strict=True):
                for places, hidden in network.last_inputs(rows):
                    total[:, places] += _last_sums(network, rows, softmax, hidden, distance)
            total /= network.samples
            for old, new in pairs:
                ordered[new] = torch.where(index == old, total, ordered[new])
        changes = torch.empty_like(ordered)
        changes[:, :, columns] = ordered
        return changes

    def candidates(self) -> int:
        """Return how many moves there are in both layers."""
        layers = (self.network.first, self.network.second)
        return sum(_count(w.index, len(w.values), self.adjacent) for w in layers)


def _count(index: Tensor, values: int, adjacent: bool) -> int:
    """Return how many moves the weights with these values have."""
    if not adjacent:
        return index.numel() * (values - 1)
    ends = torch.count_nonzero(index == 0) + torch.count_nonzero(index == values - 1)
    return 2 * index.numel() - int(ends)


def _sums_over_levels(
    scorer: UnitChanges, rows: Rows, distances: list[float], unit: float | Tensor
) -> Iterator[tuple[float, Tensor]]:
    """Yield (distance, summed changes [inputs (+ 1), units]) by sums over levels of the inputs."""
    inputs = rows.inputs
    known: dict[float, Tensor] = {}

    def at(shift: float) -> Tensor:
        if shift not in known:
            known[shift] = scorer.at(unit * shift)
        return known[shift]

    for distance in distances:
        sums = scorer.pre.new_zeros(len(inputs.columns), scorer.pre.shape[1])
        body = sums[: inputs.inputs]
        base = None if inputs.base == 0 else at(distance * inputs.base)
        for level in inputs.levels:
            there = at(distance * level.value)
            body += level.sums(there if base is None else there - base)
        if base is not None:
            body += base.sum(0)
        if inputs.bias:
            sums[-1] = at(distance).sum(0)
        yield distance, sums


def exact_sums(
    scorer: UnitChanges, rows: Rows, distances: list[float], unit: float | Tensor
) -> Iterator[tuple[float, Tensor]]:
    """Yield (distance, summed changes [inputs (+ 1), units]), exact for inputs of any values.

    Entries at the base are summed once for all columns; the others are corrected one by one.
    """
    inputs = rows.inputs
    entries = (inputs.columns[: inputs.inputs] != inputs.base).nonzero()
    for distance in distances:
        sums = scorer.pre.new_zeros(len(inputs.columns), scorer.pre.shape[1])
        base = scorer.at(unit * (distance * inputs.base))
        for part in torch.split(entries, ENTRIES_AT_ONCE):
            column, sample = part.unbind(1)
            shift = inputs.columns[column, sample, None] * (unit * distance)
            sums.index_add_(0, column, scorer.of_tile(sample, shift) - base[sample])
        sums[: inputs.inputs] += base.sum(0)
        if inputs.bias:
            sums[-1] = scorer.at(unit * distance).sum(0)
        yield distance, sums


def _last_sums(
    network: TwoLayer, rows: Rows, softmax: Tensor, hidden: Tensor, distance: float
) -> Tensor:
    """Return summed changes [outputs, units] by moves of last-layer weights by a distance."""
    scale = (network.second.scale * distance).to(network.dtype)
    if network.criterion == "mse":
        residual = rows.logits - rows.target
        linear = (residual @ hidden).mul_(2 * scale[:, None])
        return linear.addcmul_(scale[:, None].square(), hidden.square().sum(0)) / len(scale)
    sums = []
    shared: Tensor | None = None
    for c, step in enumerate(scale.tolist()):
        if shared is None or step != scale[c - 1]:
            shared = torch.expm1(hidden * step)
        sums.append((softmax[c, :, None] * shared).log1p_().sum(0))
    at_target = functional.one_hot(rows.target, len(scale)).to(hidden.dtype).t() @ hidden
    return torch.stack(sums).sub_(at_target.mul_(scale[:, None]))
