"""A teacher's features in the loss: hints and attention transfer.

Hints: Romero et al., "FitNets", 2015, arXiv 1412.6550. Attention: Zagoruyko and Komodakis, "Paying
More Attention to Attention", 2017, arXiv 1612.03928.

    hints       L + weight * mean over pairs of 0.5 mean (h_teacher - r(h_student))^2
    attention   L + weight * sum over pairs of mean (q_teacher - q_student)^2

r is a linear layer or a 1 x 1 convolution. It is trained along and lives in the hook, so nothing of
it is left in the student.

Shapes: features [batch, width] or [batch, channels, height, width].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from whit.core.data import Batch
from whit.core.hook import Hook, Plan
from whit.core.options import is_number, require
from whit.errors import NotApplicable
from whit.measure.meter import undisturbed
from whit.parts.losses import attention_transfer_loss, hint_loss
from whit.parts.surgery import WEIGHTED
from whit.procedures.watched_layers import LayerOutputs, WatchedTeacher

Features = Literal["none", "hints", "attention"]
FEATURES = ("none", "hints", "attention")
# The usual factor of attention transfer's code; a hint is of the order of the features' variance.
DEFAULT_WEIGHTS = {"none": 0.0, "hints": 1.0, "attention": 1000.0}
Pair = tuple[str, str]


class FeatureTeacher(Hook):
    """Adds the distance between a student's and a teacher's features to the loss.

    Args:
        model: the student; its layers are watched until `close`.
        plan: of the training; the regressors join its optimiser.
        teacher: watched at the second paths of the pairs.
        pairs: (student's path, teacher's path).
        kind: "hints" or "attention".
        weight: of the term, > 0.
        example: a batch to read the shapes from.
        alone: the term is the whole loss: the first stage of FitNets.

    Raises:
        SpecError: a path is unknown, or the features of a pair do not go together.
    """

    def __init__(  # noqa: PLR0913 - student, plan and what is asked of them
        self,
        model: nn.Module,
        plan: Plan,
        teacher: WatchedTeacher,
        pairs: Sequence[Pair],
        kind: Features,
        weight: float,
        example: Batch,
        alone: bool = False,
    ) -> None:
        """Watch the layers and make the regressors."""
        self.model, self.teacher, self.pairs = model, teacher, tuple(pairs)
        self.kind, self.weight, self.alone = kind, weight, alone
        self.watch = LayerOutputs(model, [own for own, _ in pairs])
        self.regressors = nn.ModuleList()
        try:
            with undisturbed(model):
                model(*example.inputs)
            features = teacher.features(example)
            for own, other in pairs:
                self._check(own, other, self.watch.outputs[own], features[other], plan)
        except BaseException:
            self.close()
            raise
        if len(self.regressors):
            self.regressors.to(plan.device)
            plan.optimizer.add_param_group({"params": list(self.regressors.parameters())})

    def _check(self, own: str, other: str, student: Tensor, teacher: Tensor, plan: Plan) -> None:
        images = student.dim() == teacher.dim() == 4
        vectors = student.dim() == teacher.dim() == 2
        fits = images and (self.kind == "attention" or student.shape[2:] == teacher.shape[2:])
        require(
            fits or (vectors and self.kind == "hints"),
            f"The student's layer '{own}' gives {list(student.shape)} and the teacher's '{other}' "
            f"{list(teacher.shape)}; "
            + (
                "hints need two layers of vectors, or two of images of the same height and width."
                if self.kind == "hints"
                else "attention needs two layers of images, [batch, channels, height, width]."
            )
            + " Name others by layers=((student's path, teacher's path),).",
        )
        if self.kind == "hints":
            self.regressors.append(_regressor(student, teacher, plan.generator))

    def loss(self, loss: Tensor, output: Tensor, batch: Batch) -> Tensor:
        """Return loss + weight * distance of the features, or that distance alone."""
        features = self.teacher.features(batch)
        terms = []
        for number, (own, other) in enumerate(self.pairs):
            student = self.watch.outputs[own]
            if self.kind == "hints":
                terms.append(hint_loss(self.regressors[number](student), features[other]))
            else:
                terms.append(attention_transfer_loss(student, features[other]))
        total = torch.stack(terms)
        distance = total.mean() if self.kind == "hints" else total.sum()
        return self.weight * distance if self.alone else loss + self.weight * distance

    def close(self) -> None:
        """Take the watch off the student; the regressors go with the hook."""
        self.watch.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the regressors."""
        return {"regressors": dict(self.regressors.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from saved regressors."""
        self.regressors.load_state_dict(state["regressors"])


def _regressor(student: Tensor, teacher: Tensor, generator: torch.Generator) -> nn.Module:
    """Return the layer from the student's channels to the teacher's, drawn by the generator."""
    sizes = student.shape[1], teacher.shape[1]
    kind, rest = (nn.Conv2d, (1,)) if student.dim() == 4 else (nn.Linear, ())
    # Without its own first draw, which would come from the stream of the student's dropout.
    layer: nn.Linear | nn.Conv2d = skip_init(kind, *sizes, *rest)  # type: ignore[no-untyped-call]
    nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def check_layers(layers: object) -> None:
    """Refuse what is not a list of pairs of paths.

    Raises:
        SpecError: it is not.
    """
    holds = layers is None or (
        isinstance(layers, list | tuple)
        and len(layers) > 0
        and all(
            isinstance(pair, list | tuple)
            and len(pair) == 2
            and all(isinstance(path, str) for path in pair)
            for pair in layers
        )
    )
    require(
        holds,
        f"layers was given {layers!r}; expected None or pairs of a student's and a teacher's path, "
        "such as (('conv2', 'conv2'),).",
    )


def check_features(features: object, weight: object, layers: object, hint_epochs: object) -> None:
    """Check the options of a teacher's features together.

    Raises:
        SpecError: one is out of range, or does nothing beside the others.
    """
    require(features in FEATURES, f"features was given {features!r}. Known: {', '.join(FEATURES)}.")
    known = isinstance(weight, int | float) and is_number(weight) and weight > 0
    require(
        weight is None or known,
        f"feature_weight was given {weight!r}; expected a number > 0, or None for the usual one.",
    )
    check_layers(layers)
    whole = isinstance(hint_epochs, int) and not isinstance(hint_epochs, bool) and hint_epochs >= 0
    require(whole, f"hint_epochs was given {hint_epochs!r}; expected a whole number >= 0.")
    require(
        features != "none" or (weight is None and layers is None),
        "feature_weight and layers say nothing with features='none'; give features='hints' or "
        "'attention'.",
    )
    require(
        not hint_epochs or features == "hints",
        f"hint_epochs={hint_epochs} is the first stage of hints; give features='hints' with it.",
    )


def choose_pairs(
    student: nn.Module, teacher: nn.Module, kind: Features, example: Batch
) -> tuple[Pair, ...]:
    """Choose the layers whose features are compared.

    The candidates are the linear and convolution layers, in the order in which they are called, but
    for the last, which gives the scores. For hints it is the middle one of each network. For
    attention it is the last convolution of each image size that both networks have.

    Args:
        student: network.
        teacher: network.
        kind: "hints" or "attention".
        example: a batch to run them on.

    Raises:
        NotApplicable: no two layers go together; the message lists what there is.
    """
    own, other = _candidates(student, example), _candidates(teacher, example)
    if kind == "hints" and own and other:
        a, b = own[(len(own) - 1) // 2], other[(len(other) - 1) // 2]
        if len(a[1]) == len(b[1]) and a[1][2:] == b[1][2:] and len(a[1]) in (2, 4):
            return ((a[0], b[0]),)
    if kind == "attention":
        left = {shape[2:]: path for path, shape in own if len(shape) == 4}
        right = {shape[2:]: path for path, shape in other if len(shape) == 4}
        pairs = tuple((path, right[size]) for size, path in left.items() if size in right)
        if pairs:
            return pairs
    raise NotApplicable(
        f"No layers of student and teacher go together for features='{kind}'. Name them by "
        "layers=((student's path, teacher's path),). Student: "
        + _listed(own)
        + ". Teacher: "
        + _listed(other)
        + "."
    )


def _listed(candidates: list[tuple[str, tuple[int, ...]]]) -> str:
    texts = [f"'{path}' {list(shape[1:])}" for path, shape in candidates]
    return ", ".join(texts) or "no hidden linear or convolution layer"


def _candidates(model: nn.Module, example: Batch) -> list[tuple[str, tuple[int, ...]]]:
    """Return path and shape of each hidden layer with weights, in the order of the calls."""
    paths = [path for path, m in model.named_modules() if isinstance(m, WEIGHTED) and path]
    watch = LayerOutputs(model, paths)
    try:
        with undisturbed(model):
            model(*example.inputs)
        found = [(path, tuple(output.shape)) for path, output in watch.outputs.items()]
    finally:
        watch.close()
    return found[:-1]
