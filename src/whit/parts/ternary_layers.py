"""From a block of real numbers to a ternary one: at once by rounding, or neuron by neuron.

A batch norm with negative gamma turns the order of a neuron's sums. Without a pool behind it the
neuron's weights change sign instead; behind a max pool, which must see the sums as they are, the
thresholds fall.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from whit.errors import WhitError
from whit.parts.firing_blocks import (
    NORMS,
    POOLS,
    Block,
    blocks,
    remove,
    replace_module,
    ternary_matrix,
    without_gradient,
)
from whit.parts.layer_samples import LARGEST_INPUT, Observed
from whit.parts.stochastic_firing import FIRES_FROM, StochasticFire
from whit.parts.ternary_search import Neuron, SearchOptions, fit_neuron
from whit.parts.ternary_thresholds import Affine, TernaryThresholds, folded_thresholds
from whit.parts.threshold_scan import Firing, Sums

# Ternary Weight Networks (Li and Liu 2016) keep the weights above this share of the mean magnitude.
KEPT_ABOVE = 0.7
# Few enough that the patches of a wide convolution fit in memory.
_BATCH = 64


@dataclass(frozen=True, eq=False)
class Orientation:
    """What lies between the sums of a block and its firing.

    Attributes:
        affine: y of the sums, float64 [channels]; its scale is positive but where `falls`.
        turned: where the weights change sign, bool [channels].
        falls: where the thresholds fall, bool [channels].
    """

    affine: Affine
    turned: Tensor
    falls: Tensor


def orientation(block: Block) -> Orientation:
    """Return the affine function of a block's pools and batch norms, and which neurons turn."""
    layer = block.layer
    affine = Affine.of_bias(layer.bias, layer.weight.shape[0])
    before_pool = affine
    for link in block.inside:
        if isinstance(link.module, NORMS):
            affine = affine.then_norm(link.module)
        elif isinstance(link.module, POOLS):
            before_pool = affine
    if not block.pools:
        before_pool = affine
    turned = before_pool.scale < 0
    affine = affine.times(torch.where(turned, -1.0, 1.0))
    return Orientation(affine, turned, affine.scale < 0)


def rounded_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return each row as alpha times -1, 0, +1; exact for rows that are -a, 0, +a already.

    Shapes: [rows, ...] -> float64 of the same shape, and alpha float64 [rows].
    """
    rows = weight.detach().cpu().double().flatten(1)
    kept = rows.abs() > KEPT_ABOVE * rows.abs().mean(1, keepdim=True)
    count = kept.sum(1)
    alpha = torch.where(count > 0, (rows.abs() * kept).sum(1) / count.clamp_min(1), 1.0)
    return (rows.sign() * kept).reshape(weight.shape), alpha


def is_ternary(weight: Tensor) -> bool:
    """Say whether every row of a weight consists of -a, 0 and +a."""
    rows = weight.detach().abs().flatten(1)
    largest = rows.amax(1, keepdim=True)
    return bool(((rows == 0) | (rows == largest)).all())


def round_block(block: Block) -> None:
    """Make a hidden block ternary at once, in place: weights rounded, norms folded.

    Exact where the teacher's weights are ternary; else the start, and the yardstick, of a fit.
    """
    weight, alpha = rounded_weight(block.layer.weight)
    turn = orientation(block)
    weight = torch.where(turn.turned.reshape(-1, *[1] * (weight.dim() - 1)), -weight, weight)
    bound = LARGEST_INPUT * weight[0].numel()
    fire = _fire_of(block)
    thresholds = folded_thresholds(turn.affine.times(alpha), FIRES_FROM[fire.squash], bound)
    install(block, weight, TernaryThresholds(*thresholds))


def install(block: Block, weight: Tensor, thresholds: TernaryThresholds) -> None:
    """Put ternary weights and thresholds in the place of a hidden block's modules."""
    assert block.fire is not None
    device = block.layer.weight.device
    replace_module(block.matrix, ternary_matrix(block.layer, weight, None))
    for link in block.inside:
        if not isinstance(link.module, POOLS):
            remove(link)
    without_gradient(thresholds.to(device))
    replace_module(block.fire, thresholds)


def _fire_of(block: Block) -> StochasticFire:
    fire = block.firing
    if fire is None:
        raise WhitError(f"Layer '{block.matrix.path}' is ternary already, or the last one.")
    return fire


class HiddenFit:
    """Fits the neurons of one hidden block to a teacher's; the block is ternary from the start.

    Args:
        model: whose block is still real; it is rounded at once, in place.
        number: of the block.

    Attributes:
        scores: of the neurons fitted so far, by channel; `nan` for the others.
        bounds: which no score exceeds, likewise.
        work: additions done so far.
    """

    def __init__(self, model: nn.Module, number: int) -> None:
        """Keep the teacher's weights and round the block."""
        block = blocks(model)[number]
        self.path = block.matrix.path
        turn = orientation(block)
        weight = block.layer.weight.detach().cpu().double().flatten(1)
        self._teacher = torch.where(turn.turned[:, None], -weight, weight).numpy()
        self._falls = turn.falls
        self._groups = 1 if isinstance(block.layer, nn.Linear) else block.layer.groups
        round_block(block)
        self._block = blocks(model)[number]
        self.scores = torch.full((len(weight),), float("nan"), dtype=torch.float64)
        self.bounds = self.scores.clone()
        self.work = 0

    @property
    def channels(self) -> int:
        """Return how many neurons there are."""
        return len(self._teacher)

    def fit(
        self, rows: Sequence[int], seen: Observed, options: SearchOptions | None = None
    ) -> None:
        """Fit these neurons and put them into the student.

        Args:
            rows: numbers of the neurons.
            seen: by `observe`.
            options: of the search.
        """
        found = [self._fit_one(row, seen, options) for row in rows]
        layer, thresholds = self._block.layer, self._block.fire
        assert thresholds is not None and isinstance(thresholds.module, TernaryThresholds)
        index = torch.tensor(list(rows))
        with torch.no_grad():
            weight = torch.from_numpy(np.stack([neuron.weight for neuron in found]))
            layer.weight[index] = weight.reshape(-1, *layer.weight.shape[1:]).to(layer.weight)
        low = torch.tensor([neuron.low for neuron in found])
        high = torch.tensor([neuron.high for neuron in found])
        thresholds.module.set_channels(index, low, high, self._falls[index])

    def _fit_one(self, row: int, seen: Observed, options: SearchOptions | None) -> Neuron:
        rates = seen.rates[:, row]
        firing = Firing.of_rate(-rates if bool(self._falls[row]) else rates)
        columns = self._teacher.shape[1]
        first = row // (self.channels // self._groups) * columns
        inputs = seen.inputs[first : first + columns]

        def pool(sums: Sums) -> Sums:
            pooled: Sums = sums.reshape(-1, seen.window).max(1)
            return pooled

        neuron = fit_neuron(
            self._teacher[row], inputs, firing, options, pool if seen.window > 1 else None
        )
        self.scores[row], self.bounds[row] = neuron.value, firing.bound
        self.work += inputs.size + 3 * neuron.tried * inputs.shape[1]
        return neuron

    def mean_score(self) -> float:
        """Return the mean score of the neurons fitted so far."""
        return float(self.scores.nanmean())

    def state(self) -> dict[str, Tensor]:
        """Return scores and bounds, for a checkpoint; the weights are in the model."""
        return {"scores": self.scores, "bounds": self.bounds}

    def go_on(self, state: dict[str, Tensor]) -> None:
        """Take back a `state`."""
        self.scores, self.bounds = state["scores"].cpu(), state["bounds"].cpu()


def copied(model: nn.Module) -> nn.Module:
    """Return a deep copy in evaluation mode whose gradients nobody needs."""
    return without_gradient(copy.deepcopy(model))


def in_batches(inputs: Tensor, size: int = _BATCH) -> list[Tensor]:
    """Return the samples in batches, in order."""
    return [inputs[rows.start : rows.stop] for rows in chunks(len(inputs), size)]


def chunks(count: int, size: int) -> Iterator[range]:
    """Yield the numbers below `count`, `size` at a time."""
    for start in range(0, count, size):
        yield range(start, min(start + size, count))
