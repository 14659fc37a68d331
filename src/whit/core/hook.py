"""A hook watches one training run of one model, like a learning-rate scheduler does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from whit.core.data import Batch


@dataclass(frozen=True)
class Plan:
    """What a hook may know of the training run that it is made for.

    Attributes:
        total_steps: optimiser steps of this call of `fit`, > 0.
        steps_per_epoch: optimiser steps of one epoch, > 0.
        optimizer: the optimiser; a hook may regroup its parameters when it is made.
        device: where model and batches are.
        generator: random numbers for the hook, on the CPU; saved with the checkpoint.
    """

    total_steps: int
    steps_per_epoch: int
    optimizer: torch.optim.Optimizer
    device: torch.device
    generator: torch.Generator


class Hook:
    """The moments of a training run; every one does nothing by default.

    A hook is made for one model and one plan and counts its own steps. Its `state_dict` must
    hold all that changes, so that a killed run resumes to the same weights.

    After every epoch, the model is run over the validation split in evaluation mode. Forward hooks
    that a hook registered on the model see those calls too; `module.training` is False then.
    """

    def loss(self, loss: Tensor, output: Tensor, batch: Batch) -> Tensor:
        """Return the loss to minimise, from the task's loss, the output and the batch."""
        return loss

    def before_step(self) -> None:
        """Act when the gradients are ready."""

    def after_step(self) -> None:
        """Act when the weights have moved."""

    def after_epoch(self) -> None:
        """Act when an epoch has ended."""

    def close(self) -> None:
        """Undo what was registered on the model; called once, also when training fails."""

    def state_dict(self) -> dict[str, Any]:
        """Return what must be saved to go on later: tensors, numbers, strings, lists."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
