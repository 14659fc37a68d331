"""Run only the networks that an input needs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from whit.errors import WhitError
from whit.parts.features import WithFeatures


class MarginRule(nn.Module):
    """Situation 1 where the two highest class probabilities are closer than `margin`, else 0.

    Args:
        margin: 0 sends nothing on; above 1 everything is sent on.
        temperature: > 0, of the softmax; 1 leaves the scores as they are.
    """

    situations = 2
    needs_features = False

    def __init__(self, margin: float, temperature: float = 1.0) -> None:
        """Check and keep margin and temperature."""
        super().__init__()
        if not temperature > 0:
            raise WhitError(f"temperature was given {temperature!r}; expected a number > 0.")
        self.margin = margin
        self.temperature = temperature

    def chances(self, scores: Tensor) -> Tensor:
        """Return the class probabilities, of the shape of the scores."""
        # Without a division by 1, the packed file needs none either.
        return (scores if self.temperature == 1 else scores / self.temperature).softmax(-1)

    def forward(self, scores: Tensor) -> Tensor:
        """Return situations: scores [batch, classes] -> int64 [batch]."""
        top = self.chances(scores).topk(2, dim=-1).values
        return (top[..., 0] - top[..., 1] < self.margin).long()


class GroupSumRule(nn.Module):
    """Situation 0 where the margin is at least `margin`, else 1 + the likeliest group of classes.

    Args:
        groups: disjoint lists of class numbers.
        margin: of the two highest class probabilities, as in `MarginRule`.
        temperature: > 0, of the softmax.
    """

    membership: Tensor
    needs_features = False

    def __init__(
        self, groups: Sequence[Sequence[int]], margin: float, temperature: float = 1.0
    ) -> None:
        """Keep margin and groups; classes in no group add to none."""
        super().__init__()
        classes = [c for group in groups for c in group]
        if not groups or not all(groups) or len(set(classes)) != len(classes):
            raise WhitError(
                f"GroupSumRule was given the groups {list(groups)!r}; expected disjoint, "
                f"non-empty lists."
            )
        self.familiar = MarginRule(margin, temperature)
        self.situations = 1 + len(groups)
        membership = torch.zeros(max(classes) + 1, len(groups))
        for number, group in enumerate(groups):
            membership[list(group), number] = 1.0
        self.register_buffer("membership", membership)

    def forward(self, scores: Tensor) -> Tensor:
        """Return situations: scores [batch, classes] -> int64 [batch]."""
        known = self.familiar.chances(scores)[..., : len(self.membership)]
        likeliest = 1 + (known @ self.membership).argmax(-1)
        return torch.where(self.familiar(scores) == 0, 0, likeliest)


class FeatureRule(nn.Module):
    """Situation 0 where the margin is at least `margin`, else 1 + what a head says of the features.

    The head may be that of the nearest of k centroids (`nn.Linear` with the weights c and the
    biases -|c|^2 / 2), or a small gate that was trained.

    Args:
        head: module from features [batch, d] to [batch, k]; its largest output wins.
        situations: k + 1.
        margin: of the two highest class probabilities, as in `MarginRule`.
        temperature: > 0, of the softmax.
    """

    needs_features = True

    def __init__(
        self, head: nn.Module, situations: int, margin: float, temperature: float = 1.0
    ) -> None:
        """Keep head and margin."""
        super().__init__()
        if situations < 2:
            raise WhitError(
                f"FeatureRule was given {situations} situations; expected 2 or more: the familiar "
                "one and one for each output of the head."
            )
        self.head = head
        self.situations = situations
        self.familiar = MarginRule(margin, temperature)

    def forward(self, scores: Tensor, features: Tensor) -> Tensor:
        """Return situations: [batch, classes], [batch, d] -> int64 [batch]."""
        likeliest = 1 + self.head(features).argmax(-1)
        return torch.where(self.familiar(scores) == 0, 0, likeliest)


class Route(nn.Module):
    """Member 0 sees every input; a rule on its scores says which members answer.

    Args:
        members: networks from the same inputs to class scores.
        rule: module from scores [batch, classes] (and member 0's features [batch, d], where
            `rule.needs_features`) to situations int64 [batch]; `rule.situations` many.
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

    def scores_and_situations(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return member 0's scores [batch, classes] and the situations, int64 [batch]."""
        if getattr(self.rule, "needs_features", False):
            scores, features = WithFeatures(self.members[0])(*inputs)
            return scores, self.rule(scores, features)
        scores = self.members[0](*inputs)
        return scores, self.rule(scores)

    def route(self, *inputs: Tensor) -> Tensor:
        """Return the situation of each input, int64 [batch]."""
        return self.scores_and_situations(*inputs)[1]

    def forward(self, *inputs: Tensor) -> Tensor:
        """Answer each input by the members of its situation."""
        first, situations = self.scores_and_situations(*inputs)
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
        return output
