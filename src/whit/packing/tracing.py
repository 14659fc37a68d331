"""From a module to a torch.export graph: baked copy, eval mode, free batch axis."""

import copy
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from whit.errors import CannotPack
from whit.parts.surgery import bake


@dataclass(frozen=True)
class Traced:
    """An exported graph with the values of its parameters and buffers by placeholder name."""

    nodes: list[torch.fx.Node]
    constants: dict[str, Tensor]
    input_name: str


def baked_copy(model: nn.Module) -> nn.Module:
    """Return a deep copy in eval mode on the CPU whose parametrisations became plain weights.

    The model itself, its training flags and the random state stay as they are.
    """
    with torch.random.fork_rng(devices=[]):
        return bake(copy.deepcopy(model).cpu()).eval().requires_grad_(False)


class _FakeQuantisationInSteps(TorchFunctionMode):
    """Write fake quantisation, which torch.export does not know, as multiply, round and clamp."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        names = ("input", "scale", "zero_point", "quant_min", "quant_max")
        given = {**dict(zip(names, args, strict=False)), **(kwargs or {})}
        if func is torch.fake_quantize_per_tensor_affine:
            return _fake_quantize(**given)
        if func is torch.fake_quantize_per_channel_affine:
            x, scale, zero, axis, low, high = args
            shape = [-1 if k == axis % x.dim() else 1 for k in range(x.dim())]
            return _fake_quantize(x, scale.reshape(shape), zero.reshape(shape), low, high)
        return func(*args, **(kwargs or {}))


def _fake_quantize(
    input: Tensor, scale: Any, zero_point: Any, quant_min: int, quant_max: int
) -> Any:
    inverse = 1.0 / scale
    low, high = quant_min - zero_point, quant_max - zero_point
    return torch.clamp(torch.round(input * inverse), low, high) * scale


def trace(baked: nn.Module, example: Tensor) -> Traced:
    """Export a baked model with a free batch axis.

    Args:
        baked: from ``baked_copy``.
        example: [batch, ...], at least two samples.

    Raises:
        CannotPack: torch.export fails, fixes the batch size, or the output is not one tensor.
    """
    free = ({0: torch.export.Dim.DYNAMIC},)
    try:
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
            warnings.catch_warnings(),
            _FakeQuantisationInSteps(),
        ):
            warnings.simplefilter("ignore")
            exported = torch.export.export(baked, (example,), dynamic_shapes=free, strict=False)
    except Exception as error:  # torch.export raises many unrelated classes
        first = str(error).strip().splitlines()[:1]
        raise CannotPack(
            f"torch.export could not trace it with a free batch axis ({type(error).__name__}: "
            f"{first[0] if first else 'no message'}); make the forward call free of branches on "
            "values and of fixed batch sizes"
        ) from error
    return Traced(
        list(exported.graph_module.graph.nodes),
        _constants(exported),
        exported.graph_signature.user_inputs[0],
    )


def _constants(exported: Any) -> dict[str, Tensor]:
    signature = exported.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    found = {}
    for placeholder, name in names.items():
        source = exported.state_dict if name in exported.state_dict else exported.constants
        found[placeholder] = source[name].detach()
    for placeholder, name in signature.inputs_to_lifted_tensor_constants.items():
        found[placeholder] = exported.constants[name].detach()
    return found


def module_path(node: torch.fx.Node) -> str:
    """Return the dotted path of the innermost module that a graph node came from."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path = str(stack[-1][0]) if stack else ""
    return path.removeprefix("L['self'].").removeprefix("L['self']")
