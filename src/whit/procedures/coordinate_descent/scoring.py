"""Exact losses of single moves, without a forward call for each.

A move changes one channel of one layer. Cached values give the rest:

    1. the channel after the move, from the layer's input                     O(samples)
    2. the channel at the next layer's input: activation, batch norm, pooling O(samples)
    3. the next layer's output, a rank-one update                             O(samples outputs)
    4. what is behind it, as an ordinary forward call; samples whose channel did not change (sign
       activations) are left out
    5. in the last layer, the loss from one changed output                    O(samples)

Moves of one channel go in one call with a leading axis of candidates. Where a module between two
layers mixes channels, or the model is no chain, 2 and 3 are an ordinary forward call too. Every
loss is that of the whole data in float64, not an estimate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from whit.procedures.coordinate_descent.costs import Cost
from whit.procedures.coordinate_descent.moves import Moves, set_levels, unit_of
from whit.procedures.coordinate_descent.places import Place
from whit.procedures.coordinate_descent.state import FLOAT64_BYTES, NetworkState

# Fewer changed samples than this share are worth gathering.
SPARSE_SHARE = 0.5
# Values of one candidate that exist at once, beside those of the layers behind it.
TEMPORARIES = 3


class ExactScorer(NetworkState):
    """A network on its data, see `NetworkState`, that knows the loss after any move."""

    def score(self, moves: Moves) -> Tensor:
        """Return the loss after each move alone, float64 [moves]; nothing is changed."""
        losses = torch.empty(len(moves), dtype=torch.float64)
        for number in moves.layers():
            place = self.places[number]
            in_layer = (moves.layer == number).nonzero().squeeze(1)
            units = unit_of(place.layer, moves.position[in_layer])
            for unit in sorted(set(units.tolist())):
                chosen = in_layer[units == unit]
                losses[chosen] = self._unit(place, unit, moves.take(chosen))
        self.candidates += len(moves)
        for cost in self.costs:
            losses += cost.after(self.network, moves)
        return losses

    def prefixes(self, moves: Moves, sizes: Sequence[int]) -> Tensor:
        """Return the true loss after the first m moves together, for each m of `sizes`.

        Args:
            moves: at different positions, in order.
            sizes: numbers of moves, ascending, 1 <= m <= len(moves).
        """
        if not self._one_unit(moves):
            trials = [self.trial(moves.take(slice(m))) for m in sizes]
            return torch.tensor(trials, dtype=torch.float64)
        place = self.places[int(moves.layer[0])]
        unit = int(unit_of(place.layer, moves.position[:1]))
        shift = torch.zeros_like(place.channel(self.values[place.node], unit))
        shifts, parts, done = [], [], 0
        for size in sizes:
            shift = shift + self._shift_together(place, moves.take(slice(done, size)))
            shifts.append(shift)
            done = size
            if len(shifts) >= self.channels_at_once(place) or size == sizes[-1]:
                parts.append(self._losses(place, unit, torch.stack(shifts)))
                shifts = []
        losses = torch.cat(parts)
        self.candidates += len(sizes)
        for cost in self.costs:
            extra = [self._cost_after(cost, moves.take(slice(m))) for m in sizes]
            losses = losses + torch.tensor(extra, dtype=torch.float64)
        return losses

    def _cost_after(self, cost: Cost, moves: Moves) -> float:
        undo = set_levels(self.network, moves)
        value = cost.value(self.network)
        set_levels(self.network, undo)
        return value

    def _unit(self, place: Place, unit: int, moves: Moves) -> Tensor:
        """Return the mean losses after moves of one unit, as many at once as memory allows."""
        count = max(1, self._rows_at_once(place) // len(self.target))
        parts = [
            self._losses(place, unit, self._shift(place, moves.take(slice(a, a + count))))
            for a in range(0, len(moves), count)
        ]
        return torch.cat(parts)

    def _rows_at_once(self, place: Place) -> int:
        """Return for how many samples, over all candidates, there is memory."""
        sizes = self.propagation.sizes
        own = sizes[place.node] / place.layer.index.shape[0]
        if place.segment is None:
            behind = place.node
        elif place.following is None:
            return max(1, int(self.memory_bytes / (FLOAT64_BYTES * TEMPORARIES * own)))
        else:
            behind = self.places[place.following].node
        rest = sum(sizes.get(node, 0.0) for node in self.propagation.dependents[behind])
        numbers = TEMPORARIES * (own + sizes[behind]) + rest
        return max(1, int(self.memory_bytes / (FLOAT64_BYTES * numbers)))

    def _losses(self, place: Place, unit: int, shifts: Tensor) -> Tensor:
        """Return the mean loss after each shift of a channel.

        Shapes: shifts [candidates, samples, *places] -> [candidates].
        """
        count, samples = shifts.shape[:2]
        sums = torch.zeros(count, dtype=torch.float64)
        with torch.no_grad():
            for part in self._slices(place, count, samples):
                sums += self._sums(place, unit, shifts[:, part], part)
        return sums / samples

    def _slices(self, place: Place, count: int, samples: int) -> Iterator[slice]:
        """Yield parts of the samples, where one candidate's values on all are too many."""
        size = max(1, self._rows_at_once(place) // count)
        if self.propagation.batchwise:  # the statistics need all samples
            size = samples
        for start in range(0, samples, size):
            yield slice(start, min(start + size, samples))

    def _sums(self, place: Place, unit: int, shifts: Tensor, part: slice) -> Tensor:
        """Return the summed losses of some samples after each shift."""
        base = place.channel(self.values[place.node], unit)[part]
        new = shifts + base
        self.macs += shifts.numel()
        if place.segment is None:
            value = self.values[place.node][part].expand(len(new), -1, *self._axes(place)).clone()
            place.channel(value, unit).copy_(new)
            return self._dense(place, value, part)
        after = place.segment(new, unit)
        if place.following is None:
            output, target = self.output[part], self.target[part]
            return self.criterion.column(output, target, unit, after).sum(1)
        change = after - place.segment(base.unsqueeze(0), unit)
        following, flat = self.places[place.following], place.segment.flattened
        if not self.propagation.batchwise:
            touched = change.ne(0).flatten(2).any(2) if change.dim() > 2 else change.ne(0)
            if int(touched.sum()) < SPARSE_SHARE * touched.numel():
                return self._sparse(following, unit, change, touched, part.start, flat)
        added = following.contribution(unit, change.flatten(0, 1), flat)
        self.macs += added.numel() * (change.numel() // max(1, change.shape[0] * change.shape[1]))
        value = self.values[following.node][part] + added.reshape(
            *change.shape[:2], *added.shape[1:]
        )
        return self._dense(following, value, part)

    def _axes(self, place: Place) -> list[int]:
        return [-1] * (self.values[place.node].dim() - 1)

    def _dense(self, place: Place, value: Tensor, part: slice) -> Tensor:
        """Return the summed losses for outputs of a layer: [candidates, samples, ...]."""
        count, samples = value.shape[:2]
        rows = None
        if samples < len(self.target):
            rows = torch.arange(part.start, part.stop).repeat(count)
        flat = value.flatten(0, 1)
        output = self.propagation.onward(place.node, flat, self.values, count, rows)
        self._charge_rows(place, len(flat))
        target = self.target[part]
        targets = target.repeat(count, *[1] * (target.dim() - 1))
        return self.criterion.losses(output, targets).reshape(count, samples).sum(1)

    def _sparse(  # noqa: PLR0913 - one step of `_sums`, with what it has at hand
        self,
        place: Place,
        unit: int,
        change: Tensor,
        touched: Tensor,
        start: int,
        flattened: bool,
    ) -> Tensor:
        """As `_dense`, for the samples only whose channel changed."""
        sums = self.sample_losses[start : start + change.shape[1]].sum().repeat(len(change))
        candidate, sample = touched.nonzero(as_tuple=True)
        if len(sample) == 0:
            return sums
        rows = sample + start
        added = place.contribution(unit, change[candidate, sample], flattened)
        value = self.values[place.node][rows] + added
        output = self.propagation.onward(place.node, value, self.values, 1, rows)
        self._charge_rows(place, len(rows))
        losses = self.criterion.losses(output, self.target[rows])
        return sums.index_add(0, candidate, losses - self.sample_losses[rows])

    def _charge_rows(self, place: Place, rows: int) -> None:
        self.macs += rows * self._macs_after(place)
