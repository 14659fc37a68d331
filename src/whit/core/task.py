"""A task: data, a control model, a loss and a metric, under one name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from whit.core.data import Data, Split
from whit.core.data_checks import check_data
from whit.core.options import nearest
from whit.core.settings import Settings
from whit.errors import TaskError

Loss = Callable[[Tensor, Tensor], Tensor]
Metric = Callable[[Tensor, Tensor], float]


def accuracy(output: Tensor, target: Tensor) -> float:
    """Return the share of samples whose highest score is the target class, in 0..1.

    Shapes: output [..., classes], target [...] int64.
    """
    return float((output.argmax(-1) == target).double().mean())


@dataclass(frozen=True)
class Task:
    """What is to be learnt, and how well the control does it.

    Attributes:
        name: how results name it; for built-in tasks the call that makes it.
        load: returns the data; called once per process.
        build: `(data, **choices) -> model`, the control model; its keywords are what a search
            may vary.
        loss: `(output, target) -> scalar`, mean over the batch.
        metric: `(output, target) -> float`, higher is better; its `__name__` names the columns.
        settings: training settings that do the control justice.
        output_axes: axes of the output after the batch axis: 1 class scores, 2 tagging, 3-4 frames.
    """

    name: str
    load: Callable[[], Data]
    build: Callable[..., nn.Module]
    loss: Loss = functional.cross_entropy
    metric: Metric = accuracy
    settings: Settings = field(default_factory=Settings)
    output_axes: int = 1

    @property
    def metric_name(self) -> str:
        """Name of the metric, as in the columns `valid_accuracy` and `test_accuracy`."""
        return str(getattr(self.metric, "__name__", "score"))

    def checked_data(self) -> Data:
        """Return a copy of the loaded data after a look at what is often wrong in a task.

        A copy, so that a technique that changes tensors in place cannot spoil the next run. Of the
        test split it is only asked whether it is valid; see `core.data_checks`.

        Raises:
            TaskError: the data cannot be learnt from or measured.
        """
        cross_entropy = self.loss is functional.cross_entropy
        return check_data(self.load(), self.name, cross_entropy).map_splits(Split.copied)

    def build_model(self, data: Data, choices: dict[str, object]) -> nn.Module:
        """Build the control model with these choices.

        Raises:
            TaskError: a choice that the task's `build` does not take, or what it built is no
                module.
        """
        signature = inspect.signature(self.build)
        parameters = signature.parameters
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        for name in choices:
            if name not in parameters and not takes_any:
                raise TaskError(
                    f"Task '{self.name}' cannot build a model with '{name}={choices[name]!r}': "
                    f"its build function has no such choice. {nearest(name, list(parameters)[1:])}"
                )
        try:
            signature.bind(data, **choices)
        except TypeError as error:
            raise TaskError(
                f"Task '{self.name}': build cannot be called as build(data): {error}. Write it as "
                "build(data, width=1.0) or build(data)."
            ) from None
        model = self.build(data, **choices)
        if not isinstance(model, nn.Module):
            raise TaskError(
                f"Task '{self.name}': build returned {type(model).__name__}, expected a "
                f"torch.nn.Module."
            )
        return model

    def mean_loss(self, output: Tensor, target: Tensor, own_targets: bool = False) -> Tensor:
        """Return the loss averaged over leading axes (members or exits).

        Args:
            output: [..., batch, *output_axes].
            target: [batch, ...], or [members, batch, ...] with `own_targets`.
            own_targets: each member has its own samples.
        """
        leading = output.dim() - 1 - self.output_axes
        if leading == 0:
            return self.loss(output, target)
        members = output.flatten(0, leading - 1)
        targets = target if own_targets else target.expand(len(members), *target.shape)
        losses = [self.loss(m, t) for m, t in zip(members, targets, strict=True)]
        return torch.stack(losses).mean()

    def combined_output(self, output: Tensor) -> Tensor:
        """Return one output per sample: leading axes averaged (class scores as probabilities).

        Shapes: [..., batch, *output_axes] -> [batch, *output_axes].
        """
        leading = output.dim() - 1 - self.output_axes
        if leading == 0:
            return output
        members = output.flatten(0, leading - 1)
        if self.loss is functional.cross_entropy:
            return members.softmax(-1).mean(0).clamp_min(1e-12).log()
        return members.mean(0)

    def score(self, output: Tensor, target: Tensor) -> float:
        """Return the metric, checked.

        Raises:
            TaskError: the metric returned no number.
        """
        value = self.metric(output, target)
        try:
            return float(value)
        except (TypeError, ValueError):
            raise TaskError(
                f"Task '{self.name}': the metric '{self.metric_name}' returned "
                f"{type(value).__name__}, expected one number, higher for better."
            ) from None

    def check_output(self, output: Tensor, batch_size: int, classes: int = 0) -> None:
        """Say in words what is wrong with a model's output.

        Args:
            output: what the model returned.
            batch_size: samples that it was given.
            classes: how many class names the data have; 0 leaves the number of scores unchecked.
                Only counts where the loss or the metric reads class scores from the last axis.

        Raises:
            TaskError: the output is no tensor, lacks axes, has no batch axis where expected, or
                gives another number of scores than there are classes.
        """
        expected = f"[..., batch={batch_size}" + ", _" * self.output_axes + "]"
        if not isinstance(output, Tensor):
            raise TaskError(
                f"Task '{self.name}': the model returned {type(output).__name__}, expected one "
                f"tensor {expected}."
            )
        axis = output.dim() - 1 - self.output_axes
        if axis < 0 or output.shape[axis] != batch_size:
            raise TaskError(
                f"Task '{self.name}': the model returned shape {list(output.shape)}, expected "
                f"{expected}. Check the last layer, or set output_axes of the task."
            )
        scores_last = self.output_axes <= 2 and (
            self.loss is functional.cross_entropy or self.metric is accuracy
        )
        if classes and scores_last and output.shape[-1] != classes:
            raise TaskError(
                f"Task '{self.name}': the model gives {output.shape[-1]} scores "
                f"(shape {list(output.shape)}), and there are {classes} class names. Give the last "
                f"layer {classes} outputs (data.output_size), or correct the class names."
            )


def r_squared(output: Tensor, target: Tensor) -> float:
    """Return the share of the target's variance that is explained: 1 is perfect, 0 the mean's.

    Shapes: output and target alike, any shape.
    """
    residual = (output.double() - target.double()).square().sum()
    spread = (target.double() - target.double().mean()).square().sum()
    return float(1 - residual / spread.clamp_min(1e-12))
