"""Binary activations whose threshold follows the statistics of each sample and channel.

    threshold   T_nc = sum_k a_kc q_k,nc + b_c  (+ e_nc),      y = +1 where x >= T, else -1
    cubic       q = mean of x^3 over the map  ( = mu^3 + 3 mu var + skewness var^1.5 )
    plus        e = W2 relu(W1 q), so that channels see each other's statistics

After a batch norm the batch has mean 0 and variance 1, so q is what sets a sample apart. With
a = 0 and W2 = 0 the threshold is the learnt static offset b; such thresholds are packed as static
ones, which fold into what stands before them.

Lee, Kim, Park and Kim, "INSTA-BNN", 2022, arXiv 2204.07439. The form is our reconstruction, see the
card `insta_bnn.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from whit.errors import NotApplicable, SpecError
from whit.parts.straight_through import Gradient, check_sign, straight_through_sign

Statistic = Literal["cubic", "mean", "variance", "mean_variance"]
STATISTICS = ("cubic", "mean", "variance", "mean_variance")
FEWEST_HIDDEN = 8
# Beyond six standard deviations x^3 would outweigh all the rest of a map.
LIMIT = 6.0
_HALF = (torch.float16, torch.bfloat16)


def _mean(x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


def _cubic(x: Tensor) -> Tensor:
    x = x.clamp(-LIMIT, LIMIT)
    return _mean(x * x * x)


def _variance(x: Tensor) -> Tensor:
    mean = _mean(x)
    return _mean(x * x) - mean * mean


_FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], ...]] = {
    "cubic": (_cubic,),
    "mean": (_mean,),
    "variance": (_variance,),
    "mean_variance": (_mean, _variance),
}


def instance_statistics(x: Tensor, statistic: Statistic = "cubic") -> list[Tensor]:
    """Return statistics of each sample and channel over its map, in float32 at least.

    Args:
        x: [batch, channels, *map], with at least two values in a map.
        statistic: "cubic" (mean of x^3, with x limited to +-6), "mean", "variance" (E[x^2] - mu^2),
            or "mean_variance", both.

    Returns:
        One or two tensors [batch, channels, 1, ...].

    Raises:
        NotApplicable: x has no map, or a map of one value.
    """
    if x.dim() < 3:
        raise NotApplicable(
            f"Instance statistics were asked of values {list(x.shape)}: vectors have no map to "
            "take statistics over. Use a plain sign there."
        )
    if math.prod(x.shape[2:]) < 2:
        raise NotApplicable(
            f"Instance statistics were asked of maps {list(x.shape[2:])}: one value is its own "
            "mean, and its threshold would say nothing. Use a plain sign there."
        )
    x = x.float() if x.dtype in _HALF else x
    return [function(x) for function in _FUNCTIONS[statistic]]


class InstanceTerm(nn.Module):
    """Linear function of a sample's statistics: sum_k a_kc q_k,nc + b_c (+ W2 relu(W1 q)).

    Args:
        channels: >= 1.
        statistic: see `instance_statistics`.
        plus: add the term of all channels, from the first statistic; it starts at 0.
        reduction: its hidden units are channels / reduction, at least 8; >= 1.
        detach: statistics get no gradient.
        start: first value of every a.

    Shapes: [batch, channels, *map] -> [batch, channels, 1, ...].

    Raises:
        SpecError: an option is out of range.
    """

    def __init__(
        self,
        channels: int,
        statistic: Statistic = "cubic",
        plus: bool = False,
        reduction: int = 16,
        detach: bool = False,
        start: float = 0.0,
    ) -> None:
        """Make a, b and, for `plus`, two small matrices."""
        super().__init__()
        check_instance_options(statistic, reduction)
        self.statistic: Statistic = statistic
        self.detach = detach
        count = len(_FUNCTIONS[statistic])
        self.slope = nn.Parameter(torch.full((count, channels), float(start)))
        self.offset = nn.Parameter(torch.zeros(channels))
        self.squeeze: nn.Linear | None = None
        self.expand: nn.Linear | None = None
        if plus:
            hidden = max(FEWEST_HIDDEN, channels // reduction)
            self.squeeze = nn.Linear(channels, hidden, bias=False)
            self.expand = nn.Linear(hidden, channels, bias=False)
            nn.init.zeros_(self.expand.weight)
        self._static = False

    @property
    def is_static(self) -> bool:
        """Whether all weights of statistics are 0, so that only the offset is left."""
        zero = not bool(self.slope.any())
        return zero and (self.expand is None or not bool(self.expand.weight.any()))

    def train(self, mode: bool = True) -> InstanceTerm:
        """Set the mode; in evaluation mode, note whether an export may leave statistics out.

        The packer copies a model and calls `eval` right before it exports, where values of
        parameters cannot be asked for.
        """
        self._static = not mode and not self.slope.is_meta and self.is_static
        super().train(mode)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the term."""
        shape = (1, -1, *[1] * (x.dim() - 2))
        offset = self.offset.reshape(shape)
        if self._static and torch.compiler.is_exporting():
            return offset
        found = instance_statistics(x.detach() if self.detach else x, self.statistic)
        total = offset
        for slope, statistic in zip(self.slope, found, strict=True):
            total = total + slope.reshape(shape) * statistic
        if self.squeeze is not None and self.expand is not None:
            mixed = self.expand(torch.relu(self.squeeze(found[0].flatten(1))))
            total = total + mixed.reshape(*mixed.shape, *shape[2:])
        return total.to(x.dtype)

    def extra_repr(self) -> str:
        """Show the options."""
        return f"{self.slope.shape[1]}, statistic={self.statistic!r}, detach={self.detach}"


class InstanceThreshold(nn.Module):
    """Sign of x minus a threshold of its own for each sample and channel.

    The gradient passes inside the window of x - T, to x, to a, b and the matrices, and through the
    statistics to x.

    Args:
        channels: >= 1.
        statistic: see `instance_statistics`.
        plus: this, `reduction` and `detach`: see `InstanceTerm`.
        reduction: see there.
        detach: see there.
        window: the gradient passes where |x - T| <= window, > 0.
        gradient: "ste" or "approxsign", see `parts.straight_through`.

    Shapes: [batch, channels, *map] -> the same, -1 and +1.

    Raises:
        SpecError: an option is out of range.
        NotApplicable: (when called) x has no map, or a map of one value.
    """

    def __init__(
        self,
        channels: int,
        statistic: Statistic = "cubic",
        plus: bool = False,
        reduction: int = 16,
        detach: bool = False,
        window: float = 1.0,
        gradient: Gradient = "ste",
    ) -> None:
        """Start as a static threshold at 0."""
        super().__init__()
        check_sign(window, gradient)
        self.term = InstanceTerm(channels, statistic, plus, reduction, detach)
        self.window = window
        self.gradient: Gradient = gradient

    def forward(self, x: Tensor) -> Tensor:
        """Return the signs."""
        return straight_through_sign(x - self.term(x), self.window, self.gradient)

    def extra_repr(self) -> str:
        """Show the options of the sign."""
        return f"window={self.window}, gradient={self.gradient!r}"


class InstancePReLU(nn.Module):
    """PReLU between two shifts, each with a term of the sample's statistics.

        y = prelu(x - g; s) + z,   s starts at 1/4, g and z at 0

    With both terms static it is the RPReLU of ReActNet (Liu et al. 2020).

    Args:
        channels: >= 1.
        statistic: see `instance_statistics`.
        detach: statistics get no gradient.

    Shapes: [batch, channels, *map] -> the same.

    Raises:
        SpecError: an option is out of range.
        NotApplicable: (when called) x has no map, or a map of one value.
    """

    def __init__(self, channels: int, statistic: Statistic = "mean", detach: bool = False) -> None:
        """Start as a PReLU."""
        super().__init__()
        self.before = InstanceTerm(channels, statistic, detach=detach)
        self.after = InstanceTerm(channels, statistic, detach=detach)
        self.slope = nn.Parameter(torch.full((channels,), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        """Return the shifted PReLU."""
        before, after = self.before(x), self.after(x)
        result: Tensor = functional.prelu(x - before, self.slope) + after
        return result


def check_instance_options(statistic: object, reduction: object) -> None:
    """Check the options of an instance term.

    Raises:
        SpecError: one is out of range.
    """
    if statistic not in STATISTICS:
        raise SpecError(f"statistic was given {statistic!r}. Known: {', '.join(STATISTICS)}.")
    if isinstance(reduction, bool) or not isinstance(reduction, int) or reduction < 1:
        raise SpecError(f"reduction was given {reduction!r}; expected a whole number, 1 or more.")
