"""Distillation: a network learns from the soft answers of a trained one, and from its features.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531.

    L = (1 - weight) CE(labels, z) + weight T^2 KL(softmax(z_teacher / T) || softmax(z / T))

The factor T^2 keeps the gradient's scale over T; for large T the term tends to matching centred
logits. Hints and attention transfer add a term over features; see `procedures.feature_teachers`.

Shapes: z, z_teacher [..., classes]; the loss is a mean over the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whit.core.data import Batch
from whit.core.fit import predict
from whit.core.hook import Hook, Plan
from whit.core.options import require
from whit.core.run import Run
from whit.core.technique import HookFactory, Technique, technique
from whit.errors import NotApplicable
from whit.procedures.feature_teachers import (
    DEFAULT_WEIGHTS,
    Features,
    FeatureTeacher,
    Pair,
    check_features,
    choose_pairs,
)
from whit.procedures.teachers import (
    DEFAULT_TEMPERATURE,
    DEFAULT_WEIGHT,
    Distillation,
    teacher_scores,
)
from whit.procedures.watched_layers import WatchedTeacher


@technique
def distillation(  # noqa: PLR0913 - the options of one technique, all by name
    *,
    temperature: float = DEFAULT_TEMPERATURE,
    weight: float = DEFAULT_WEIGHT,
    student_width: float | None = None,
    teacher_width: float | None = None,
    features: Features = "none",
    feature_weight: float | None = None,
    layers: tuple[tuple[str, str], ...] | None = None,
    hint_epochs: int = 0,
) -> Technique:
    """Train a teacher as the control is trained, then the network on its soft answers.

    Args:
        temperature: T of both softmaxes, > 0.
        weight: share of the teacher's term, 0 < . <= 1; 0 only with features.
        student_width: width of the network that is kept; None for the task's own.
        teacher_width: width of the teacher; None for the task's own.
        features: learn from hidden layers too: "none", "hints" (FitNets) or "attention".
        feature_weight: of that term, > 0; None for 1 (hints) or 1000 (attention).
        layers: pairs of a student's and a teacher's path; None chooses them, see `choose_pairs`.
        hint_epochs: first train so many epochs by hints alone, >= 0; the term is then left out of
            the training that follows. 0 adds it there.
    """
    Distillation(lambda batch: batch.target, temperature, weight)
    check_features(features, feature_weight, layers, hint_epochs)
    require(
        weight > 0 or features != "none",
        "weight=0 is plain training; expected a number above 0, up to 1.",
    )
    strength = DEFAULT_WEIGHTS[features] if feature_weight is None else feature_weight

    def train(run: Run) -> nn.Module:
        if run.task.output_axes != 1 or not run.data.class_names:
            raise NotApplicable(
                f"distillation needs one set of class scores per sample; task '{run.task.name}' "
                f"has none (that takes class_names in its data and output_axes=1)."
            )
        plain = run.plain()
        teacher = plain.fit(plain.build(**_width(teacher_width)))
        student = run.build(**_width(student_width))
        if features != "none":
            term = _Term(features, strength, layers, hint_epochs)
            return _with_features(run, student, teacher, term, (temperature, weight))
        return _by_scores(run, student, teacher, temperature, weight)

    return Technique(train=train)


def _by_scores(
    run: Run, student: nn.Module, teacher: nn.Module, temperature: float, weight: float
) -> nn.Module:
    """Train the student on labels and the teacher's scores."""
    if run.data.augment is not None:
        with run.meter.training(teacher):
            return run.fit(
                student, hooks=(_distilled(teacher_scores(teacher), temperature, weight),)
            )
    # Without augmentation the teacher answers each sample once, instead of in every epoch.
    with run.meter.training(teacher):
        cached = predict(teacher, run.data.train, run.task, run.device.torch)
    cached = cached.to(run.device.torch)
    return run.fit(
        student, hooks=(_distilled(lambda batch: cached[batch.index], temperature, weight),)
    )


def _distilled(scores: Callable[[Batch], Tensor], temperature: float, weight: float) -> HookFactory:
    return lambda model, plan: Distillation(scores, temperature, weight)


@dataclass(frozen=True)
class _Term:
    """What is asked of the features."""

    kind: Features
    weight: float
    layers: Sequence[Pair] | None
    hint_epochs: int


def _with_features(
    run: Run, student: nn.Module, teacher: nn.Module, term: _Term, soft: tuple[float, float]
) -> nn.Module:
    """Train the student on labels, scores and features; the teacher answers every batch."""
    device = run.device.torch
    example = run.data.train.to(device).batch(torch.arange(2, device=device))
    student, teacher = student.to(device), teacher.to(device)
    pairs = term.layers or choose_pairs(student, teacher, term.kind, example)
    watched = WatchedTeacher(teacher, [other for _, other in pairs])

    def by_features(alone: bool) -> HookFactory:
        def make(model: nn.Module, plan: Plan) -> Hook:
            return FeatureTeacher(
                model, plan, watched, pairs, term.kind, term.weight, example, alone
            )

        return make

    try:
        with run.meter.training(teacher):
            if not term.hint_epochs:
                return run.fit(student, hooks=(_distilled(watched, *soft), by_features(False)))
            run.fit(student, epochs=term.hint_epochs, hooks=(by_features(True),))
    finally:
        watched.close()
    return _by_scores(run, student, teacher, *soft)


def _width(width: float | None) -> dict[str, object]:
    return {} if width is None else {"width": width}
