"""How the loss of each sample changes when the pre-activation of a hidden unit shifts.

Cross-entropy. Keep for hidden unit i and each weight w that it has in the next layer the softmax
mass S_w of the outputs that it reaches with it. A change dh of its activation changes the loss of a
sample with target y by

    F = log sum_w S_w exp(w dh) - w_y dh

which costs as much as the number of different weights, not of outputs. For mse,
F = (2 dh <w, r> + dh^2 <w, w>) / outputs with the residuals r.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from whit.procedures.coordinate_descent.two_layer import Rows, TwoLayer, Weights

# Longer blocks of samples are scored in tiles, which bounds memory.
TILE_SAMPLES = 8192
LARGEST_EXPONENT = 30.0


class UnitChanges:
    """F of one group of hidden units at some samples, for any shift of the pre-activations.

    Args:
        network: loaded with samples.
        rows: some of its samples.
        group: number of the group.
        softmax: [outputs, samples], of the logits.

    What `at` returns, and all that lies here, is overwritten by the next `UnitChanges` of the
    network: fresh memory for arrays of this size costs more than the arithmetic.
    """

    def __init__(self, network: TwoLayer, rows: Rows, group: int, softmax: Tensor) -> None:
        """Collect masses and target weights."""
        self.activation, self.mse = network.activation, network.criterion == "mse"
        self.scratch, self.results = network.scratch, 0
        self.pre, self.hidden = rows.pre[group], rows.hidden[group]
        weight = network.second_columns(network.groups[group])  # [outputs, units]
        self.terms: list[tuple[float | Tensor, Tensor]] = []
        if self.mse:
            residual = rows.logits - rows.target
            self.slope = (residual.t() @ weight).mul_(2 / len(weight))
            self.curve = weight.square().mean(0)
            return
        self.slope = self.scratch.like("slope", self.pre)
        torch.index_select(weight, 0, rows.target, out=self.slope)
        self.constant = weight.new_zeros(len(rows.inputs), 1)
        transposed = softmax.t()
        terms = _terms(network.second, network.groups[group], weight)
        for number, (real, of_outputs) in enumerate(terms):
            mass = self.scratch.like(f"mass {number}", self.pre)
            torch.mm(transposed, of_outputs, out=mass)
            if isinstance(real, float) and real == 0:
                self.constant = mass
            else:
                self.terms.append((real, mass))
        self.largest = float(weight.abs().max())

    def at(self, shift: float | Tensor) -> Tensor:
        """Return F for a shift of the pre-activations, [samples, units]; 0 where nothing changes.

        Args:
            shift: a number, or [units].
        """
        out = self.scratch.like(f"result {self.results}", self.pre)
        self.results += 1
        for begin in range(0, len(out), TILE_SAMPLES):
            tile = slice(begin, begin + TILE_SAMPLES)
            self.of_tile(tile, shift, out[tile])
        return out

    def of_tile(
        self, chosen: slice | Tensor, shift: float | Tensor, out: Tensor | None = None
    ) -> Tensor:
        """Return F at some of the samples.

        Args:
            chosen: which samples; an index may repeat.
            shift: a number, [units] or [chosen, units].
            out: [chosen, units], where to put it; None for a new tensor.
        """
        pre = self.pre[chosen]
        shifted = torch.add(pre, shift, out=self.scratch.like("shifted", pre))
        # The argument is our own, so what comes back may be changed in place.
        if self.activation is torch.relu:
            change = shifted.relu_().sub_(self.hidden[chosen])
        else:
            change = self.activation(shifted).sub_(self.hidden[chosen])
        out = torch.empty_like(change) if out is None else out
        if self.mse:
            torch.addcmul(self.slope[chosen], change, self.curve, out=out)
            return out.mul_(change)
        low, high = torch.aminmax(change)
        if self.largest * max(-float(low), float(high)) > LARGEST_EXPONENT:
            return out.copy_(self._safe(chosen, change))
        # One fused pass an operator: this is where most of the time of a scoring goes.
        total = self.constant[chosen].expand_as(change)
        powers: dict[float, Tensor] = {}
        for number, (real, mass) in enumerate(self.terms):
            if isinstance(real, float) and -real in powers:
                total = torch.addcdiv(total, mass[chosen], powers[-real], out=out)
                continue
            power = self.scratch.like(f"power {number}", change)
            torch.mul(change, real, out=power).exp_()
            if isinstance(real, float):
                powers[real] = power
            total = torch.addcmul(total, mass[chosen], power, out=out)
        if not self.terms:  # the outputs do not depend on these units
            return out.zero_()
        return out.log_().addcmul_(change, self.slope[chosen], value=-1)

    def _safe(self, chosen: slice | Tensor, change: Tensor) -> Tensor:
        """The same in logarithms, for changes whose exponentials overflow."""
        parts = [mass[chosen].log() + change * real for real, mass in self.terms]
        parts.append(self.constant[chosen].log().expand_as(change))
        return torch.logsumexp(torch.stack(parts), 0) - change * self.slope[chosen]


def _terms(
    second: Weights, units: Tensor, weight: Tensor
) -> Iterator[tuple[float | Tensor, Tensor]]:
    """Yield (weight, which outputs have it): one pair a value, or one an output with own scales."""
    if bool((second.scale == second.scale[0]).all()):
        index = second.index[:, units]
        for k, value in enumerate(second.values.tolist()):
            yield value * float(second.scale[0]), (index == k).to(weight.dtype)
        return
    for c, row in enumerate(weight):
        one = torch.zeros_like(weight)
        one[c] = 1
        yield row, one
