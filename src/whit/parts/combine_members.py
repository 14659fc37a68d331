"""One output from the outputs of several networks."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from whit.errors import SpecError

Output = Literal["logits", "softmax", "vote"]
OUTPUTS = ("logits", "softmax", "vote")


class Combine(nn.Module):
    """Combines the outputs of members.

    Args:
        output: "logits" (their mean), "softmax" (the mean of the class probabilities) or "vote"
            (the share of members that choose each class).

    Shapes: [members, ...] -> [...].

    Raises:
        SpecError: another way.
    """

    def __init__(self, output: Output = "logits") -> None:
        """Check and keep the way."""
        super().__init__()
        if output not in OUTPUTS:
            raise SpecError(f"output was given {output!r}. Known: {', '.join(OUTPUTS)}.")
        self.output = output

    def each(self, scores: Tensor) -> Tensor:
        """Return what is averaged over the members, of the same shape."""
        if self.output == "softmax":
            return scores.softmax(-1)
        if self.output == "vote":
            chosen = scores.argmax(-1)
            return nn.functional.one_hot(chosen, scores.shape[-1]).to(scores.dtype)
        return scores

    def forward(self, scores: Tensor) -> Tensor:
        """Return the mean."""
        return self.each(scores).mean(0)

    def extra_repr(self) -> str:
        """Show the way."""
        return repr(self.output)


def lead(average: Tensor) -> Tensor:
    """Return by how much the first class is ahead of the second.

    Shapes: [..., classes] -> [...]; infinite with one class.
    """
    if average.shape[-1] < 2:
        return torch.full(average.shape[:-1], float("inf"))
    top = average.topk(2, dim=-1).values
    return top[..., 0] - top[..., 1]
