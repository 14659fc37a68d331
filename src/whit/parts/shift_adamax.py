"""Shift-based AdaMax: an optimiser whose products are all with powers of two.

Courbariaux et al. 2016 (recalled, see the card `binarized_network.md`), at step t:

    m <- m + (1 - b1) (g - m),   v <- max(b2 v, |g|)
    w <- w - AP2(rate / (1 - b1^t)) m AP2(1 / v)

with rate = 2^-10, 1 - b1 = 2^-3, 1 - b2 = 2^-10, and AP2 the nearest power of two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from whit.errors import SpecError
from whit.parts.shift_batch_norm import power_of_two


class ShiftAdaMax(torch.optim.Optimizer):
    """AdaMax without multiplications, for one's own loop.

    Args:
        params: parameters, or groups of them.
        lr: rate, > 0.
        shares: 1 - b1 and 1 - b2, shares of the newest gradient, each above 0, up to 1.

    Raises:
        SpecError: an option is out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 2.0**-10,
        shares: tuple[float, float] = (2.0**-3, 2.0**-10),
    ) -> None:
        """Check the options."""
        if not 0 < lr < float("inf"):
            raise SpecError(f"lr was given {lr!r}; expected a finite number > 0.")
        if len(shares) != 2 or not all(0 < share <= 1 for share in shares):
            raise SpecError(f"shares was given {shares!r}; expected two numbers above 0, up to 1.")
        super().__init__(params, {"lr": lr, "shares": shares})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move the parameters; return what the closure gives, None without one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)
        return loss

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(parameter)
            state["largest"] = torch.zeros_like(parameter)
        state["step"] += 1
        first, second = group["shares"]
        mean, largest = state["mean"], state["largest"]
        mean.lerp_(gradient, first)
        torch.maximum(largest - second * largest, gradient.abs(), out=largest)
        rate = group["lr"] / (1 - (1 - first) ** state["step"])
        shift = power_of_two(torch.tensor(rate, dtype=parameter.dtype)).to(parameter.device)
        # Where every gradient was 0 so far there is nothing to divide by, and nothing to move.
        inverse = torch.where(largest > 0, power_of_two(1 / largest), 0.0)
        parameter.sub_(shift * mean * inverse)
