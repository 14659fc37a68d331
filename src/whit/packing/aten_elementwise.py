"""ATen operators that treat every number alone, or meet two activations number by number."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from whit.packing.graph_nodes import (
    ElementwiseNode,
    Node,
    OperatorNode,
    added,
    is_per_channel,
    multiplied,
    reshaped,
)
from whit.packing.symbols import Call, Data, Step
from whit.runtime.operators import Add, Clamp, Curve, LeakyRelu, Multiply, Operator

aten = torch.ops.aten

COMPARISONS: dict[Any, Callable[[Tensor, float], Tensor]] = {
    aten.ge: torch.ge,
    aten.gt: torch.gt,
    aten.le: torch.le,
    aten.lt: torch.lt,
    aten.eq: torch.eq,
    aten.ne: torch.ne,
}
# Where an activation stands on the right, a >= x is x <= a.
_MIRRORED = {aten.ge: aten.le, aten.gt: aten.lt, aten.le: aten.ge, aten.lt: aten.gt}


def expect_floats(call: Call) -> None:
    """Refuse arithmetic of integers, which torch does in their own width.

    Raises:
        CannotPack: the activation is no float.
    """
    if not call.data.dtype.is_floating_point:
        raise call.refuse(
            "it computes with integers, which wrap around in torch; write x.float() before it"
        )


def unchanged(call: Call) -> Data:
    """Lower whatever keeps the numbers: copies, detach, casts to float32."""
    dtype = call.node.meta["val"].dtype
    if call.data is not call.arguments[0]:
        raise call.refuse("a constant takes the size of an activation; use the constant alone")
    if call.data.dtype.is_floating_point and not dtype.is_floating_point:
        raise call.refuse("numbers are cut to integers here; keep float32")
    if dtype in (torch.float64, torch.float16, torch.bfloat16):
        raise call.refuse(f"it computes in {dtype}; convert the model with model.float()")
    widened = dtype in (torch.int32, torch.int64)
    if dtype not in (call.data.dtype, torch.float32) and not widened:
        raise call.refuse(f"numbers of {call.data.dtype} become {dtype}; use x.float()")
    result: Data = replace(call.data, dtype=dtype)
    return result


def lower_dropout(call: Call) -> Data:
    """Lower dropout that does nothing."""
    if call.get(2, "train", False):
        raise call.refuse("dropout is active in eval mode; use nn.Dropout")
    return unchanged(call)


def lower_relu(call: Call) -> Data:
    """Lower relu."""
    return call.then(ElementwiseNode, apply=torch.relu, name=call.name, form="relu")


def lower_clamp(call: Call) -> Data:
    """Lower clamp, hardtanh and relu6."""
    expect_floats(call)
    low, high = call.get(1, "min"), call.get(2, "max")
    kind = call.packet
    if kind is aten.hardtanh:
        low, high = call.get(1, "min_val", -1.0), call.get(2, "max_val", 1.0)
    elif kind is aten.clamp_max:
        low, high = None, call.get(1, "max")
    elif kind is aten.relu6:
        low, high = 0.0, 6.0
    return clamped(call, _limit(low, call), _limit(high, call))


def lower_extreme(call: Call) -> Data:
    """Lower minimum and maximum of an activation and one number."""
    numbers = [value for value in call.arguments if not isinstance(value, Data)]
    if len(numbers) != 1:
        raise call.refuse("only the minimum or maximum of an activation and a number can be packed")
    limit = _limit(numbers[0], call)
    return clamped(call, None, limit) if "minimum" in call.name else clamped(call, limit, None)


def lower_where(call: Call) -> Data | None:
    """Lower ``where(x > c, c, x)`` and its likes, that is clamp; None where it is another thing."""
    if call.packet is aten.where and len(call.arguments) == 3:
        condition, first, second = call.arguments
    elif call.packet is aten.masked_fill:
        second, condition, first = call.arguments
    else:
        return None
    if not isinstance(condition, Step) or len(condition.centers) != 1:
        return None
    x, other = (first, second) if isinstance(first, Data) else (second, first)
    if not isinstance(x, Data) or isinstance(other, Data | Step):
        return None
    center = torch.tensor(condition.centers[0], dtype=torch.float32)
    value = torch.as_tensor(other, dtype=torch.float32)
    below, _, above = (bool(held) == (x is first) for held in condition.values)
    if condition.source.node is not x.node or value.numel() != 1 or float(value) != float(center):
        return None
    if below == above:
        return None
    limit = float(value)
    solid = Call(call.node, [x], {}, call.module, call.name)
    return clamped(solid, None, limit) if below else clamped(solid, limit, None)


def _limit(value: Any, call: Call) -> float | None:
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value)
    if isinstance(value, Tensor | Data):
        raise call.refuse("limits that are tensors of several numbers; use one number")
    return None if value is None else float(value)


def clamped(call: Call, low: float | None, high: float | None) -> Data:
    """Return the first activation between two limits, None for no limit."""
    if low == 0 and high is None:
        return lower_relu(call)
    limits = torch.tensor(
        [float("-inf") if low is None else low, float("inf") if high is None else high],
        dtype=torch.float32,
    )
    low, high = (float(limit) for limit in limits)

    def apply(x: Tensor) -> Tensor:
        return torch.clamp(x, low, high)

    return call.then(
        ElementwiseNode,
        apply=apply,
        name=call.name,
        form="clamp",
        constants=(limits[0], limits[1]),
        operator=Clamp(low, high),
    )


def lower_round(call: Call) -> Data:
    """Lower round, floor and ceil, which only folding can write."""
    expect_floats(call)
    if len(call.arguments) > 1 or call.keywords:
        raise call.refuse("rounding to decimals; scale, round and scale back instead")
    target = call.function
    form = "round" if call.name.startswith("round") else ""
    return call.then(
        ElementwiseNode, apply=lambda x: target(x), name=call.name, form=form, discrete=True
    )


CURVES = {
    aten.sigmoid: "sigmoid",
    aten.tanh: "tanh",
    aten.silu: "silu",
    aten.hardsigmoid: "hardsigmoid",
    aten.hardswish: "hardswish",
    aten.softplus: "softplus",
    aten.abs: "absolute",
    aten.gelu: "gelu",
    aten.elu: "elu",
    aten.square: "square",
    aten.pow: "square",
}

_MONOTONE = {"sigmoid", "tanh", "hardsigmoid", "softplus"}


def lower_curve(call: Call) -> Data:
    """Lower smooth activations."""
    expect_floats(call)
    target = call.function
    function, alpha = CURVES[call.packet], 1.0
    rest = call.arguments[1:]
    if function == "absolute":
        function = "abs"
    if function == "gelu" and call.get(1, "approximate", "none") == "tanh":
        function = "gelu_tanh"
    if function == "elu":
        alpha = float(call.get(1, "alpha", 1.0))
        if call.get(2, "scale", 1) != 1 or call.get(3, "input_scale", 1) != 1:
            raise call.refuse("elu with scales (selu); use nn.ELU")
    if call.packet is aten.pow and rest != [2]:
        raise call.refuse("only the power 2 of an activation can be packed")
    if function == "softplus" and (call.get(1, "beta", 1), call.get(2, "threshold", 20)) != (1, 20):
        raise call.refuse("softplus with a beta or threshold; use nn.Softplus()")
    keywords = call.keywords

    def apply(x: Tensor) -> Tensor:
        result: Tensor = target(x, *rest, **keywords)
        return result

    return call.then(
        ElementwiseNode,
        apply=apply,
        name=call.name,
        monotone=function in _MONOTONE,
        operator=Curve(function, alpha),
    )


def lower_leaky_relu(call: Call) -> Data:
    """Lower leaky_relu and prelu."""
    expect_floats(call)
    slopes = call.get(1, "negative_slope" if "leaky" in call.name else "weight", 0.01)
    if isinstance(slopes, Data):
        raise call.refuse("the slope is computed from the input; use a constant one")
    flat = torch.as_tensor(slopes, dtype=torch.float32).detach().reshape(-1)
    if flat.numel() not in (1, call.data.shape[0]) or call.data.leading:
        raise call.refuse(f"{flat.numel()} slopes for {call.data.shape[0]} channels")
    spread = flat.reshape((-1,) + (1,) * (len(call.data.shape) - 1))

    def apply(x: Tensor) -> Tensor:
        return torch.where(x >= 0, x, x * spread)

    return call.then(
        ElementwiseNode,
        apply=apply,
        name=call.name,
        constants=(spread,),
        per_channel=is_per_channel(spread, call.data.shape),
        monotone=bool((flat >= 0).all()),
        operator=LeakyRelu(flat.numpy()),
    )


def lower_arithmetic(call: Call) -> Data:
    """Lower add, sub, mul, div, neg of an activation and a constant, or of two activations."""
    if not call.node.meta["val"].is_floating_point():
        raise call.refuse(
            "it computes with integers, which wrap around in torch; write x.float() before it"
        )
    if call.keywords.get("alpha", 1) != 1:
        raise call.refuse("alpha is not 1; multiply before")
    if len(call.activations) == 2:
        return _meet(call)
    target = call.function
    position = next(i for i, value in enumerate(call.arguments) if isinstance(value, Data))
    rest = [value for i, value in enumerate(call.arguments) if i != position]
    if rest and not isinstance(rest[0], Tensor | int | float):
        raise call.refuse("it computes with the batch size; each sample must be alone")
    constant = torch.as_tensor(rest[0] if rest else -1.0, dtype=torch.float32)
    packet = call.packet
    if packet is aten.div and (position == 1 or call.keywords.get("rounding_mode")):
        raise call.refuse("only division of the activation by a constant can be packed")
    shape = call.shape()
    constant = _per_sample(call, constant, shape)

    def apply(x: Tensor) -> Tensor:
        filled = list(call.arguments)
        filled[position] = x
        if rest:
            filled[1 - position] = constant
        result: Tensor = target(*filled, **call.keywords)
        return result

    kinds = {aten.add: "add", aten.sub: "subtract", aten.mul: "multiply", aten.div: "divide"}
    form = kinds.get(packet, "multiply")
    if packet is aten.rsub or (form == "subtract" and position == 1):
        form = "subtract_from"
    per_channel = is_per_channel(constant, shape)
    return call.then(
        ElementwiseNode,
        apply=apply,
        name=call.name,
        form=form,
        constants=(constant,),
        per_channel=per_channel,
    )


def _per_sample(call: Call, constant: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Bring a constant to (), to one per channel [C, 1, ...], or to one per feature."""
    if constant.numel() == 1:
        return constant.reshape(())
    if call.data.leading:
        raise call.refuse("a constant tensor meets the members of a group; combine them before")
    while constant.dim() > len(shape) and constant.shape[0] == 1:
        constant = constant[0]
    if constant.dim() > len(shape) or call.data.shape != shape:
        raise call.refuse(f"a constant of shape {list(constant.shape)} differs between samples")
    constant = constant.reshape((1,) * (len(shape) - constant.dim()) + tuple(constant.shape))
    if is_per_channel(constant, shape):
        return constant
    return constant.expand(shape).contiguous()


def _meet(call: Call) -> Data:
    """Lower add, sub and mul of two activations."""
    first, second = call.activations
    packet = call.packet
    if packet is aten.rsub:
        first, second, packet = second, first, aten.sub
    if packet is aten.div:
        raise call.refuse("only division of the activation by a constant can be packed")
    if packet is aten.add:
        for x, other in ((first, second), (second, first)):
            if other.difference is not None and other.difference[1].node is x.node:
                return other.difference[0]  # x + (q - x): a straight-through estimator
    right = second.node
    if packet is aten.sub:
        right = multiplied(right, torch.tensor(-1.0))
    operator: Operator = Multiply() if packet is aten.mul else Add()
    node = _joined(call, first.node, right, operator)
    result = call.now(node)
    return replace(result, difference=(first, second)) if packet is aten.sub else result


def _joined(call: Call, first: Node, second: Node, operator: Operator) -> Node:
    shape = call.shape()
    wide, narrow = (first, second) if first.shape == shape else (second, first)
    missing = len(shape) - len(narrow.shape)
    narrow = reshaped(narrow, (1,) * missing + narrow.shape)
    fits = all(a in (1, b) for a, b in zip(narrow.shape, shape, strict=True))
    if wide.shape != shape or not fits:
        raise call.refuse(
            f"activations of shapes {list(first.shape)} and {list(second.shape)} meet; one must "
            "have the shape of the result"
        )
    return OperatorNode(module=call.module, shape=shape, sources=(wide, narrow), operator=operator)


def lower_comparison(call: Call) -> Step:
    """Lower a comparison with a number, or with one number per channel."""
    packet = call.packet
    left, right = call.arguments[:2]
    if isinstance(right, Data) and not isinstance(left, Data):
        left, right, packet = right, left, _MIRRORED.get(packet, packet)
    if isinstance(right, Tensor) and right.numel() == 1:
        right = right.item()
    if isinstance(left, Data) and isinstance(right, Tensor):
        # x >= t is x - t >= 0 for all floats, since denormals are kept.
        limits = _per_sample(call, right.to(torch.float32), left.shape)
        left, right = replace(left, node=added(left.node, -limits)), 0.0
    if not isinstance(right, int | float) or not isinstance(left, Data):
        raise call.refuse("only comparisons with constants can be packed")
    if not left.dtype.is_floating_point and not (left.dtype == torch.uint8 and 0 <= right <= 255):
        raise call.refuse("integers are compared in their own width; write x.float() before it")
    values = COMPARISONS[packet](torch.tensor([-1.0, 0.0, 1.0]), 0.0)
    return Step(left, (float(right),), values, call.name)


def lower_sign(call: Call) -> Step:
    """Lower torch.sign: three values."""
    return Step(call.data, (0.0,), torch.tensor([-1.0, 0.0, 1.0]), call.name)
