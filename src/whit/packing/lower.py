"""From a traced graph to a graph of nodes.

Nodes without data are computed by torch itself; the others go to their handler.
"""

import operator
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from whit.errors import CannotPack
from whit.packing.aten_elementwise import lower_where
from whit.packing.aten_operators import HANDLERS, UNCHANGED
from whit.packing.graph_nodes import InputNode, Node
from whit.packing.in_place import DROPOUTS, check_views, functional, is_in_place
from whit.packing.subnetworks import Hidden, hide_subnetworks, lower_subnetwork
from whit.packing.symbols import Call, Data, Step, materialize
from whit.packing.tracing import module_path, trace

aten = torch.ops.aten

# Tensors of one number in the shape of an activation: the number alone broadcasts the same way.
_FILLED = {"ones_like": 1.0, "zeros_like": 0.0}
_DOMAINS = {torch.uint8: "uint8", torch.int64: "int32", torch.int32: "int32"}


def lower(baked: nn.Module, example: Tensor, source: Node | None = None) -> Data:
    """Lower a baked model to a graph of nodes.

    Args:
        baked: from `baked_copy`.
        example: [batch, ...] with at least two samples.
        source: the node that the model reads; a new input by default.

    Raises:
        CannotPack: an operator, a branch or a shape outside of the closed list.
    """
    model, hidden = hide_subnetworks(baked, example)
    traced = trace(model, example)
    values: dict[str, Any] = dict(traced.constants)
    for node in traced.nodes:
        if node.op == "placeholder":
            if node.name == traced.input_name:
                shape = node.meta["val"].shape
                values[node.name] = Data(source or _input(example), shape[0], example.dtype)
        elif node.op == "output":
            return _finish(node, values)
        else:
            values[node.name] = _evaluate(node, values, hidden)
    raise CannotPack("the graph has no output")


def _input(example: Tensor) -> InputNode:
    domain = _DOMAINS.get(example.dtype, "float32")
    return InputNode(module="", shape=tuple(example.shape[1:]), domain=domain)


def _finish(node: torch.fx.Node, values: dict[str, Any]) -> Data:
    outputs = node.args[0]
    if not isinstance(outputs, tuple | list) or len(outputs) != 1:
        count = len(outputs) if isinstance(outputs, tuple | list) else 0
        raise CannotPack(f"it returns {count} outputs; return one tensor [batch, ...]")
    result = _resolve(outputs[0], values)
    if isinstance(result, Step):
        result = materialize(result, "", "output")
    if isinstance(result, _Unknown):
        raise result.error
    if not isinstance(result, Data):
        raise CannotPack("its output does not depend on its input")
    return result


def _resolve(argument: Any, values: dict[str, Any]) -> Any:
    if isinstance(argument, torch.fx.Node):
        return values.get(argument.name)
    if isinstance(argument, tuple | list):
        return [_resolve(item, values) for item in argument]
    return argument


def _evaluate(node: torch.fx.Node, values: dict[str, Any], hidden: list[Hidden]) -> Any:
    try:
        return _evaluate_known(node, values, hidden)
    except CannotPack as error:
        # Where the model's own forward makes the call, the module path alone says little.
        found = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
        own = [(file, line) for file, line in found if "site-packages" not in file]
        place = f" ({Path(own[-1][0]).name}, line {own[-1][1]})" if own else ""
        raise CannotPack(error.reason + place, error.module, error.operator) from error


def _evaluate_known(node: torch.fx.Node, values: dict[str, Any], hidden: list[Hidden]) -> Any:
    name, module = str(node.target).removeprefix("aten."), module_path(node)
    if node.op != "call_function":
        return None
    arguments = [_resolve(argument, values) for argument in node.args]
    keywords = {key: _resolve(value, values) for key, value in node.kwargs.items()}
    if node.target is operator.getitem and isinstance(arguments[0], tuple | list):
        return arguments[0][arguments[1]]
    data = _holds_data([*arguments, *keywords.values()])
    if not isinstance(node.meta.get("val"), Tensor | tuple | list) or (not data and _sizes(node)):
        return None  # sizes and assertions; shapes are taken from the graph's own record
    if not data:
        return _constant(node, arguments, keywords, module)
    call = Call(node, arguments, keywords, module, name)
    if str(node.target).startswith("whit.hidden"):
        return lower_subnetwork(call, hidden, lower)
    return _on_data(call, values)


def _on_data(call: Call, values: dict[str, Any]) -> Any:
    node, name = call.node, call.name
    filled = _FILLED.get(str(getattr(node.target, "overloadpacket", "")).removeprefix("aten."))
    if filled is not None:
        return torch.tensor(filled)
    if name == "type_as.default" and isinstance(call.arguments[0], Tensor):
        return call.arguments[0].to(node.meta["val"].dtype)
    result = _continue_step(node, call.arguments, call.keywords) or _handle(call)
    if is_in_place(node):
        check_views(node, call.module)
        values[node.all_input_nodes[0].name] = result  # the name now means the result
    return result


def _sizes(node: torch.fx.Node) -> bool:
    found = node.meta["val"]
    return isinstance(found, tuple | list) and not any(isinstance(part, Tensor) for part in found)


@dataclass(frozen=True)
class _Unknown:
    """A constant that depends on the batch size; an error where an operator that we know reads it.

    An operator that we do not know (an LSTM and its zero state) is the better thing to name.
    """

    error: CannotPack


def _constant(
    node: torch.fx.Node, arguments: list[Any], keywords: dict[str, Any], module: str
) -> Any:
    unknown = _unknown([*arguments, *keywords.values()])
    if unknown is not None:
        return unknown
    if is_in_place(node) and node.all_input_nodes[0].op == "placeholder":
        raise CannotPack(
            f"its forward call changes the buffer '{node.all_input_nodes[0].name}'; a file holds "
            "no state: compute it from the input, or freeze it",
            module,
            str(node.target).removeprefix("aten."),
        )
    if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        raise CannotPack(
            "it draws random numbers, which a file cannot; keep them as a buffer of the model",
            module,
            str(node.target).removeprefix("aten."),
        )
    try:
        return node.target(*arguments, **keywords)  # type: ignore[operator]
    except (TypeError, RuntimeError):
        reason = "a constant is computed from the batch size; use tensors that do not depend on it"
        name = str(node.target).removeprefix("aten.")
        return _Unknown(CannotPack(reason, module, name))


def _unknown(values: list[Any]) -> _Unknown | None:
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return next((item for item in flat if isinstance(item, _Unknown)), None)


def _handle(call: Call) -> Any:
    clamp = lower_where(call)
    if clamp is not None:
        return clamp
    arguments = [_solid(value, call) for value in call.arguments]
    handler = HANDLERS.get(call.packet)
    keywords = {name: _solid(value, call) for name, value in call.keywords.items()}
    solid = Call(call.node, arguments, keywords, call.module, call.name)
    if handler is None or not solid.activations:
        raise call.refuse(_advice())
    unknown = _unknown([*arguments, *keywords.values()])
    if unknown is not None:
        raise unknown.error
    if any(data.leading != solid.data.leading for data in solid.activations):
        raise call.refuse("members and single outputs meet here; combine the members before")
    return handler(solid)


def _solid(value: Any, call: Call) -> Any:
    if isinstance(value, list):
        return [_solid(item, call) for item in value]
    return materialize(value, call.module, call.name) if isinstance(value, Step) else value


def _holds_data(values: list[Any]) -> bool:
    return any(
        isinstance(item, Data | Step) or (isinstance(item, list) and _holds_data(item))
        for item in values
    )


def _advice() -> str:
    return (
        "this operator is not on the list of the packed format (docs/format.md: linear, "
        "convolutions, batch, layer and group norm, signs and quantisers, the usual activations, "
        "pooling, add, multiply, concat, reshape, transpose, softmax, embedding); replace the "
        "module, move it out of the model, or keep the model in torch (torch.onnx.export)"
    )


def _continue_step(
    node: torch.fx.Node, arguments: list[Any], keywords: dict[str, Any]
) -> Step | None:
    """Apply an elementwise operator to the staircase; None when it is not elementwise."""
    target = functional(node)
    if not isinstance(target, torch._ops.OpOverload):
        return None
    steps = [value for value in [*arguments, *keywords.values()] if isinstance(value, Step)]
    if not steps:
        return None
    first = steps[0]
    same = all(step.source.node is first.source.node for step in steps)
    others = [value for value in arguments if isinstance(value, Data | list)]
    tensors = [value for value in arguments if isinstance(value, Tensor)]
    if not same or others or any(tensor.numel() != 1 for tensor in tensors):
        return None
    elementwise = {*UNCHANGED, aten.where, aten.__and__, aten.__or__}
    if torch.Tag.pointwise not in target.tags and target.overloadpacket not in elementwise:
        return None
    if target.overloadpacket in DROPOUTS:
        return first
    centers = tuple(sorted({center for step in steps for center in step.centers}))
    scalars = [value.reshape(()) if isinstance(value, Tensor) else value for value in arguments]
    plain = [value.spread(centers) if isinstance(value, Step) else value for value in scalars]
    named = {
        key: value.spread(centers) if isinstance(value, Step) else value
        for key, value in keywords.items()
    }
    return Step(first.source, centers, target(*plain, **named), first.name)
