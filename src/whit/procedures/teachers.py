"""A teacher's answers in the loss: the hook that every method with a teacher shares.

    L = (1 - weight) CE(labels, z) + weight T^2 KL(softmax(z_teacher / T) || softmax(z / T))

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531.
The factor T^2 keeps the gradient's scale over T; for large T the term tends to matching centred
logits.

Shapes: z, z_teacher [..., classes]; the loss is a mean over the batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from whit.core.data import Batch
from whit.core.hook import Hook
from whit.core.options import is_number, require
from whit.parts.losses import distillation_loss

DEFAULT_TEMPERATURE = 4.0
DEFAULT_WEIGHT = 0.9


class Distillation(Hook):
    """Mixes the task's loss with the distance to a teacher's class scores.

    Args:
        teacher: `batch -> class scores` of the batch, without gradient.
        temperature: > 0; the field uses 1 to 20.
        weight: share of the teacher's term, 0..1; 0 returns the task's loss itself.
    """

    def __init__(
        self,
        teacher: Callable[[Batch], Tensor],
        temperature: float = DEFAULT_TEMPERATURE,
        weight: float = DEFAULT_WEIGHT,
    ) -> None:
        """Check the ranges."""
        require(
            is_number(temperature) and temperature > 0,
            f"temperature was given {temperature!r}; expected a number > 0.",
        )
        require(
            is_number(weight) and 0 <= weight <= 1,
            f"weight was given {weight!r}; expected a number between 0 and 1.",
        )
        self.teacher = teacher
        self.temperature = temperature
        self.weight = weight

    def loss(self, loss: Tensor, output: Tensor, batch: Batch) -> Tensor:
        """Return (1 - weight) loss + weight T^2 KL(teacher || output)."""
        if self.weight == 0:
            return loss
        scores = self.teacher(batch).expand_as(output)
        divergence = distillation_loss(output, scores, self.temperature)
        return (1 - self.weight) * loss + self.weight * divergence


def teacher_scores(teacher: nn.Module) -> Callable[[Batch], Tensor]:
    """Return `batch -> scores` of a frozen teacher in evaluation mode, without gradient."""
    teacher.eval().requires_grad_(False)

    def scores(batch: Batch) -> Tensor:
        with torch.no_grad():
            result: Tensor = teacher(*batch.inputs)
        return result

    return scores
