"""Coordinate descent on two discrete layers, many moves at a time.

Gauss-Seidel over groups of hidden units: score all moves of a group at the current state, pick
several for each unit by matching pursuit, apply the best m of them for m = M, M/2, ... 1 and keep
the first that lowers the true loss of the batch. Between groups, moves of the last layer and the
scales go the same way, so the loss of a batch never rises.

Reference: Date et al. 2020, arXiv 2009.00540, for coordinate descent over discrete weights; groups,
pursuit and line search are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from whit.core.options import is_number, nearest, require
from whit.parts.levels import eight_bits
from whit.procedures.coordinate_descent.input_block import InputBlock
from whit.procedures.coordinate_descent.last_layer import (
    exact_moves,
    moved_logits,
    predicted_moves,
    scale_of_logits,
)
from whit.procedures.coordinate_descent.neighbourhood import Neighbourhood
from whit.procedures.coordinate_descent.pursuit import Moves, line_search, pursue
from whit.procedures.coordinate_descent.two_layer import GROUP, TwoLayer

Blocks = Sequence[tuple[InputBlock, Tensor]]
SCALES = ("free", "eight_bits", "powers_of_two", "fixed")
FEWEST_MOVES = 4
MOST_LAST_MOVES = 256
# Lower losses by less are rounding: relative to 1, float32 losses summed in float64.
NOISE = {torch.float32: 1e-9, torch.float64: 1e-13}


@dataclass(frozen=True)
class GroupOptions:
    """How a sweep goes.

    Attributes:
        moves_per_unit: picked for a unit at each visit, >= 1.
        least_gain: decrease of the loss, summed over the batch, that a move must promise, in nats,
            >= 0. Where samples are seen again and again, smaller ones overfit (compare the 1 nat a
            parameter of Akaike's criterion); on fresh samples 0 is best.
        adjacent: moves to the next value up or down only; else to every other value.
        group: hidden units of a group, >= 1; 32 suits AVX2.
        last_layer: visits of the last layer in a sweep, >= 0.
        scales: "free" fits the scale of the logits by Newton's method, "powers_of_two" tries to
            double or halve each layer's (so it stays a shift), "fixed" leaves them; "eight_bits" is
            as "free", at scales of 8 significant bits only.
        exact: score the moves of both layers exactly; else those of the last layer are predicted,
            and those of the first where the inputs are off their levels.
        single: try the best move alone too, whatever more of them promise; takes longer.
    """

    moves_per_unit: int = 16
    least_gain: float = 0.0
    adjacent: bool = True
    group: int = GROUP
    last_layer: int = 2
    scales: str = "free"
    exact: bool = False
    single: bool = False

    def __post_init__(self) -> None:
        """Check ranges and names."""
        for name, least in (("moves_per_unit", 1), ("group", 1), ("last_layer", 0)):
            value = getattr(self, name)
            require(
                isinstance(value, int) and value >= least,
                f"{name} was given {value!r}; expected a whole number, {least} or more.",
            )
        require(
            is_number(self.least_gain) and self.least_gain >= 0,
            f"least_gain was given {self.least_gain!r}; expected a number, 0 or more.",
        )
        require(
            self.scales in SCALES,
            f"scales was given {self.scales!r}. {nearest(str(self.scales), SCALES)}",
        )


@dataclass
class Tally:
    """What was done.

    Attributes:
        accepted: moves.
        candidates: moves that were scored, exactly or by a prediction.
        tried: sets of moves of which the true loss was computed.
    """

    accepted: int = 0
    candidates: int = 0
    tried: int = 0


class GroupDescent:
    """Sweeps over a two-layer network, on one batch after another.

    Args:
        network: its weights are moved in place.
        options: of the sweeps.
        seed: of the order of the units, drawn anew for every batch.

    Attributes:
        loss: mean loss of the batch; never rises between two calls of `load`.
        tally: of all sweeps so far.
    """

    def __init__(
        self, network: TwoLayer, options: GroupOptions | None = None, seed: int = 0
    ) -> None:
        """Begin with no batch."""
        self.network = network
        self.options = options or GroupOptions()
        self.generator = torch.Generator().manual_seed(seed)
        self.tally = Tally()
        self.loss = float("nan")
        self.gram: Tensor | None = None
        self.first_moves, self.last_moves = 64, 32

    def load(self, blocks: Blocks) -> None:
        """Take a batch and group the units anew.

        Args:
            blocks: inputs and targets, as `TwoLayer.load` takes them.
        """
        order = torch.randperm(self.network.hidden, generator=self.generator)
        self.network.load(blocks, order, self.options.group)
        if self.gram is None:
            columns = blocks[0][0].columns
            self.gram = columns @ columns.t() / columns.shape[1]
        self.loss = self.network.loss()

    def sweep(self) -> int:
        """Visit every group once and return how many moves were accepted."""
        before = self.tally.accepted
        groups = len(self.network.groups)
        every = max(1, groups // max(1, self.options.last_layer))
        self._step_scales()
        for group in range(groups):
            if self.options.last_layer and group % every == 0:
                self._step_last()
            self._step_first(group)
        return self.tally.accepted - before

    @property
    def _limit(self) -> float:
        """Below this, a loss counts as lower than the current one."""
        return self.loss - NOISE[self.network.dtype] * max(1.0, abs(self.loss))

    @property
    def _least(self) -> float:
        """The decrease of the mean loss that a move must promise."""
        return self.options.least_gain / self.network.samples

    def _step_first(self, group: int) -> None:
        network, options = self.network, self.options
        assert self.gram is not None
        hood = Neighbourhood(network, options.adjacent)
        scores = hood.first_layer(group, None if options.exact else False, curvature=True)
        units = network.groups[group]
        moves = pursue(scores, network.first, units, self.gram, options.moves_per_unit, self._least)

        def attempt(count: int) -> tuple[float, list[tuple[Tensor, Tensor, Tensor]]]:
            return self._try_first(group, moves.first(count))

        most = min(len(moves), self.first_moves)
        best = line_search(most, self._limit, attempt, options.single)
        self.tally.candidates += scores.candidates
        if best is not None:
            self.loss, count, states = best
            taken = moves.first(count)
            network.first.index[units[taken.row], taken.column] = taken.value
            for rows, (pre, hidden, logits) in zip(network.rows, states, strict=True):
                rows.pre[group], rows.hidden[group], rows.logits = pre, hidden, logits
            self.tally.accepted += count
        if most:
            count = 2 * best[1] if best else most // 2
            self.first_moves = max(FEWEST_MOVES, min(options.moves_per_unit * len(units), count))

    def _try_first(
        self, group: int, moves: Moves
    ) -> tuple[float, list[tuple[Tensor, Tensor, Tensor]]]:
        network = self.network
        order = moves.row.argsort(stable=True)
        units = torch.arange(len(network.groups[group]))
        starts = torch.searchsorted(moves.row[order], units).int()
        columns, amounts = moves.column[order].int(), moves.amount[order]
        states, total = [], 0.0
        for rows in network.rows:
            state = network.moved_group(rows, group, columns, starts, amounts)
            states.append(state)
            total += network.row_loss(rows, state[2])
        self.tally.tried += 1
        return total / network.samples, states

    def _step_last(self) -> None:
        network, options = self.network, self.options
        rank = exact_moves if options.exact else predicted_moves
        moves, count = rank(network, options.adjacent, self._least)
        self.tally.candidates += count

        def attempt(count: int) -> tuple[float, list[Tensor]]:
            self.tally.tried += 1
            logits = moved_logits(network, moves.first(count))
            return network.loss_at(logits), logits

        most = min(len(moves), self.last_moves)
        best = line_search(most, self._limit, attempt, options.single)
        if best is not None:
            self.loss, count, logits = best
            taken = moves.first(count)
            columns = network.last_columns()[taken.column]
            network.second.index[taken.row, columns] = taken.value
            network.put_logits(logits)
            self.tally.accepted += count
        if most:
            count = 2 * best[1] if best else most // 2
            self.last_moves = max(FEWEST_MOVES, min(MOST_LAST_MOVES, count))

    def _step_scales(self) -> None:
        network = self.network
        if self.options.scales == "fixed":
            return
        factors = (2.0, 0.5) if self.options.scales == "powers_of_two" else ()
        if network.second.fixed is None:  # a real bias that is fixed has its own scale
            for factor in factors or (self._free_factor(),):
                logits = [rows.logits * factor for rows in network.rows]
                loss = network.loss_at(logits)
                if loss < self._limit:
                    self.loss = loss
                    network.second.scale *= factor
                    network.put_logits(logits)
                    break
        for factor in factors:
            loss, states = network.rescaled_first(factor)
            if loss < self._limit:
                self.loss = loss
                network.first.scale *= factor
                for rows, (pre, hidden, scaled) in zip(network.rows, states, strict=True):
                    rows.pre, rows.hidden, rows.logits = pre, hidden, scaled
                break

    def _free_factor(self) -> float:
        factor = scale_of_logits(self.network)
        return self._eight_bits(factor) if self.options.scales == "eight_bits" else factor

    def _eight_bits(self, factor: float) -> float:
        """Return the factor that makes the scale of the logits one of 8 significant bits."""
        scale = self.network.second.scale
        if not bool((scale == scale[0]).all()):  # scales of channels are the model's own
            return float(eight_bits(torch.tensor(factor, dtype=torch.float64)))
        return float(eight_bits(scale[0] * factor) / scale[0])

    def round_scales(self) -> None:
        """Round a free scale of the logits to 8 significant bits, as default scales are.

        The loss becomes that at the new scale; it may rise by what the rounding does.
        """
        network = self.network
        if self.options.scales != "free" or network.second.fixed is not None:
            return
        network.second.scale *= self._eight_bits(1.0)
        network.put_logits([network.forward_last(rows) for rows in network.rows])
        self.loss = network.loss()

    def state_dict(self) -> dict[str, Any]:
        """Return all that a later `load_state_dict` needs to go on with the next batch."""
        first, second = self.network.first, self.network.second
        return {
            "index": [first.index.clone(), second.index.clone()],
            "scale": [first.scale.clone(), second.scale.clone()],
            "generator": self.generator.get_state(),
            "gram": self.gram,
            "tally": asdict(self.tally),
            "moves": [self.first_moves, self.last_moves],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a saved descent was, after its last batch."""
        for weights, index, scale in zip(
            (self.network.first, self.network.second), state["index"], state["scale"], strict=True
        ):
            weights.index.copy_(index)
            weights.scale.copy_(scale)
        self.generator.set_state(state["generator"])
        self.gram = state["gram"]
        self.tally = Tally(**state["tally"])
        self.first_moves, self.last_moves = state["moves"]
