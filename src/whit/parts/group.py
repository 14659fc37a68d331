"""A group of networks as one module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from whit.errors import WhitError


class Group(nn.Module):
    """K networks; the output has a leading axis of members.

    Members keep their own parameters, so each may have its own optimiser group. Alike members
    can run as one batched computation, which pays for small linear networks and not for
    convolutions (measured in `docs/architecture.md`); the outputs are equal.

    Args:
        members: one or more modules.
        batched: run alike members by one `torch.func` + `vmap` call.
        own_inputs: inputs have a leading axis of members: each member gets its own batch.

    Shapes: inputs [batch, ...] (or [members, batch, ...]) -> [members, batch, ...].
    """

    def __init__(
        self, members: Sequence[nn.Module], *, batched: bool = False, own_inputs: bool = False
    ) -> None:
        """Hold the members; check that they are alike where that is needed."""
        super().__init__()
        if not members:
            raise WhitError("A Group was given no members; give at least one module.")
        self.members = nn.ModuleList(members)
        self.batched = batched
        self.own_inputs = own_inputs
        if batched:
            shapes = [[(k, v.shape) for k, v in m.state_dict().items()] for m in members]
            if any(s != shapes[0] for s in shapes):
                raise WhitError(
                    "A batched Group needs members with the same tensors of the same shapes. "
                    "Build them alike, or use batched=False."
                )

    def __len__(self) -> int:
        return len(self.members)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the members' outputs, stacked."""
        if self.batched:
            return self._batched_forward(*inputs)
        outputs = []
        for k, member in enumerate(self.members):
            outputs.append(member(*([x[k] for x in inputs] if self.own_inputs else inputs)))
        return torch.stack(outputs)

    def _batched_forward(self, *inputs: Tensor) -> Tensor:
        skeleton = self.members[0]
        parameters = _stacked([dict(m.named_parameters()) for m in self.members])
        buffers = _stacked([dict(m.named_buffers()) for m in self.members])

        def call(
            p: dict[str, Tensor], b: dict[str, Tensor], *x: Tensor
        ) -> tuple[Tensor, dict[str, Tensor]]:
            return functional_call(skeleton, (p, b), x), b

        input_axes = tuple(0 if self.own_inputs else None for _ in inputs)
        output, moved = torch.func.vmap(call, in_dims=(0, 0, *input_axes), randomness="different")(
            parameters, buffers, *inputs
        )
        if self.training:
            with torch.no_grad():
                for k, member in enumerate(self.members):
                    for name, buffer in member.named_buffers():
                        buffer.copy_(moved[name][k])
        return output


def _stacked(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stack differentiably, so that gradients reach each member's own parameters."""
    return {name: torch.stack([s[name] for s in states]) for name in states[0]}
