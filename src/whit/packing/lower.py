"""From a traced graph to a chain of nodes.

Nodes without data are computed by torch itself; the others go to their handler.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from whit.errors import CannotPack
from whit.packing.aten_operators import HANDLERS, UNCHANGED
from whit.packing.graph_nodes import Node
from whit.packing.symbols import Call, Data, Step, materialize
from whit.packing.tracing import module_path, trace

aten = torch.ops.aten

# Tensors of one number in the shape of an activation: the number alone broadcasts the same way.
_FILLED = {"ones_like": 1.0, "zeros_like": 0.0}


def lower(baked: nn.Module, example: Tensor) -> list[Node]:
    """Lower a baked model to a chain of nodes.

    Args:
        baked: from `baked_copy`.
        example: [batch, ...] with at least two samples.

    Raises:
        CannotPack: an operator, a branch or a shape outside of the closed list.
    """
    traced = trace(baked, example)
    values: dict[str, Any] = dict(traced.constants)
    for node in traced.nodes:
        if node.op == "placeholder":
            if node.name == traced.input_name:
                shape = node.meta["val"].shape
                values[node.name] = Data((), tuple(shape[1:]), shape[0], example.dtype)
        elif node.op == "output":
            return _finish(node, values)
        else:
            values[node.name] = _evaluate(node, values)
    raise CannotPack("the graph has no output")


def _finish(node: torch.fx.Node, values: dict[str, Any]) -> list[Node]:
    outputs = node.args[0]
    if not isinstance(outputs, tuple | list) or len(outputs) != 1:
        count = len(outputs) if isinstance(outputs, tuple | list) else 0
        raise CannotPack(f"it returns {count} outputs; return one tensor [batch, ...]")
    result = _resolve(outputs[0], values)
    if isinstance(result, Step):
        result = materialize(result, "", "output")
    if not isinstance(result, Data):
        raise CannotPack("its output does not depend on its input")
    return list(result.nodes)


def _resolve(argument: Any, values: dict[str, Any]) -> Any:
    if isinstance(argument, torch.fx.Node):
        return values.get(argument.name)
    if isinstance(argument, tuple | list):
        return [_resolve(item, values) for item in argument]
    return argument


def _evaluate(node: torch.fx.Node, values: dict[str, Any]) -> Any:
    try:
        return _evaluate_known(node, values)
    except CannotPack as error:
        # Where the model's own forward makes the call, the module path alone says little.
        found = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
        own = [(file, line) for file, line in found if "site-packages" not in file]
        place = f" ({Path(own[-1][0]).name}, line {own[-1][1]})" if own else ""
        raise CannotPack(error.reason + place, error.module, error.operator) from error


def _evaluate_known(node: torch.fx.Node, values: dict[str, Any]) -> Any:
    name, module = str(node.target).removeprefix("aten."), module_path(node)
    if node.op != "call_function" or not isinstance(node.meta.get("val"), Tensor):
        if isinstance(node.meta.get("val"), tuple | list):
            raise CannotPack(_advice(), module, name)
        return None  # sizes and assertions; shapes are taken from the graph's own record
    arguments = [_resolve(argument, values) for argument in node.args]
    keywords = {key: _resolve(value, values) for key, value in node.kwargs.items()}
    flat = [*arguments, *keywords.values()]
    if any(isinstance(value, list) and _holds_data(value) for value in flat):
        raise CannotPack(_advice(), module, name)
    if not _holds_data(flat):
        return _constant(node, arguments, keywords, module)
    filled = _FILLED.get(str(getattr(node.target, "overloadpacket", "")).removeprefix("aten."))
    if filled is not None:
        return torch.tensor(filled)
    result = _continue_step(node, arguments, keywords) or _handle(
        Call(node, arguments, keywords, module, name)
    )
    if name.split(".")[0].endswith("_"):
        for changed in node.all_input_nodes[:1]:  # in place: the name now means the result
            values[changed.name] = result
    return result


def _constant(
    node: torch.fx.Node, arguments: list[Any], keywords: dict[str, Any], module: str
) -> Tensor:
    try:
        result: Tensor = node.target(*arguments, **keywords)  # type: ignore[operator]
    except (TypeError, RuntimeError) as error:
        raise CannotPack(
            "a constant is computed from the batch size; use tensors that do not depend on it",
            module,
            str(node.target).removeprefix("aten."),
        ) from error
    return result


def _handle(call: Call) -> Data | Step:
    arguments = [
        materialize(value, call.module, call.name) if isinstance(value, Step) else value
        for value in call.arguments
    ]
    if sum(isinstance(value, Data) for value in [*arguments, *call.keywords.values()]) > 1:
        raise call.refuse("two activations meet here; this version packs chains without branches")
    packet: Any = getattr(call.node.target, "overloadpacket", None)
    plain_name = str(packet).removeprefix("aten.").rstrip("_")
    handler = HANDLERS.get(packet) or HANDLERS.get(getattr(aten, plain_name, None))
    if handler is None or not any(isinstance(value, Data) for value in arguments):
        raise call.refuse(_advice())
    return handler(Call(call.node, arguments, call.keywords, call.module, call.name))


def _holds_data(value: list[Any]) -> bool:
    return any(isinstance(item, Data | Step) for item in value)


def _advice() -> str:
    return (
        "this operator is not on the list of the packed format (linear, conv2d, batch norm, ReLU, "
        "sign, max-pool, flatten, pad, arithmetic with constants); replace the module, move it out "
        "of the model, or keep the model in torch"
    )


def _continue_step(
    node: torch.fx.Node, arguments: list[Any], keywords: dict[str, Any]
) -> Step | None:
    """Apply an elementwise operator to the three values; None when it is not elementwise."""
    target: Any = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return None
    steps = [value for value in [*arguments, *keywords.values()] if isinstance(value, Step)]
    if not steps:
        return None
    first = steps[0]
    same = all(step.source is first.source and step.center == first.center for step in steps)
    others = [value for value in arguments if isinstance(value, Data)]
    tensors = [value for value in arguments if isinstance(value, Tensor)]
    if not same or others or any(tensor.numel() != 1 for tensor in tensors):
        return None
    elementwise = {*UNCHANGED, aten.where}
    if torch.Tag.pointwise not in target.tags and target.overloadpacket not in elementwise:
        return None
    scalars = [value.reshape(()) if isinstance(value, Tensor) else value for value in arguments]
    plain = [value.values if isinstance(value, Step) else value for value in scalars]
    if target.overloadpacket is aten.dropout:
        return first
    return Step(first.source, first.center, target(*plain, **keywords), first.name)
