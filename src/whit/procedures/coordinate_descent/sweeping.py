"""One sweep over the weights of a network: which are visited together, and the moves made."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from whit.procedures.coordinate_descent.acceptance import (
    Block,
    improving,
    line_search,
    pair_move,
    threshold,
)
from whit.procedures.coordinate_descent.guidance import downhill, gradients, predicted_changes
from whit.procedures.coordinate_descent.moves import (
    Moves,
    moves_at,
    positions_in,
    positions_of_unit,
)
from whit.procedures.coordinate_descent.network import DiscreteNetwork
from whit.procedures.coordinate_descent.options import SweepOptions
from whit.procedures.coordinate_descent.scoring import ExactScorer

Visit = list[tuple[int, Tensor]]


class Sweeper:
    """Visits the weights of a network and makes moves.

    Args:
        network: whose indices change, by way of the scorers that are given.
        options: rule, order, blocks.
        generator: of random orders.
        over_budget: asked before every block; a sweep ends early when it says so.

    Attributes:
        flat: whether the last gradient that was asked for is 0 in all weights.
    """

    def __init__(
        self,
        network: DiscreteNetwork,
        options: SweepOptions,
        generator: torch.Generator,
        over_budget: Callable[[], bool],
    ) -> None:
        """Keep them."""
        self.network, self.options = network, options
        self.generator, self.over_budget = generator, over_budget
        self._slopes: list[Tensor] | None = None
        self.flat = False

    def _visits(self) -> Iterator[Visit]:
        """Yield the positions of each block, by layer."""
        layers = self.network.layers
        if self.options.block == "unit":
            units = [(n, u) for n, layer in enumerate(layers) for u in range(len(layer.index))]
            for at in self._order(len(units)):
                number, unit = units[at]
                yield [(number, positions_of_unit(layers[number], unit))]
            return
        number_of = torch.cat([torch.full((positions_in(la),), n) for n, la in enumerate(layers)])
        position_of = torch.cat([torch.arange(positions_in(layer)) for layer in layers])
        order = torch.tensor(self._order(len(number_of)))
        for start in range(0, len(order), self.options.block):
            chosen = order[start : start + self.options.block]
            numbers, positions = number_of[chosen], position_of[chosen]
            yield [(n, positions[numbers == n]) for n in sorted(set(numbers.tolist()))]

    def _order(self, count: int) -> list[int]:
        if self.options.order == "cyclic":
            return list(range(count))
        order: list[int] = torch.randperm(count, generator=self.generator).tolist()
        return order

    def visit_all(self, scorer: ExactScorer, second: ExactScorer | None) -> tuple[int, bool]:
        """Visit every block; return the moves made, and whether all blocks were visited.

        Args:
            scorer: says what moves do.
            second: on other samples; moves must improve the loss there too. None for no such test.
        """
        accepted, self._slopes = 0, None
        for visit in self._visits():
            if self.over_budget():
                return accepted, False
            parts = [moves_at(self.network, number, position) for number, position in visit]
            moves = Moves.joined(parts)
            if self.options.rule == "gradient":
                moves = downhill(scorer, moves, self._slope(scorer))
            if len(moves):
                accepted += self._try(scorer, second, moves)
        return accepted, True

    def _slope(self, scorer: ExactScorer) -> list[Tensor]:
        """Return dE/dw, worked out anew where moves were made."""
        if self._slopes is None:
            self._slopes = gradients(scorer)[0]
            self.flat = not any(bool(slope.any()) for slope in self._slopes)
        return self._slopes

    def _try(self, scorer: ExactScorer, second: ExactScorer | None, moves: Moves) -> int:
        """Make the best block of some moves; return how many were made."""
        chosen, alone = improving(moves, scorer.score(moves), scorer.loss, self.options.rule)
        if second is not None and len(chosen):
            confirmed = second.score(chosen) < threshold(second.loss)
            chosen = chosen.take(confirmed)
            alone = scorer.trial(chosen.take(slice(1))) if len(chosen) else alone
        if not len(chosen):
            return 0
        block = line_search(scorer, chosen, alone)
        if second is not None and not second.trial(block.moves) < threshold(second.loss):
            block = Block(chosen.take(slice(1)), alone)
        undo = scorer.apply(block.moves)
        if second is not None:
            second.follow(block.moves, undo)
        self._slopes = None
        return len(block.moves)

    def guided(self, scorer: ExactScorer) -> tuple[int, bool]:
        """Visit every unit, and score only its moves with the best predictions.

        Returns:
            The moves made, and whether all units were visited.
        """
        accepted = 0
        curvature = gradients(scorer, curvature=True)[1]
        layers = self.network.layers
        units = [(n, u) for n, layer in enumerate(layers) for u in range(len(layer.index))]
        for at in self._order(len(units)):
            if self.over_budget():
                return accepted, False
            number, unit = units[at]
            moves, changes = predicted_changes(scorer, number, unit, curvature[number])
            best = changes.argsort(stable=True)[: self.options.guided]
            # Moves of one position stay neighbours, as the accept rules expect.
            best = best[changes[best] < 0].sort().values
            if len(best):
                accepted += self._try(scorer, None, moves.take(best))
        return accepted, True

    def pairs(self, scorer: ExactScorer) -> int:
        """Make one pair of moves, if one improves the loss; return 2 or 0."""
        pair = pair_move(scorer, self.options.pairs)
        if pair is None:
            return 0
        scorer.apply(pair)
        return len(pair)
