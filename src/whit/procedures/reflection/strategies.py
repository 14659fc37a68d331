"""Which members answer in which situation, and what any choice between them could reach at best.

Shapes: chances [members, samples, classes], class probabilities of every member;
situations int64 [samples]; target int64 [samples].
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from whit.core.options import require

Strategy = tuple[int, ...]
MOST_MEMBERS = 10


def subsets(members: int) -> list[Strategy]:
    """Return all non-empty subsets of the members, small ones first.

    Raises:
        SpecError: there are more than 10 members, whose 1023 subsets are the most that are tried.
    """
    require(
        1 <= members <= MOST_MEMBERS,
        f"Subsets of {members} members were asked for; expected 1 to {MOST_MEMBERS}.",
    )
    numbers = range(members)
    return [s for size in range(1, members + 1) for s in combinations(numbers, size)]


def choose_strategies(
    chances: Tensor, situations: Tensor, target: Tensor, count: int
) -> tuple[Strategy, ...]:
    """Return, for each situation, the members whose mean probability is right most often.

    Ties go to the lower -log likelihood, then to fewer members. Member 0 alone is a candidate, so
    on these samples the choice is never worse than member 0. A situation without samples keeps
    member 0.

    Args:
        chances: of samples that neither training nor the situations have seen.
        situations: 0..count - 1.
        target: classes.
        count: of situations.
    """
    chosen: list[Strategy] = []
    for situation in range(count):
        here = situations == situation
        if not bool(here.any()):
            chosen.append((0,))
            continue
        ranked = [
            (*_quality(chances[list(s)][:, here].mean(0), target[here]), len(s), s)
            for s in subsets(len(chances))
        ]
        chosen.append(min(ranked)[-1])
    return tuple(chosen)


def _quality(mean: Tensor, target: Tensor) -> tuple[int, float]:
    wrong = int((mean.argmax(-1) != target).sum())
    own = mean.gather(1, target[:, None]).clamp_min(1e-12)
    return wrong, float(-own.double().log().mean())


def routed_chances(
    chances: Tensor, situations: Tensor, strategies: Sequence[Sequence[int]]
) -> Tensor:
    """Return the answers [samples, classes] of the members that each sample's situation names."""
    means = torch.stack([chances[list(s)].mean(0) for s in strategies])
    return means[situations, torch.arange(len(situations))]


def oracle_accuracy(outputs: Tensor, target: Tensor) -> float:
    """Return the share of samples for which any member is right: a bound that needs the labels.

    No rule that chooses one member can do better; a mean of members may, where they are wrong in
    different ways. A rule that comes close has probably seen the
    labels.

    Args:
        outputs: class scores or probabilities [members, samples, classes].
        target: classes.
    """
    return float((outputs.argmax(-1) == target).any(0).double().mean())


def member_calls(situations: Tensor, strategies: Sequence[Sequence[int]], members: int) -> Tensor:
    """Return how many samples each member runs on, int64 [members]; member 0 runs on all."""
    calls = torch.zeros(members, dtype=torch.int64)
    calls[0] = len(situations)
    for situation, strategy in enumerate(strategies):
        for k in strategy:
            if k != 0:
                calls[k] += int((situations == situation).sum())
    return calls
