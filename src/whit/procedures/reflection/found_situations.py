"""Reflection: what a network is unsure of, sorted into situations that its answers tell apart."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from whit.parts.route import FeatureRule, GroupSumRule
from whit.procedures.reflection.answers import Answers
from whit.procedures.reflection.calibration import familiar_margin, fit_temperature, margins
from whit.procedures.reflection.situations import (
    centroid_head,
    cut_classes,
    group_chances,
    situation_name,
    soft_confusion,
)


@dataclass(frozen=True)
class ReflectionOptions:
    """How a group is grown.

    Attributes:
        groups: K, situations beside the familiar one, each with a specialist; >= 1.
        situations: "spectral", "linkage" or "kmeans".
        precision: of the familiar situation, 0..1.
        eps: sampling weight of what is none of a specialist's business, > 0.
        epochs: of each specialist; None for as many as the first network's.
        rate: of a specialist's learning rate to the first network's, > 0.
        gate: try a learned gate, too.
        gate_hidden: hidden units of the gate; 0 makes it linear.
        most: members, at which growth stops; 0 does not grow.
    """

    groups: int = 2
    situations: str = "spectral"
    precision: float = 0.999
    eps: float = 0.1
    epochs: int | None = None
    rate: float = 0.5
    gate: bool = False
    gate_hidden: int = 0
    most: int = 0


@dataclass(frozen=True)
class Situations:
    """What reflection found.

    Attributes:
        rule: from member 0's scores (and features) to situations.
        temperature: of the answers that were reflected on.
        margin: from which on these answers are familiar.
        names: of situations 1..K, such as "4 or 9".
        groups: class numbers of situations 1..K; empty lists where clusters were used.
    """

    rule: GroupSumRule | FeatureRule
    temperature: float
    margin: float
    names: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]

    def of(self, answers: Answers) -> Tensor:
        """Return the situations int64 [samples] that the rule names."""
        if self.rule.needs_features:
            found: Tensor = self.rule(answers.scores, answers.features)
        else:
            found = self.rule(answers.scores)
        return found

    def decided_like(self, other: Situations) -> Situations:
        """Return these situations, with what is familiar as another rule has it."""
        like = other.rule.familiar
        rule: GroupSumRule | FeatureRule
        if isinstance(self.rule, FeatureRule):
            rule = FeatureRule(self.rule.head, self.rule.situations, like.margin, like.temperature)
        else:
            rule = GroupSumRule(self.groups, like.margin, like.temperature)
        return replace(self, rule=rule)

    def belonging(self, answers: Answers) -> Tensor:
        """Return q [samples, K]: the chance of each group, or 1 for the nearest cluster's."""
        if not isinstance(self.rule, FeatureRule):
            return group_chances(answers.chances(self.temperature), self.groups)
        nearest: Tensor = self.rule.head(answers.features).argmax(-1)
        return nn.functional.one_hot(nearest, len(self.names)).float()


def unsure_of(answers: Answers, target: Tensor, precision: float) -> tuple[Tensor, float, float]:
    """Return which samples are not familiar, the temperature, and the margin of familiar ones.

    Args:
        answers: on samples that were not learned from.
        target: int64 classes [samples].
        precision: of familiar samples, 0..1.

    Shapes: -> (bool [samples], temperature, margin).
    """
    temperature = fit_temperature(answers.scores, target)
    chances = answers.chances(temperature)
    margin = margins(chances)
    tau = familiar_margin(margin, chances.argmax(-1) == target, precision)
    return margin < tau, temperature, tau


def find_situations(
    answers: Answers,
    target: Tensor,
    class_names: tuple[str, ...],
    options: ReflectionOptions,
    seed: int = 0,
) -> Situations:
    """Reflect on samples that the network has not learned from: R1.

    Args:
        answers: of the first network, or of a group, on R1.
        target: int64 classes [samples].
        class_names: in the order of the classes.
        options: of the group.
        seed: of k-means.

    Raises:
        SpecError: more groups than classes, or than uncertain samples.
    """
    unsure, temperature, tau = unsure_of(answers, target, options.precision)
    chances = answers.chances(temperature)
    confusion = soft_confusion(chances[unsure], target[unsure])
    rule: GroupSumRule | FeatureRule
    if options.situations == "kmeans":
        head = centroid_head(answers.features[unsure], options.groups, seed)
        rule = FeatureRule(head, 1 + options.groups, tau, temperature)
        cluster = head(answers.features).argmax(-1)
        names = []
        for k in range(options.groups):
            here = unsure & (cluster == k)
            names.append(situation_name(soft_confusion(chances[here], target[here]), class_names))
        return Situations(rule, temperature, tau, tuple(names), ((),) * options.groups)
    groups = cut_classes(confusion, options.groups, options.situations)
    rule = GroupSumRule(groups, tau, temperature)
    named = tuple(situation_name(confusion, class_names, group) for group in groups)
    return Situations(rule, temperature, tau, named, tuple(tuple(group) for group in groups))
