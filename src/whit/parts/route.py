"""Run only the networks that an input needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from whit.errors import WhitError


class MarginRule(nn.Module):
    """Situation 1 where the two highest class probabilities are closer than `margin`, else 0.

    Args:
        margin: 0..1; 0 sends nothing on.
    """

    def __init__(self, margin: float) -> None:
        """Keep the margin."""
        super().__init__()
        self.margin = margin

    situations = 2

    def forward(self, scores: Tensor) -> Tensor:
        """Return situations: scores [batch, classes] -> int64 [batch]."""
        top = scores.softmax(-1).topk(2, dim=-1).values
        return (top[..., 0] - top[..., 1] < self.margin).long()


class GroupSumRule(nn.Module):
    """Situation 0 where the margin is at least `margin`, else 1 + the likeliest group of classes.

    Args:
        groups: disjoint lists of class numbers.
        margin: 0..1.
    """

    membership: Tensor

    def __init__(self, groups: Sequence[Sequence[int]], margin: float) -> None:
        """Keep margin and groups; classes in no group add to none."""
        super().__init__()
        classes = [c for group in groups for c in group]
        if not groups or not all(groups) or len(set(classes)) != len(classes):
            raise WhitError(
                f"GroupSumRule was given the groups {list(groups)!r}; expected disjoint, "
                f"non-empty lists."
            )
        self.familiar = MarginRule(margin)
        self.situations = 1 + len(groups)
        membership = torch.zeros(max(classes) + 1, len(groups))
        for number, group in enumerate(groups):
            membership[list(group), number] = 1.0
        self.register_buffer("membership", membership)

    def forward(self, scores: Tensor) -> Tensor:
        """Return situations: scores [batch, classes] -> int64 [batch]."""
        known = scores.softmax(-1)[..., : len(self.membership)]
        likeliest = 1 + (known @ self.membership).argmax(-1)
        return torch.where(self.familiar(scores) == 0, 0, likeliest)


class Route(nn.Module):
    """Member 0 sees every input; a rule on its scores says which members answer.

    Args:
        members: networks from the same inputs to class scores.
        rule: module from scores [batch, classes] to situations int64 [batch]; `rule.situations`
            many.
        strategies: per situation, the numbers of the members whose probabilities are averaged; the
            strategy (0,) gives member 0's scores bit for bit.

    Shapes: inputs [batch, ...] -> [batch, classes] (log probabilities where several answer).
    """

    def __init__(
        self, members: Sequence[nn.Module], rule: nn.Module, strategies: Sequence[Sequence[int]]
    ) -> None:
        """Hold members, rule and strategies."""
        super().__init__()
        self.members = nn.ModuleList(members)
        self.rule = rule
        self.strategies = tuple(tuple(s) for s in strategies)
        known = set(range(len(members)))
        if len(self.strategies) != rule.situations or not all(
            s and set(s) <= known for s in self.strategies
        ):
            raise WhitError(
                f"Route was given {len(self.strategies)} strategies {self.strategies} for "
                f"{rule.situations} situations and {len(members)} members; expected one non-empty "
                f"tuple of member numbers per situation."
            )

    def route(self, *inputs: Tensor) -> Tensor:
        """Return the situation of each input, int64 [batch]."""
        return cast(Tensor, self.rule(self.members[0](*inputs)))

    def forward(self, *inputs: Tensor) -> Tensor:
        """Answer each input by the members of its situation."""
        first = self.members[0](*inputs)
        situations = self.rule(first)
        output = first.clone()
        for situation, strategy in enumerate(self.strategies):
            if strategy == (0,):
                continue
            chosen = (situations == situation).nonzero().squeeze(-1)
            if len(chosen) == 0:
                continue
            scores = [
                first[chosen] if k == 0 else self.members[k](*[x[chosen] for x in inputs])
                for k in strategy
            ]
            output[chosen] = torch.stack(scores).softmax(-1).mean(0).clamp_min(1e-12).log()
        return cast(Tensor, output)
