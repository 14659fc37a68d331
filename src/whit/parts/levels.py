"""Weights from a finite set of values: one mechanism for binary, ternary, k-level and other sets.

    w_q = s V[j],   j = the level nearest to w / s, or a random neighbour of w / s
    dL/dw = s dL/dw_q + dL/ds ds/dw

V is a sorted set of values and s a scale, which is 1, or one number for the layer or for each
output channel. The gradient of V[j] goes straight to w, and so comes times s, as in XNOR-Net:
optimisers that normalise gradients (Adam) do not see the factor, plain SGD needs a larger rate.

`Levels` finds the level of each weight anew in every forward call; `CodeBook` keeps each weight at
its place in the book and trains the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from whit.errors import SpecError
from whit.parts.straight_through import straight_through
from whit.parts.surgery import WEIGHTED, WeightedLayer, weight_parametrizations

Scale = Literal["none", "layer", "channel"]
Rounding = Literal["nearest", "stochastic"]
SCALES = ("none", "layer", "channel")
ROUNDINGS = ("nearest", "stochastic")
VALUE_SETS: dict[str, tuple[float, ...]] = {
    "binary": (-1.0, 1.0),
    "ternary": (-1.0, 0.0, 1.0),
    "powers_of_two": (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0),
}
MOST_VALUES = 256
# Steps of the scale's alternating least squares; the third changes it by less than one per cent.
SCALE_STEPS = 3


def check_values(values: object) -> tuple[float, ...]:
    """Return a set of values as sorted floats.

    Args:
        values: a name of `VALUE_SETS`; a whole number k from 2 to 256, for k evenly spaced whole
            numbers around 0 (4 gives -3, -1, 1, 3; 5 gives -2 to 2); or 2 to 256 different finite
            numbers in ascending order.

    Raises:
        SpecError: anything else, with what is wrong about it.
    """
    if isinstance(values, str):
        if values not in VALUE_SETS:
            raise SpecError(
                f"There is no set of values '{values}'. Known: {', '.join(VALUE_SETS)}; or give a "
                "number of levels, or the values themselves: [-1, 0, 1]."
            )
        return VALUE_SETS[values]
    if isinstance(values, int) and not isinstance(values, bool):
        if not 2 <= values <= MOST_VALUES:
            raise SpecError(f"{values} levels were asked for; expected 2 to {MOST_VALUES}.")
        step = 2 if values % 2 == 0 else 1
        return tuple(float(step * j - step * (values - 1) // 2) for j in range(values))
    return _checked_sequence(values)


def _checked_sequence(values: object) -> tuple[float, ...]:
    shown = repr(values)[:80]
    if isinstance(values, Tensor):
        values = values.tolist()
    if not isinstance(values, Sequence) or not all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in values
    ):
        raise SpecError(
            f"values was given {shown}; expected numbers in ascending order, such as [-1, 0, 1], a "
            f"name ({', '.join(VALUE_SETS)}), or a number of levels."
        )
    numbers = tuple(map(float, values))
    if not 2 <= len(numbers) <= MOST_VALUES:
        count = "no value" if not numbers else "one value" if len(numbers) == 1 else "too many"
        raise SpecError(
            f"values was given {shown}: {count}. A weight chooses between 2 to {MOST_VALUES} of "
            "them."
        )
    singles = torch.tensor(numbers, dtype=torch.float32)
    if not bool(singles.isfinite().all()) or not bool((singles * singles).isfinite().all()):
        raise SpecError(
            f"values was given {shown}; expected finite numbers, with squares in range of float32."
        )
    if len(set(singles.tolist())) < len(numbers):
        raise SpecError(
            f"values was given {shown}, where a value occurs twice in float32; give each once."
        )
    if list(numbers) != sorted(numbers):
        order = ", ".join(f"{v:g}" for v in sorted(numbers)[:12])
        raise SpecError(f"values was given {shown}, not in ascending order. Write [{order}].")
    return numbers


def nearest_level(x: Tensor, values: Tensor) -> Tensor:
    """Return the index of the value nearest to each x; between two of them, the upper one.

    Shapes: x any, values sorted [k] -> int64 of the shape of x. NaN gives 0.
    """
    middles = (values[1:] + values[:-1]) / 2
    index = (x >= middles[0]).to(torch.int64)
    if len(middles) <= 8:  # few comparisons cost less than a search
        for middle in middles[1:]:
            index += x >= middle
        return index
    by_division = _nearest_on_a_grid(x, values, middles)
    if by_division is not None:
        return by_division
    return torch.where(x.isnan(), 0, torch.bucketize(x.contiguous(), middles, right=True))


def _nearest_on_a_grid(x: Tensor, values: Tensor, middles: Tensor) -> Tensor | None:
    """Return the indices for evenly spaced values by division, a few times faster than a search.

    None where the middles of two values are not exactly those of the grid.
    """
    first, step, last = values[0], values[1] - values[0], len(values) - 1
    places = torch.arange(last, dtype=x.dtype, device=x.device) + 0.5
    if x.dtype not in (torch.float32, torch.float64):
        return None
    if not torch.equal(places * step + first, middles):
        return None
    index = ((x - first) / step + 0.5).floor_().clamp_(0, last)
    # The division rounds, so it may miss by one; the middles themselves decide.
    above = x >= (index + 0.5) * step + first
    below = x < (index - 0.5) * step + first
    return (
        index.add_(above).sub_(below.to(x.dtype)).clamp_(0, last).nan_to_num_(0.0).to(torch.int64)
    )


def stochastic_level(x: Tensor, values: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return one of the two values around each x, by chance, so that the mean of many is x.

    For {-1, 1} this is the stochastic binarisation of BinaryConnect, +1 with probability (x + 1) /
    2; for {-1, 0, 1} it is floor(x + u). Outside of the range of values, the end.

    Shapes: x any, values sorted [k] -> int64 of the shape of x.

    Args:
        x: where to round.
        values: sorted, different.
        generator: of the random numbers; None for torch's own.
    """
    inside = x.clamp(float(values[0]), float(values[-1]))
    lower = torch.bucketize(inside.contiguous(), values, right=True) - 1
    lower = lower.clamp(0, len(values) - 2)
    low, high = values[lower], values[lower + 1]
    chance = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return lower + (chance * (high - low) < inside - low)


def fit_scale(weight: Tensor, values: Tensor, per_channel: bool = False) -> Tensor:
    """Return the scale s for which s V[j] with the nearest levels j is close to the weight.

    Alternating least squares: s = <w, q> / <q, q> with q = V[j(w / s)]. For {-1, 1} that is mean
    |w|, as in XNOR-Net; for {-1, 0, 1} it comes within a few per cent of Ternary Weight Networks.
    The levels are held fixed in the gradient. A weight with NaN gives NaN.

    Shapes: weight [out, ...], values sorted [k] -> [], or [out, 1, ...] per channel; > 0, for a
    weight of zeros what suits a new layer.

    Args:
        weight: to be rounded.
        values: sorted, different; not all of them 0.
        per_channel: one scale for each entry of the first axis.
    """
    rows = weight.flatten(1) if per_channel else weight.reshape(1, -1)
    with torch.no_grad():
        # One level each way needs no start: its index does not depend on the scale.
        steps = 1 if len(values) == 2 and values[0] == -values[1] else SCALE_STEPS
        spread = values.square().mean().sqrt()
        start = rows.square().mean(1, keepdim=True).sqrt() / spread
        # Zeros need a scale too, or no gradient would ever move them. NaN stays: it must be seen.
        start = torch.where(start == 0, weight[0].numel() ** -0.5 / spread, start)
        scale = start
        for _ in range(steps):
            levels = values[nearest_level(rows / _positive(scale), values)]
            power = levels.square().mean(1, keepdim=True)
            best = (rows * levels).mean(1, keepdim=True) / power
            scale = torch.where((power > 0) & (best > 0), best, start)
        found = power > 0
    best = (rows * levels).mean(1, keepdim=True) / torch.where(found, power, 1.0)
    fitted = torch.where(found & (best > 0), best, start)
    return fitted.reshape(-1, *[1] * (weight.dim() - 1)) if per_channel else fitted.reshape(())


def _positive(scale: Tensor) -> Tensor:
    return torch.where(scale > 0, scale, 1.0)


def eight_bits(scale: Tensor) -> Tensor:
    """Round to 8 significant bits, with the gradient of the unrounded scale.

    Sums of up to 2^16 such terms are exact in float32 in any order, so a packed network, which
    sums integers and scales once, gives the same bits as the trained one.
    """
    return scale.detach().to(torch.bfloat16).to(scale.dtype) + (scale - scale.detach())


def are_whole(values: Sequence[float]) -> bool:
    """Say whether values are whole numbers, which the packed file can scale channel by channel."""
    return all(v == int(v) for v in values)


def spread_latent(weight: Tensor, values: Tensor) -> None:
    """Divide latent weights by their fitted scale, in place, so that they spread over the values.

    For a set without a scale: as a network starts, most weights would round to the same value.
    """
    with torch.no_grad():
        weight.div_(fit_scale(weight, values))


class Levels(nn.Module):
    """Parametrisation w -> s V[level of w / s], with the gradient straight through.

    Args:
        values: of the set, as `check_values` takes them.
        scale: "none" (s = 1), "layer" or "channel" (`fit_scale`, rounded to 8 significant bits; its
            gradient reaches w too).
        rounding: "nearest", or "stochastic": in training mode a random neighbour, drawn anew in
            every forward call; in evaluation mode the nearest.

    Raises:
        SpecError: an option is out of range.
    """

    def __init__(
        self, values: object = "ternary", scale: Scale = "none", rounding: Rounding = "nearest"
    ) -> None:
        """Check and keep the set."""
        super().__init__()
        if scale not in SCALES:
            raise SpecError(f"scale was given {scale!r}. Known: {', '.join(SCALES)}.")
        if rounding not in ROUNDINGS:
            raise SpecError(f"rounding was given {rounding!r}. Known: {', '.join(ROUNDINGS)}.")
        # No buffer: torch.func.vmap would give each member of a group its own.
        self.values = torch.tensor(check_values(values))
        self.scale = scale
        self.rounding = rounding

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with every entry at one of the values."""
        values = self.values.to(weight)
        if self.scale == "none":
            found = self._at_levels(weight, weight.detach(), values)
            return torch.where(weight.isnan(), weight, found)
        scale = eight_bits(fit_scale(weight, values, self.scale == "channel"))
        scaled = weight.detach() / _positive(scale.detach())
        return self._at_levels(weight, scaled, values) * scale

    def _at_levels(self, weight: Tensor, scaled: Tensor, values: Tensor) -> Tensor:
        if self.rounding == "stochastic" and self.training:
            index = stochastic_level(scaled, values)
        else:
            index = nearest_level(scaled, values)
        return straight_through(weight, values[index])

    def extra_repr(self) -> str:
        """Show the options."""
        shown = ", ".join(f"{v:g}" for v in self.values[:9].tolist())
        more = ", ..." if len(self.values) > 9 else ""
        return f"[{shown}{more}], scale={self.scale!r}, rounding={self.rounding!r}"


class CodeBook(nn.Module):
    """Parametrisation w -> book[place]: weights share trained values, each keeps its place.

    The gradient of a value is the sum of the gradients of its weights. Weights without a place
    (-1) are 0 and stay 0: pruned weights take part in no cluster.

    Args:
        book: values [k], trained.
        place: of each weight in the book, -1 for none; int64 of the weight's shape.
    """

    place: Tensor

    def __init__(self, book: Tensor, place: Tensor) -> None:
        """Keep book and places."""
        super().__init__()
        self.book = nn.Parameter(book.detach().clone())
        self.register_buffer("place", place)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the shared values; the latent weight takes no part."""
        return torch.where(self.place < 0, 0.0, self.book[self.place.clamp_min(0)])


def find_levels(layer: nn.Module) -> Levels | None:
    """Return the levels on a layer's weight, or None."""
    for parametrization in weight_parametrizations(layer):
        if isinstance(parametrization, Levels):
            return parametrization
    return None


def latent_limit(model: nn.Module) -> float:
    """Return where latent weights are to be clipped: at 1, or at the largest value if no scale."""
    limits = [1.0]
    for _, layer in leveled_layers(model):
        levels = find_levels(layer)
        if levels is not None and levels.scale == "none":
            limits.append(float(levels.values.abs().max()))
    return max(limits)


def leveled_layers(model: nn.Module) -> list[tuple[str, WeightedLayer]]:
    """Return (path, module) of the layers whose weight carries `Levels`."""
    return [
        (path, m)
        for path, m in model.named_modules()
        if isinstance(m, WEIGHTED) and find_levels(m) is not None
    ]


def add_levels(layer: nn.Module, levels: Levels) -> None:
    """Put levels on a layer's weight, after what is there."""
    parametrize.register_parametrization(layer, "weight", levels)
