"""Swap activation functions that a model calls in `forward`, such as `torch.relu(self.conv(x))`.

`surgery.swap_modules` swaps activation modules; a call is no module. So every module that runs
somebody's own code gets a class whose `forward` runs the old one while a `TorchFunctionMode` is on,
and the mode sends the calls that this module makes itself through a replacement. Names,
state dict and repr stay, and so do deepcopy, pickle, `functional_call`, vmap and non-strict
`torch.export`. Forward hooks would do all that too, but a Ctrl-C in a forward call would leave
their mode on for good.

Not seen: what runs inside torch's own modules (`nn.LSTM`, `nn.TransformerEncoderLayer`), in
scripted or fx-traced ones, calls with `out=`, and methods other than `forward` that are called from
outside of any forward. `torch.compile` runs such a model in pieces; strict export refuses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial, wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from whit.errors import WhitError
from whit.parts.activation_functions import (
    KINDS,
    callers,
    calling_module,
    is_in_place,
    kind_of_call,
    runs_own_code,
)

_SWAP = "_functional_activations"


@dataclass(frozen=True)
class Replacement:
    """What runs in the place of an activation function.

    Args:
        apply: a new tensor of the same shape from a tensor; a module without parameters and
            buffers, or a function.
        in_place: for calls in place that need no gradient: writes what `apply` gives into its
            argument. By default the result of `apply` is copied, which the packer refuses.
    """

    apply: Callable[[Tensor], Tensor]
    in_place: Callable[[Tensor], object] | None = None


def swap_functional_activations(
    model: nn.Module, replacements: Mapping[str, Replacement]
) -> list[str]:
    """Send calls of activation functions through replacements, in place.

    A kind that was swapped before keeps its first replacement.

    Args:
        model: searched through all its descendants, itself included.
        replacements: by kind, see `KINDS`. `GATE_LIKE` kinds are rarely activations between layers:
            in attention, recurrent cells and outputs they make factors and probabilities.

    Returns:
        Paths of the modules whose calls are swapped from now on, if they make any.

    Raises:
        WhitError: an unknown kind, or a replacement with parameters or buffers, which no state dict
            would hold.
    """
    for kind, replacement in replacements.items():
        _check(kind, replacement)
    # Parametrisations compute weights: a relu in there is no activation.
    owners = [
        (path, module)
        for path, module in model.named_modules()
        if runs_own_code(module) and "parametrizations" not in path.split(".")
    ]
    for _, module in owners:
        swap = vars(module).get(_SWAP)
        if swap is None:
            # An attribute hides the method of the class, so the new class must call it.
            vars(module)[_SWAP] = _Swap(replacements, vars(module).pop("forward", None))
            module.__class__ = _swapping_class_of(module)
        else:
            swap.replacements = {**replacements, **swap.replacements}
    return [path for path, _ in owners]


def _check(kind: str, replacement: Replacement) -> None:
    if kind not in KINDS:
        raise WhitError(
            f"The kind of activation was given as {kind!r}; expected one of {', '.join(KINDS)}."
        )
    module = replacement.apply
    if isinstance(module, nn.Module) and [*module.parameters(), *module.buffers()]:
        raise WhitError(
            f"The replacement of {kind} is a {type(module).__name__} with parameters or buffers. "
            "Calls have no place to keep them; give one without, or use activation modules."
        )


class _Swap(TorchFunctionMode):
    """On while one module's forward runs; swaps the calls that the module itself makes."""

    def __init__(
        self, replacements: Mapping[str, Replacement], forward: Callable[..., Any] | None
    ) -> None:
        super().__init__()
        self.replacements = dict(replacements)
        self.forward = forward

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        replacement = self.replacements.get(kind_of_call(func, args, kwargs))
        caller = None if replacement is None else calling_module(stop=_replaced.__code__)
        if replacement is None or caller is None or _SWAP not in vars(caller):
            return func(*args, **kwargs)
        _refuse_in_checkpoint(func)
        x = args[0] if args else kwargs["input"]
        return _replaced(x, replacement, is_in_place(func, kwargs))


def _replaced(x: Tensor, replacement: Replacement, in_place: bool) -> Tensor:
    if not in_place:
        return replacement.apply(x)
    if replacement.in_place is not None and not torch.is_grad_enabled():
        replacement.in_place(x)
        return x
    return x.copy_(replacement.apply(x.clone()))  # the gradient needs the old values


def _refuse_in_checkpoint(func: Any) -> None:
    """Refuse a part of a forward that the backward pass would repeat without the mode.

    Raises:
        WhitError: the call stands in a function given to `torch.utils.checkpoint`.
    """
    for frame in callers():
        if frame.f_code is _run_swapping.__code__:
            return
        if frame.f_globals.get("__name__") == "torch.utils.checkpoint":
            raise WhitError(
                f"'{func.__name__}' is called in a function that torch.utils.checkpoint repeats in "
                "the backward pass, where it could not be swapped. Give whole modules to "
                "checkpoint, or use activation modules such as nn.ReLU."
            )


def _run_swapping(
    module: nn.Module, forward: Callable[..., Any], args: Any, kwargs: dict[str, Any]
) -> Any:
    swap = vars(module).get(_SWAP)
    if swap is None:  # made afresh by type(module)(...): an ordinary module of its old class
        return forward(module, *args, **kwargs)
    with swap:
        return (swap.forward or partial(forward, module))(*args, **kwargs)


def _swapping_class_of(module: nn.Module) -> Any:
    kind: Any = type(module)
    if not parametrize.is_parametrized(module):
        return _swapping(kind)
    # Removing a parametrisation goes back to the class below, so the new one must lie beneath it.
    return type(kind.__name__, (_swapping(kind.__bases__[0]),), dict(vars(kind)))


@cache
def _swapping(kind: Any) -> Any:
    """Return a subclass that runs the same forward under the swap of its instance."""

    @wraps(kind.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return _run_swapping(self, kind.forward, args, kwargs)

    def reduced(self: Any, protocol: Any) -> Any:
        return _new_instance, (kind,), self.__getstate__()

    same = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(kind.__name__, (kind,), {**same, "forward": forward, "__reduce_ex__": reduced})


def _new_instance(kind: Any) -> Any:
    made = _swapping(kind)
    return made.__new__(made)
