"""Where the first value that is not finite arose, once training has diverged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from whit.parts.group import Group


def where_not_finite(model: nn.Module, inputs: tuple[Tensor, ...]) -> str:
    """Say which input, gradient, weight or module's output first was infinite or not a number.

    Called between the forward and the backward pass of the step that failed, or after an epoch's
    last step: the gradients are those of the last complete step.

    Args:
        model: in training mode, as the failing step found it.
        inputs: of the step's batch.
    """
    if not all(map(is_finite, inputs)):
        return "the input of the model; look at prepare_data and the augmentation"
    # Backwards: a gradient that is not finite spoils those of the layers before it.
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not is_finite(parameter.grad):
            return f"the gradient of '{plain_name(name)}' in the step before"
    for name, parameter in model.named_parameters():
        if not is_finite(parameter):
            return f"the values of '{plain_name(name)}' after the step before"
    return _first_output(model, inputs) or (
        "the loss itself, from finite outputs; look at the task's loss and the technique's hooks"
    )


def is_finite(tensor: Tensor) -> bool:
    """Say whether all values are finite; whole numbers always are."""
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def plain_name(name: str) -> str:
    """Return a parameter's name as its owner knows it, without the parametrisation's parts."""
    return name.replace(".parametrizations.", ".").removesuffix(".original")


def watchable_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield (path, module) whose outputs can be looked at.

    Members of a batched group run as one computation, in which no member's values can be read.
    """
    closed: list[str] = []
    for path, module in model.named_modules():
        if any(path.startswith(prefix) for prefix in closed):
            continue
        yield path, module
        if isinstance(module, Group) and module.way == "batched":
            closed.append(f"{path}." if path else "")


def _first_output(model: nn.Module, inputs: tuple[Tensor, ...]) -> str:
    found: list[str] = []

    def watch(path: str) -> Callable[[nn.Module, Any, object], None]:
        def look(module: nn.Module, _: Any, output: object) -> None:
            parts = output if isinstance(output, (tuple, list)) else (output,)
            if not all(is_finite(t) for t in parts if isinstance(t, Tensor)):
                place = f"module '{path}'" if path else "the model"
                found.append(f"the output of {place} ({type(module).__name__})")

        return look

    handles = [m.register_forward_hook(watch(path)) for path, m in watchable_modules(model)]
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""
