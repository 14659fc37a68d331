"""Which layers read activations, and which read nothing but signs: found by running the model.

A copy of the model runs once on an example. Its activations give values that nothing else gives,
and every linear and convolution layer looks for these in its input.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from whit.parts.activation_functions import RELU_LIKE, activation_uses
from whit.parts.functional_activations import Replacement, swap_functional_activations
from whit.parts.straight_through import Sign, binary_sign
from whit.parts.surgery import swap_modules, weighted_layers

# It and its negative stand for +1 and -1: exact in every float type, and no input hits them by
# chance.
MARK = 49152.0
Inputs = Sequence[Any]


def sign_readers(
    model: nn.Module, kinds: tuple[type[nn.Module], ...], inputs: Inputs | None
) -> list[nn.Module]:
    """Return the layers whose input is -1 and +1 only, once the activations are signs.

    A mean of signs, or a sum with something else, is no sign. Where nothing is seen, without an
    example or in layers that it does not reach, all but the first in registration order count.

    Args:
        model: its activations are still there; it is left as it is.
        kinds: of modules that become signs; calls of `torch.relu` and its likes do too.
        inputs: what the model is called with, `model(*inputs)`, or None.

    Raises:
        WhitError: the model fails on the inputs.
    """
    return _layers_reading(model, kinds, inputs, _marked_sign, _all_marked)


def activation_readers(
    model: nn.Module, kinds: tuple[type[nn.Module], ...], inputs: Inputs | None
) -> list[nn.Module]:
    """Return the layers in whose input an activation takes part, with no layer between the two.

    Pools, norms, sums and means may lie between. Arguments and what is not seen: as in
    `sign_readers`.

    Raises:
        WhitError: the model fails on the inputs.
    """
    return _layers_reading(model, kinds, inputs, _lost, _any_lost)


def _marked_sign(x: Tensor) -> Tensor:
    return binary_sign(x) * MARK


def _all_marked(x: Tensor) -> bool:
    return bool((x.abs() == MARK).all())


def _lost(x: Tensor) -> Tensor:
    return torch.full_like(x, torch.nan)  # goes through every norm, pool, sum and mean


def _any_lost(x: Tensor) -> bool:
    return bool(x.isnan().any())


class _Stand(nn.Module):
    """Gives what a function gives, in the place of an activation."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _layers_reading(
    model: nn.Module,
    kinds: tuple[type[nn.Module], ...],
    inputs: Inputs | None,
    activation: Callable[[Tensor], Tensor],
    looks_like_it: Callable[[Tensor], bool],
) -> list[nn.Module]:
    seen: dict[str, bool] = {}
    if inputs is not None:
        probe = copy.deepcopy(model)
        swap_modules(probe, lambda m: isinstance(m, (*kinds, Sign)), lambda _: _Stand(activation))
        swap_functional_activations(probe, dict.fromkeys(RELU_LIKE, Replacement(activation)))
        for path, layer in weighted_layers(probe):
            _watch(layer, path, seen, looks_like_it)
        activation_uses(probe, inputs)  # for its one undisturbed forward call
    return [
        layer
        for number, (path, layer) in enumerate(weighted_layers(model))
        if seen.get(path, number > 0)
    ]


def _watch(
    layer: nn.Module, path: str, seen: dict[str, bool], looks_like_it: Callable[[Tensor], bool]
) -> None:
    """Note what a layer reads in all its calls, and let no mark through it."""

    def forward(_: nn.Module, given: tuple[Tensor, ...], named: Any, output: Tensor) -> Tensor:
        x = given[0] if given else named["input"]
        seen[path] = seen.get(path, True) and looks_like_it(x)
        return output.nan_to_num()

    layer.register_forward_hook(forward, with_kwargs=True)
