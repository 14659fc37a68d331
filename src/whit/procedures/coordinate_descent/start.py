"""Where a discrete layer starts: at random values, or at those nearest to a trained weight."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeGuard

import torch
from torch import Tensor

from whit.core.options import is_number, nearest, require
from whit.errors import NotApplicable, SpecError
from whit.parts.level_counts import are_chosen
from whit.parts.levels import MOST_VALUES, check_values, eight_bits, fit_scale, nearest_level
from whit.procedures.coordinate_descent.finite import require_finite
from whit.procedures.coordinate_descent.own_levels import distinct, own_levels
from whit.procedures.coordinate_descent.treatable import Discretisable

STARTS = ("random", "from_model")
BIASES = ("auto", "discrete", "keep")
SCALE_RULES = ("layer", "channel")
# Scales: sums of +-1 grow with the root of their number; logits need room to be certain.
HIDDEN_GAIN = 1.0
LOGIT_GAIN = 4.0


@dataclass(frozen=True)
class Start:
    """Values, indices and scales of a layer; see `DiscreteLayer`."""

    values: Tensor
    weights: Tensor
    scale: float
    channel_scale: Tensor | None = None
    biases: Tensor | None = None

    def row_scales(self) -> Tensor:
        """Return the scale of each output channel, float64 [out]."""
        if self.channel_scale is not None:
            return self.scale * self.channel_scale
        return torch.full((len(self.weights),), self.scale, dtype=torch.float64)


def default_scale(weight: Tensor, values: Tensor, last: bool) -> float:
    """Return 1 / sqrt(fan in), for the last layer (its outputs are logits) 4 / sqrt(fan in).

    Divided by the largest of the values, so that sets of more levels are finer, not wider; rounded
    to 8 significant bits, as are fitted scales: sums of signs are then exact in any order, so that
    a sum of exactly 0 is 0 in the scorer, in the model and in the packed network.
    """
    gain = LOGIT_GAIN if last else HIDDEN_GAIN
    scale = gain / (math.sqrt(weight[0].numel()) * float(values.abs().max()))
    return float(eight_bits(torch.tensor(scale)))


def random_index(shape: torch.Size, values: Tensor, generator: torch.Generator) -> Tensor:
    """Return uniformly drawn indices into the values, uint8."""
    return torch.randint(len(values), shape, generator=generator).to(torch.uint8)


def projected(weight: Tensor, values: Tensor, per_channel: bool, scale: float | None) -> Start:
    """Return the nearest values to a weight, at a fitted scale or at a given one.

    Args:
        weight: float64 [out, ...].
        values: float64 [k], sorted.
        per_channel: fit one scale for each output channel.
        scale: > 0, or None to fit one.
    """
    if scale is not None:
        return Start(values, nearest_level(weight / scale, values).to(torch.uint8), scale)
    fitted = fit_scale(weight, values, per_channel)
    fitted = torch.where(fitted > 0, eight_bits(fitted), 1.0)  # a channel of zeros takes any scale
    index = nearest_level(weight / fitted, values).to(torch.uint8)
    if not per_channel:
        return Start(values, index, float(fitted))
    return Start(values, index, 1.0, fitted.reshape(-1))


@dataclass(frozen=True)
class StartRule:
    """How every layer of a network starts; see `DiscreteNetwork.from_model`."""

    values: object
    scales: float | str | Mapping[str, float] | None
    biases: str
    start: str
    generator: torch.Generator

    def check(self, paths: list[str]) -> None:
        """Refuse options that are unknown, name no layer, or do not fit the start.

        Args:
            paths: of the layers.

        Raises:
            SpecError: such an option.
        """
        self.check_alone()
        for name, option in (("values", self.values), ("scales", self.scales)):
            unknown = [key for key in option if key not in paths] if _is_mapping(option) else []
            if unknown:
                raise SpecError(f"{name} names {unknown}, which are no layers. Known: {paths}.")

    def check_alone(self) -> None:
        """Refuse options that make no sense for any model.

        Raises:
            SpecError: such an option.
        """
        for name, given, known in (("start", self.start, STARTS), ("biases", self.biases, BIASES)):
            require(given in known, f"{name} was given {given!r}. {nearest(str(given), known)}")
        for values in self.values.values() if _is_mapping(self.values) else [self.values]:
            if isinstance(values, str) and values == "own":
                self._require_model()
            elif not (isinstance(values, str) and values == "auto"):
                check_values(values)
        if isinstance(self.scales, Mapping):
            for path, scale in self.scales.items():
                _check_scale(scale, f"The scale of layer '{path}'")
        elif self.scales is not None and not isinstance(self.scales, str):
            _check_scale(self.scales, "scales")
        if isinstance(self.scales, str):
            require(
                self.scales in SCALE_RULES and self.start == "from_model",
                f"scales was given {self.scales!r} at the start '{self.start}'; expected a number "
                "above 0, one by path, or, from a model, 'layer' or 'channel'.",
            )

    def start_of(self, path: str, module: Discretisable, last: bool) -> Start:
        """Return the start of one layer.

        Args:
            path: of the layer.
            module: the layer.
            last: whether its outputs are the logits.
        """
        weight = module.weight.detach().cpu().double().contiguous()
        if self.start == "from_model":
            require_finite(weight, f"weight of layer '{path}'")
        if module.bias is not None and (self.start == "from_model" or self.biases == "keep"):
            require_finite(module.bias.detach(), f"bias of layer '{path}'")
        given = self.values
        wanted = given.get(path, "ternary") if _is_mapping(given) else given
        own = None
        if isinstance(wanted, str) and wanted in ("own", "auto"):
            own = None if self.start == "random" else _own(weight, path, module, wanted == "own")
            wanted = "ternary"
        start = own or self._start(weight, check_values(wanted), path, last)
        _require_representable(start, path, module.weight.dtype)
        if module.bias is None or not self._discrete_bias(own is not None):
            return start
        bias = module.bias.detach().cpu().double() / start.row_scales()
        return replace(start, biases=self._index(bias, start.values))

    def _require_model(self) -> None:
        require(
            self.start == "from_model",
            "values='own' takes the values of a trained model: it needs start='from_model'.",
        )

    def _start(self, weight: Tensor, numbers: tuple[float, ...], path: str, last: bool) -> Start:
        values = torch.tensor(numbers, dtype=torch.float64)
        scale = self._given_scale(path)
        if self.start == "random":
            index = random_index(weight.shape, values, self.generator)
            return Start(values, index, scale or default_scale(weight, values, last))
        return projected(weight, values, self.scales == "channel", scale)

    def _given_scale(self, path: str) -> float | None:
        given = self.scales.get(path) if isinstance(self.scales, Mapping) else self.scales
        if given is None or isinstance(given, str):
            return None
        return float(given)

    def _discrete_bias(self, own: bool) -> bool:
        return self.biases == "discrete" or (self.biases == "auto" and not own)

    def _index(self, target: Tensor, values: Tensor) -> Tensor:
        if self.start == "random":
            return random_index(target.shape, values, self.generator)
        return nearest_level(target, values).to(torch.uint8)


def _check_scale(given: object, name: str) -> None:
    require(
        is_number(given) and isinstance(given, int | float) and given > 0,
        f"{name} was given {given!r}; expected a number above 0.",
    )


def _own(weight: Tensor, path: str, module: Discretisable, asked: bool) -> Start | None:
    """Return the few values that a layer holds already; None where they are to be chosen anew."""
    chosen = are_chosen(module)
    found = own_levels(weight, chosen, planes=hasattr(module, "stored_as"))
    if found is not None:
        return Start(found.values, found.index, found.scale, found.channel_scale)
    if asked:
        raise NotApplicable(
            f"values='own' asks for the few values that layer '{path}' holds already, 2 to "
            f"{MOST_VALUES}, and its {weight.numel():,} weights hold {len(distinct(weight)):,} "
            "different ones. Give the values, such as values='ternary', or leave the layer out "
            "with skip."
        )
    if chosen:
        raise NotApplicable(
            f"A technique before chose the values of layer '{path}', more than the {MOST_VALUES} "
            "among which coordinate descent can choose a weight. Let that technique use fewer bits "
            "(precision_batching up to 7, weight_sharing up to 7), or give the values to choose "
            "anew, such as values='ternary'."
        )
    return None


def _require_representable(start: Start, path: str, dtype: torch.dtype) -> None:
    """Refuse a scale at which values overflow, or become 0, in the model's type of number."""
    for scale in (float(start.row_scales().min()), float(start.row_scales().max())):
        real = (scale * start.values).to(dtype)
        alive = torch.equal(real != 0, start.values != 0)
        require(
            bool(real.isfinite().all()) and alive,
            f"At the scale {scale:.3g} the weights of layer '{path}' would be {real.tolist()[:8]} "
            f"in {str(dtype).removeprefix('torch.')}; give a scale or values nearer to 1.",
        )


def _is_mapping(value: object) -> TypeGuard[Mapping[str, object]]:
    return isinstance(value, Mapping)
