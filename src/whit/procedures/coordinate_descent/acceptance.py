"""Which moves are made: accept rules, exact line search over blocks, pairs, scales.

Whatever is tried, a move is made only if the true loss after it is below the present one, so the
loss of a descent on all data never rises.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from whit.procedures.coordinate_descent.moves import Moves, every_move
from whit.procedures.coordinate_descent.scoring import ExactScorer

# A gain below this share of the loss is noise of float64; ties keep the present value.
NOISE = 1e-12
RULES = ("best", "first", "gradient")
LARGEST_SCALE_STEPS = 4


def threshold(loss: float) -> float:
    """Return the loss below which a move is an improvement."""
    return loss - NOISE * max(1.0, abs(loss))


def improving(moves: Moves, losses: Tensor, loss: float, rule: str = "best") -> tuple[Moves, float]:
    """Return at most one move for each position, those that improve alone, best first.

    Args:
        moves: candidates; those of one position are neighbours, in the order of trial.
        losses: after each alone, float64 [moves].
        loss: the present one.
        rule: "best" takes the best value of each position, all else the first that improves.

    Returns:
        The moves, and the loss after the first of them alone (infinite for none).
    """
    better = (losses < threshold(loss)).nonzero().squeeze(1)
    if rule == "best":
        better = better[losses[better].argsort(stable=True)]
    taken: dict[tuple[int, int], int] = {}
    for index in better.tolist():
        place = (int(moves.layer[index]), int(moves.position[index]))
        taken.setdefault(place, index)
    chosen = torch.tensor(list(taken.values()), dtype=torch.int64)
    chosen = chosen[losses[chosen].argsort(stable=True)]
    best = float(losses[chosen[0]]) if len(chosen) else float("inf")
    return moves.take(chosen), best


class Block(NamedTuple):
    """Moves to make together, and the true loss after them."""

    moves: Moves
    loss: float


def line_search(scorer: ExactScorer, moves: Moves, best_alone: float) -> Block:
    """Return the first m of the moves for the best m among all, half, a quarter, ..., one.

    One is always among them, so that the result is never worse than the best single move,
    although moves may cancel each other.

    Args:
        scorer: with the present state.
        moves: that improve alone, best first, at different positions, at least one.
        best_alone: true loss after the first of them.
    """
    sizes = []
    size = len(moves)
    while size > 1:
        sizes.append(size)
        size //= 2
    if not sizes:
        return Block(moves.take(slice(1)), best_alone)
    sizes.reverse()
    losses = scorer.prefixes(moves, sizes)
    best = int(losses.argmin())
    if float(losses[best]) < best_alone:
        return Block(moves.take(slice(sizes[best])), float(losses[best]))
    return Block(moves.take(slice(1)), best_alone)


def pair_move(scorer: ExactScorer, first_moves: int) -> Moves | None:
    """Return two moves that improve together, from a state that no single move improves.

    First moves are tried in the order of their own loss, the least harmful first, each with every
    second move; with as many as there are single moves, all pairs are tried.

    Args:
        scorer: with the present state; it is left as it is.
        first_moves: how many first moves to try, >= 1.

    Returns:
        The best pair of the first first move that has one, or None.
    """
    singles = every_move(scorer.network)
    order = scorer.score(singles).argsort(stable=True)[:first_moves]
    present = threshold(scorer.loss)
    for index in order.tolist():
        first = singles.take(slice(index, index + 1))
        with scorer.tried(first):
            seconds = every_move(scorer.network)
            other = (seconds.layer != first.layer) | (seconds.position != first.position)
            seconds = seconds.take(other)
            losses = scorer.score(seconds)
        best = int(losses.argmin())
        if float(losses[best]) < present:
            return Moves.joined([first, seconds.take(slice(best, best + 1))])
    return None


def search_scales(scorer: ExactScorer) -> int:
    """Double or halve the scale of each layer as long as that lowers the true loss.

    Returns:
        How often a scale was doubled or halved.
    """
    steps = 0
    for layer in scorer.network.layers:
        for factor in (2.0, 0.5):
            for _ in range(LARGEST_SCALE_STEPS):
                before, loss = layer.scale, scorer.loss
                layer.scale = before * factor
                scorer.refresh()
                if scorer.loss < threshold(loss):
                    steps += 1
                    continue
                layer.scale = before
                scorer.refresh()
                break
    return steps
