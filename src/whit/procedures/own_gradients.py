"""The gradients of a group's members, each as large as if its network trained alone.

`fit` takes the mean of the loss over K members, so each gets 1 / K of the gradient of its own loss.
Adam and AdamW divide by the gradients' size and do not notice (but for their epsilon); SGD would
move each member by 1 / K of the step that it makes alone.
"""

from __future__ import annotations

import torch
from torch import nn

from whit.core.hook import Hook
from whit.errors import SpecError
from whit.parts.group import Group


class OwnGradients(Hook):
    """Gives each member of a group the gradient that it would have alone.

    `fit` averages the loss over the members, so a member's gradient is 1 / K of its own loss's. SGD
    would move it by 1 / K of the step; this hook multiplies the gradients by K.

    Args:
        group: of networks that share no parameter.

    Raises:
        SpecError: no group of two or more.
    """

    def __init__(self, group: nn.Module) -> None:
        """Gather the parameters."""
        members = members_of(group)
        self.factor = float(len(members))
        self.parameters = [p for p in group.parameters() if p.requires_grad]

    def before_step(self) -> None:
        """Multiply."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        torch._foreach_mul_(gradients, self.factor)


def members_of(group: nn.Module) -> list[nn.Module]:
    """Return the networks of a group.

    Raises:
        SpecError: it is no `Group`, or has fewer than two members.
    """
    if not isinstance(group, Group) or len(group) < 2:
        given = f"a Group of {len(group)}" if isinstance(group, Group) else type(group).__name__
        raise SpecError(
            f"Networks that learn together were given as {given}; expected a whit.parts.group."
            "Group of two networks or more."
        )
    return list(group.members)
