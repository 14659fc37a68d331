"""Recognise calls of activation functions, who makes them, and how often.

Every spelling counts: functions of `torch` and `torch.nn.functional`, methods of tensors, and all
of them in place.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from whit.errors import NoEffect, WhitError

RELU_LIKE = (
    "relu", "relu6", "leaky_relu", "prelu", "elu", "gelu", "silu", "hardswish", "hardtanh", "clamp",
)  # fmt: skip
GATE_LIKE = ("tanh", "sigmoid")
KINDS = (*RELU_LIKE, *GATE_LIKE)
_CLAMPS = ("clamp", "clip", "clamp_min")


def _functions() -> dict[Any, str]:
    """Return the kind of every spelling: function, method, and both in place."""
    found: dict[Any, str] = {}
    for name in (*KINDS, *_CLAMPS):
        for home in (torch, functional, Tensor, torch._C._nn):
            for spelling in (name, f"{name}_"):
                if hasattr(home, spelling):
                    found[getattr(home, spelling)] = "clamp" if name in _CLAMPS else name
    return found


_KIND_OF = _functions()


def kind_of_call(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Return the kind of an activation function as it is called; "" for any other call.

    Args:
        func: as `__torch_function__` gets it.
        args: by position; a clamp counts where its limits are 0 and none.
        kwargs: by name; calls with `out` do not count.
    """
    kind = _KIND_OF.get(func, "")
    if not kind or kwargs.get("out") is not None:
        return ""
    if kind == "clamp":
        low, high = (*args[1:3], None, None)[:2]
        low, high = kwargs.get("min", low), kwargs.get("max", high)
        low_is_zero = isinstance(low, int | float) and low == 0
        return kind if low_is_zero and high is None else ""
    return kind


def is_in_place(func: Any, kwargs: Mapping[str, Any]) -> bool:
    """Say whether a call of an activation function changes its argument."""
    # The functions of torch.nn.functional pass `inplace` on by name, however it was given.
    return str(func.__name__).endswith("_") or bool(kwargs.get("inplace", False))


def callers() -> Iterator[FrameType]:
    """Yield the frames of the callers, the nearest first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def calling_module(stop: CodeType | None = None) -> nn.Module | None:
    """Return the module whose code makes a call: the nearest caller whose `self` is a module.

    So a call inside an `nn.ReLU` is that module's, not that of the module around it.

    Args:
        stop: calls that this function makes, however indirectly, are nobody's.
    """
    for frame in callers():
        if frame.f_code is stop:
            return None
        module = frame.f_locals.get("self")
        if isinstance(module, nn.Module):
            return module
    return None


def runs_own_code(module: nn.Module) -> bool:
    """Say whether somebody's own code runs in a module: not torch's, nor that of our parts.

    Scripted and fx-traced modules do not count: their code is torch's own, as are their copies.
    """
    if isinstance(module, torch.jit.ScriptModule | torch.fx.GraphModule):
        return False
    code: Any = vars(module).get("forward") or type(module).forward
    if code is nn.Module.forward:  # other methods of it may be called
        code = type(module)
    home = str(getattr(code, "__module__", ""))
    return home.split(".")[0] != "torch" and not home.startswith("whit.parts.")


@dataclass(frozen=True)
class ActivationUse:
    """Calls of one kind of activation function that one module makes in a forward call.

    Attributes:
        path: of the module, "" for the model itself.
        kind: one of `KINDS`; "clamp" is `clamp(min=0)`.
        times: how often, >= 1.
    """

    path: str
    kind: str
    times: int


def activation_uses(model: nn.Module, inputs: Sequence[Any]) -> list[ActivationUse]:
    """Run one forward call and return the calls of activation functions in somebody's own code.

    It runs in evaluation mode, without gradients; flags, buffers and the random state are as before
    afterwards. Calls that `swap_functional_activations` swaps already are not among them.

    Args:
        model: any module.
        inputs: what it is called with: `model(*inputs)`.

    Raises:
        WhitError: the model fails on the inputs.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    with _undisturbed(model), _Seen() as seen:
        try:
            model(*inputs)
        except Exception as error:  # whatever the user's own forward raises
            first = str(error).strip().splitlines()[:1]
            raise WhitError(
                f"The model fails on the example ({type(error).__name__}: "
                f"{first[0] if first else 'no message'}). Give an example that it takes: a tensor "
                "[batch, ...], or a tuple of its inputs."
            ) from error
    found = Counter((paths.get(number, ""), kind) for number, kind in seen.calls)
    return [ActivationUse(path, kind, times) for (path, kind), times in found.items()]


def require_uses(
    model: nn.Module, inputs: Sequence[Any], kinds: Collection[str]
) -> list[ActivationUse]:
    """Return the calls of these kinds in a forward call.

    Args:
        model: any module, without activation modules that could be swapped instead.
        inputs: what it is called with: `model(*inputs)`.
        kinds: of `KINDS`.

    Raises:
        NoEffect: there is none; the message names the calls of other kinds.
        WhitError: the model fails on the inputs.
    """
    uses = activation_uses(model, inputs)
    found = [use for use in uses if use.kind in kinds]
    if found:
        return found
    names = ["clamp(min=0)" if kind == "clamp" else kind for kind in kinds]
    message = (
        "The model has no activation to swap: it has no activation module, and its own "
        f"forward calls none of {', '.join(names)} that is not swapped already."
    )
    if uses:
        others = {f"{use.kind} in '{use.path}'".removesuffix(" in ''") for use in uses}
        message += (
            f" It calls {', '.join(sorted(others))}, but that may be a gate or an output. Where it "
            "is an activation between layers, use a module such as nn.Tanh."
        )
    raise NoEffect(message)


class _Seen(TorchFunctionMode):
    """Notes who calls which activation function, by `id` of the module."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, str]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        kind = kind_of_call(func, args, kwargs)
        module = calling_module() if kind else None
        if module is not None and runs_own_code(module):
            self.calls.append((id(module), kind))
        return func(*args, **kwargs)


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode without gradients, and back as it was."""
    flags = {module: module.training for module in model.modules()}
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in flags
        for name, buffer in module.named_buffers(recurse=False)
        if not is_lazy(buffer)
    ]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            model.eval()
            yield
    finally:
        for module, training in flags.items():
            module.training = training
        with torch.no_grad():
            for module, name, buffer, before in buffers:
                setattr(module, name, buffer.copy_(before))
