"""A group of networks as one module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from whit.errors import SpecError, WhitError
from whit.parts.batched_members import require_alike, run_batched
from whit.parts.group_timing import ChosenWay, Run, fastest_way
from whit.parts.member_threads import require_apart, run_in_threads, threads_fit

WAYS = ("one_by_one", "batched", "threads", "auto")


class Group(nn.Module):
    """K networks; the output has a leading axis of members.

    Members keep their own parameters, so each may have its own optimiser group. The ways to run
    them give the same outputs and gradients, up to the rounding of floats:

    - "one_by_one": a loop.
    - "batched": alike members as one batched computation. Chains of linear layers, batch norm
      and elementwise functions are run by hand, other members by `torch.func` and vmap.
      Dropout draws other numbers than the loop does.
    - "threads": in training, each member's forward and backward pass on a thread of its own, on
      the CPU; else a loop. Equal to the loop at one thread, bit for bit. Members that draw random
      numbers are refused.
    - "auto": the ways are timed on the first training batch, and the fastest is used in training;
      else a loop. Time decides, so two runs may choose different ways, and then differ in
      rounding (with dropout, in the draws); so may a resumed run.

    Args:
        members: one or more modules.
        way: how they run; may be set later.
        own_inputs: inputs have a leading axis of members: each member gets its own batch.

    Attributes:
        chosen: with "auto", the way that was measured as the fastest, and the times; None before
            the first training batch.

    Shapes: inputs [batch, ...] (or [members, batch, ...]) -> [members, batch, ...].

    Raises:
        SpecError: an unknown way.
        WhitError: no members, or members that the way cannot run.
    """

    def __init__(
        self, members: Sequence[nn.Module], *, way: str = "one_by_one", own_inputs: bool = False
    ) -> None:
        """Hold the members; check that the way can run them."""
        super().__init__()
        if not members:
            raise WhitError("A Group was given no members; give at least one module.")
        self.members = nn.ModuleList(members)
        self.own_inputs = own_inputs
        self.way = way

    @property
    def way(self) -> str:
        """How the members run: "one_by_one", "batched", "threads" or "auto"."""
        return self._way

    @way.setter
    def way(self, way: str) -> None:
        if way not in WAYS:
            raise SpecError(f"way was given {way!r}; expected one of {', '.join(WAYS)}.")
        if way == "batched":
            require_alike(list(self.members))
        if way == "threads":
            require_apart(list(self.members))
        self._way = way
        self.chosen: ChosenWay | None = None

    def __len__(self) -> int:
        return len(self.members)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the members' outputs, stacked."""
        self._check_inputs(inputs)
        learning = self.training and torch.is_grad_enabled()
        way = self.way
        if way in ("threads", "auto") and not (learning and threads_fit()):
            way = "one_by_one"
        if way == "auto":
            if self.chosen is None:
                self.chosen = self._measured(inputs)
            way = self.chosen.way
        members = list(self.members)
        if way == "batched":
            return self._batched(members, inputs)
        if way == "threads":
            return self._in_threads(members, inputs)
        return self._one_by_one(members, inputs)

    def extra_repr(self) -> str:
        """Show how the members run."""
        chosen = f", chosen={self.chosen.way!r}" if self.chosen else ""
        return f"way={self.way!r}{chosen}, own_inputs={self.own_inputs}"

    def _check_inputs(self, inputs: tuple[Tensor, ...]) -> None:
        if self.own_inputs and any(x.dim() == 0 or len(x) != len(self) for x in inputs):
            shapes = ", ".join(str(list(x.shape)) for x in inputs)
            raise WhitError(
                f"A Group of {len(self)} members with own_inputs=True was given inputs of shape "
                f"{shapes}; expected [{len(self)}, batch, ...]. Set own_inputs = False to send the "
                "same batch to all."
            )

    def _measured(self, inputs: tuple[Tensor, ...]) -> ChosenWay:
        def batched(members: Sequence[nn.Module], x: tuple[Tensor, ...]) -> Tensor:
            require_alike(members)
            return self._batched(members, x)

        def in_threads(members: Sequence[nn.Module], x: tuple[Tensor, ...]) -> Tensor:
            require_apart(members)
            return self._in_threads(members, x)

        ways: dict[str, Run] = {
            "one_by_one": self._one_by_one,
            "batched": batched,
            "threads": in_threads,
        }
        return fastest_way(list(self.members), inputs, ways)

    def _inputs_of(self, k: int, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(x[k] for x in inputs) if self.own_inputs else inputs

    def _one_by_one(self, members: Sequence[nn.Module], inputs: tuple[Tensor, ...]) -> Tensor:
        return torch.stack([m(*self._inputs_of(k, inputs)) for k, m in enumerate(members)])

    def _batched(self, members: Sequence[nn.Module], inputs: tuple[Tensor, ...]) -> Tensor:
        return run_batched(members, inputs, self.own_inputs)

    def _in_threads(self, members: Sequence[nn.Module], inputs: tuple[Tensor, ...]) -> Tensor:
        return run_in_threads(members, [self._inputs_of(k, inputs) for k in range(len(members))])
