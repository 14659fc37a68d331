"""In which order a call of `fit` goes through the samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from whit.core.data import Split
from whit.errors import TaskError
from whit.parts.group import Group


class SampleOrder:
    """Draws the order of every epoch.

    A group whose members take their own inputs gets an order of its own for each member.

    Args:
        model: that is trained.
        split: samples to learn from.
        seed: of the generator, which the augmentation shares.

    Raises:
        TaskError: a group with own inputs cannot learn from a graph.
    """

    def __init__(self, model: nn.Module, split: Split, seed: int) -> None:
        """Start the generator."""
        self.members = len(model) if isinstance(model, Group) and model.own_inputs else 0
        if self.members and split.shared:
            raise TaskError(
                "A Group with own_inputs cannot learn from a graph: its tensors are shared by all "
                "samples. Use own_inputs=False."
            )
        self.samples = len(split)
        self.weights: Tensor | None = None
        self.generator = torch.Generator().manual_seed(seed)

    def weigh(self, weights: Tensor | None) -> None:
        """Draw with replacement from now on, in proportion to the weights.

        Args:
            weights: non-negative [samples], not all 0; None to take each sample once.

        Raises:
            TaskError: the weights are not as expected.
        """
        if weights is None:
            return
        if (
            weights.shape != (self.samples,)
            or not bool((weights >= 0).all())
            or not float(weights.sum()) > 0
        ):
            raise TaskError(
                f"sample_weights has shape {list(weights.shape)}; expected [{self.samples}], one "
                "weight a training sample, none negative, not all zero."
            )
        self.weights = weights.detach().cpu().double()

    def first(self) -> Tensor:
        """Return the number of one sample as `draw` would: [1], or [members, 1]."""
        index = torch.zeros(1, dtype=torch.int64)
        return index.expand(self.members, 1) if self.members else index

    def draw(self) -> Tensor:
        """Return the numbers of an epoch's samples: [samples], or [members, samples]."""
        if self.members:
            return torch.stack([self._one() for _ in range(self.members)])
        return self._one()

    def _one(self) -> Tensor:
        if self.weights is None:
            return torch.randperm(self.samples, generator=self.generator)
        return torch.multinomial(
            self.weights, self.samples, replacement=True, generator=self.generator
        )
