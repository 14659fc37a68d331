"""A grown group for people: which network answered, why, and what the input resembles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from whit.core.data import Split
from whit.parts.features import WithFeatures
from whit.parts.route import FeatureRule, GroupSumRule, MarginRule, Route
from whit.procedures.reflection.answers import answers_of
from whit.procedures.reflection.calibration import margins
from whit.procedures.reflection.situations import situation_name, soft_confusion
from whit.procedures.reflection.strategies import member_calls, oracle_accuracy

PROTOTYPES = 3  # of each situation and class


class CollaborativeGroup:
    """A `Route` whose decisions are told in words. No method takes a label of what it answers.

    Args:
        route: the group; it is what is packed.
        samples: known ones with labels, for the names of the situations and for prototypes; not
            those of the test.
        class_names: in the order of the classes.
    """

    def __init__(self, route: Route, samples: Split, class_names: Sequence[str]) -> None:
        """Name the situations and choose the prototypes."""
        self.network = route.eval()
        self.samples = samples
        self.class_names = tuple(class_names)
        answers = answers_of(route.members[0], samples)
        chances = self._familiar.chances(answers.scores)
        self._situations = self._situations_of(answers.scores, answers.features)
        self._target = samples.target.cpu()
        self.names = self._named(chances)
        self._features, self._numbers = self._prototypes(answers.features)

    def predict_proba(self, *inputs: Tensor) -> Tensor:
        """Return class probabilities [batch, classes]; rows sum to 1."""
        with torch.no_grad():
            scores: Tensor = self.network(*inputs)
        return scores.softmax(-1)

    def predict(self, *inputs: Tensor) -> Tensor:
        """Return classes, int64 [batch]."""
        return self.predict_proba(*inputs).argmax(-1)

    def route(self, *inputs: Tensor) -> Tensor:
        """Return the situation of each input, int64 [batch]."""
        with torch.no_grad():
            return self.network.route(*inputs)

    def explain(self, *inputs: Tensor) -> list[dict[str, Any]]:
        """Return, for each input: situation, margin, members that answered, class, prototypes.

        "prototypes" are the two nearest among typical known samples, in member 0's features: the
        number of the sample in `samples`, its class, and the distance.
        """
        with torch.no_grad():
            scores, features = WithFeatures(self.network.members[0]).eval()(*inputs)
            situations = self._situations_of(scores, features)
            lead = margins(self._familiar.chances(scores))
            classes = self.predict(*inputs)
            distances = torch.cdist(features, self._features)
        near = distances.topk(min(2, len(self._numbers)), largest=False)
        return [
            {
                "situation": self.names[int(situations[i])],
                "margin": float(lead[i]),
                "members": self.network.strategies[int(situations[i])],
                "class": self.class_names[int(classes[i])],
                "prototypes": [
                    {
                        "sample": int(self._numbers[j]),
                        "class": self.class_names[int(self._target[self._numbers[j]])],
                        "distance": float(distance),
                    }
                    for j, distance in zip(near.indices[i], near.values[i], strict=True)
                ],
            }
            for i in range(len(scores))
        ]

    def report(self, split: Split) -> list[dict[str, Any]]:
        """Return a row for each situation and one for all of some samples with labels.

        "oracle" is the share for which any member is right: a bound that needs the labels.
        Without samples, a situation's accuracies are None.
        """
        answers = [answers_of(m, split) for m in self.network.members]
        situations = self._situations_of(answers[0].scores, answers[0].features)
        scores = torch.stack([a.scores for a in answers])
        with torch.no_grad():
            numbers = torch.split(torch.arange(len(split)), 1000)
            group = torch.cat([self.network(*split.batch(n).inputs) for n in numbers])
        target = split.target.cpu()
        rows = []
        for situation, name in [*enumerate(self.names), (-1, "all")]:
            here = (situations == situation) | torch.tensor(situation == -1)
            strategy = self.network.strategies[situation] if situation >= 0 else ()
            row: dict[str, Any] = {
                "situation": name,
                "share": float(here.double().mean()),
                "members": " + ".join(map(str, strategy)),
            }
            known = bool(here.any())
            right = {"first": scores[0], "group": group}
            for key, output in right.items():
                correct = (output[here].argmax(-1) == target[here]).double()
                row[key] = float(correct.mean()) if known else None
            row["oracle"] = oracle_accuracy(scores[:, here], target[here]) if known else None
            rows.append(row)
        return rows

    def calls_per_input(self, split: Split) -> list[float]:
        """Return how often each member runs for an input of the split, on average."""
        answers = answers_of(self.network.members[0], split)
        situations = self._situations_of(answers.scores, answers.features)
        calls = member_calls(situations, self.network.strategies, len(self.network.members))
        return [float(count) / len(split) for count in calls]

    def prototypes(self, situation: int) -> list[int]:
        """Return the numbers in `samples` of the most typical ones of a situation."""
        chosen = self._numbers[self._situations[self._numbers] == situation]
        return [int(number) for number in chosen]

    @property
    def _familiar(self) -> MarginRule:
        rule = self.network.rule
        familiar = rule if isinstance(rule, MarginRule) else rule.familiar
        assert isinstance(familiar, MarginRule)
        return familiar

    def _situations_of(self, scores: Tensor, features: Tensor) -> Tensor:
        rule: nn.Module = self.network.rule
        found: Tensor
        with torch.no_grad():
            found = rule(scores, features) if isinstance(rule, FeatureRule) else rule(scores)
        return found

    def _named(self, chances: Tensor) -> tuple[str, ...]:
        rule = self.network.rule
        names = ["familiar"]
        for k in range(1, len(self.network.strategies)):
            here = self._situations == k
            group = None
            if isinstance(rule, GroupSumRule):
                group = rule.membership[:, k - 1].nonzero().flatten().tolist()
            confusion = soft_confusion(chances[here], self._target[here])
            names.append(situation_name(confusion, self.class_names, group))
        return tuple(names)

    def _prototypes(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Take, of each situation and class, the samples nearest to their mean features."""
        chosen = []
        for situation in range(len(self.network.strategies)):
            for label in range(len(self.class_names)):
                here = (self._situations == situation) & (self._target == label)
                places = here.nonzero().flatten()
                if len(places):
                    distance = (features[places] - features[places].mean(0)).norm(dim=1)
                    chosen.append(places[distance.argsort(stable=True)[:PROTOTYPES]])
        numbers = torch.cat(chosen)
        return features[numbers], numbers
