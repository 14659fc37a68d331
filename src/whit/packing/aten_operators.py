"""Every ATen operator that the packer knows, and the node that it becomes.

A new operator is one function and one entry in ``HANDLERS``.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from whit.packing.graph_nodes import (
    ConvNode,
    ElementwiseNode,
    LinearNode,
    PadNode,
    PoolNode,
    ReshapeNode,
)
from whit.packing.symbols import Call, Data, Step

aten = torch.ops.aten

_COMPARISONS: dict[Any, Callable[[Tensor, float], Tensor]] = {
    aten.ge: torch.ge,
    aten.gt: torch.gt,
    aten.le: torch.le,
    aten.lt: torch.lt,
    aten.eq: torch.eq,
    aten.ne: torch.ne,
}


def _pair(value: Any) -> tuple[int, int]:
    items = list(value) if isinstance(value, list | tuple) else [value]
    first, second = (items * 2)[:2] if len(items) == 1 else items
    return int(first), int(second)


def _unchanged(call: Call) -> Data:
    dtype = call.node.meta["val"].dtype
    if call.data.dtype.is_floating_point and not dtype.is_floating_point:
        raise call.refuse("numbers are cut to integers here; keep float32")
    if dtype in (torch.float64, torch.float16, torch.bfloat16):
        raise call.refuse(f"it computes in {dtype}; convert the model with model.float()")
    data = call.data
    return Data(data.nodes, data.shape, data.batch, dtype)


def _dropout(call: Call) -> Data:
    if call.get(2, "train", False):
        raise call.refuse("dropout is active in eval mode; use nn.Dropout")
    return _unchanged(call)


def _linear(call: Call) -> Data:
    weight, bias = call.get(1, "weight"), call.get(2, "bias")
    if len(call.data.shape) != 1 or not isinstance(weight, Tensor):
        raise call.refuse("linear works on [batch, features] with a constant weight here; flatten")
    return call.then(LinearNode, weight=weight, bias=bias)


def _conv2d(call: Call) -> Data:
    weight, bias = call.get(1, "weight"), call.get(2, "bias")
    stride, dilation = _pair(call.get(3, "stride", 1)), _pair(call.get(5, "dilation", 1))
    pad = call.get(4, "padding", 0)
    if not isinstance(weight, Tensor) or len(call.data.shape) != 3:
        raise call.refuse("conv2d works on [batch, channel, height, width] here")
    if dilation[0] != dilation[1]:
        raise call.refuse(f"the dilation {dilation} differs between the axes; use one number")
    if pad == "same" and any(size % 2 == 0 for size in weight.shape[2:]):
        raise call.refuse("padding='same' with an even kernel is uneven; pad explicitly")
    if isinstance(pad, str):
        reach = [dilation[0] * (size - 1) // 2 for size in weight.shape[2:]]
        pad = reach if pad == "same" else 0
    fields = {"weight": weight, "bias": bias, "stride": stride, "pad": _pair(pad)}
    return call.then(ConvNode, **fields, dilation=dilation[0])


def _batch_norm(call: Call) -> Data:
    _, weight, bias, mean, variance, training, _, epsilon, *_ = call.arguments
    if training or mean is None or variance is None:
        raise call.refuse("batch norm without running statistics; track them and use eval mode")
    ones = torch.ones_like(mean)
    weight = ones if weight is None else weight
    bias = torch.zeros_like(mean) if bias is None else bias

    def apply(x: Tensor) -> Tensor:
        return torch.batch_norm(x, weight, bias, mean, variance, False, 0.0, epsilon, False)

    scale = weight.double() / torch.sqrt(variance.double() + epsilon)
    constants = (scale, bias.double() - mean.double() * scale)
    return call.then(
        ElementwiseNode, apply=apply, name=call.name, form="batch_norm", constants=constants
    )


def _relu(call: Call) -> Data:
    return call.then(ElementwiseNode, apply=torch.relu, name=call.name, form="relu")


def _clamp(call: Call) -> Data:
    low, high = call.get(1, "min"), call.get(2, "max")
    if call.node.target.overloadpacket is aten.hardtanh:  # type: ignore[union-attr]
        low, high = call.get(1, "min_val", -1.0), call.get(2, "max_val", 1.0)

    def apply(x: Tensor) -> Tensor:
        return torch.clamp(x, low, high)

    form = "relu" if low == 0 and high is None else ""
    return call.then(ElementwiseNode, apply=apply, name=call.name, form=form)


def _arithmetic(call: Call) -> Data:
    """Lower add, sub, mul, div, neg with one constant."""
    if not call.node.meta["val"].is_floating_point():
        raise call.refuse(
            "it computes with integers, which wrap around in torch; write x.float() before it"
        )
    target: Any = call.node.target
    position = next(i for i, value in enumerate(call.arguments) if isinstance(value, Data))
    rest = [value for i, value in enumerate(call.arguments) if i != position]
    constant = torch.as_tensor(rest[0] if rest else -1.0, dtype=torch.float32)
    factor = call.keywords.get("alpha", 1)
    if factor != 1:
        raise call.refuse("alpha is not 1; multiply before")
    packet = target.overloadpacket
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
    if form == "subtract" and position == 1:
        form = "subtract_from"
    return call.then(
        ElementwiseNode,
        apply=apply,
        name=call.name,
        form=form,
        constants=(constant,),
        per_channel=constant.numel() == 1 or constant.shape == _channel_shape(shape),
    )


def _channel_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0],) + (1,) * (len(shape) - 1)


def _per_sample(call: Call, constant: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Bring a constant to (), to one per channel [C, 1, ...], or to one per feature."""
    if constant.numel() == 1:
        return constant.reshape(())
    while constant.dim() > len(shape) and constant.shape[0] == 1:
        constant = constant[0]
    if constant.dim() > len(shape) or call.data.shape != shape:
        raise call.refuse(f"a constant of shape {list(constant.shape)} differs between samples")
    constant = constant.reshape((1,) * (len(shape) - constant.dim()) + tuple(constant.shape))
    if tuple(constant.shape) == _channel_shape(shape):
        return constant
    return constant.expand(shape).contiguous()


def _compare(call: Call) -> Step:
    center = call.arguments[1]
    if isinstance(center, Tensor) and center.numel() == 1:
        center = center.item()
    if not isinstance(center, int | float) or not isinstance(call.arguments[0], Data):
        raise call.refuse("only comparisons with one number can be packed")
    points = torch.tensor([-1.0, 0.0, 1.0])
    values = _COMPARISONS[call.node.target.overloadpacket](points, 0.0)  # type: ignore[union-attr]
    return Step(call.data, float(center), values, call.name)


def _sign(call: Call) -> Step:
    return Step(call.data, 0.0, torch.tensor([-1.0, 0.0, 1.0]), call.name)


def _max_pool2d(call: Call) -> Data:
    size = _pair(call.get(1, "kernel_size"))
    stride = _pair(call.get(2, "stride") or size)
    if _pair(call.get(4, "dilation", 1)) != (1, 1) or call.get(5, "ceil_mode", False):
        raise call.refuse("max-pooling with dilation or ceil_mode; use neither")
    return call.then(PoolNode, size=size, stride=stride, pad=_pair(call.get(3, "padding", 0)))


def _reshape(call: Call) -> Data:
    shape = call.shape()
    return _unchanged(call) if shape == call.data.shape else call.then(ReshapeNode)


def _pad(call: Call) -> Data:
    pads = [int(side) for side in call.get(1, "pad")]
    mode, value = call.get(2, "mode", "constant"), call.get(3, "value")
    if call.node.target.overloadpacket is aten.constant_pad_nd:  # type: ignore[union-attr]
        mode, value = "constant", call.get(2, "value", 0.0)
    left, right, top, below = (pads + [0, 0])[:4]
    if mode != "constant" or len(call.data.shape) != 3 or len(pads) > 4 or min(pads) < 0:
        raise call.refuse("only constant padding of height and width can be packed")
    return call.then(PadNode, pads=(top, left, below, right), value=float(value or 0.0))


UNCHANGED = {
    aten.alias, aten.detach, aten.clone, aten.contiguous, aten._to_copy, aten.to,
    aten.lift_fresh_copy, aten.dropout, aten.type_as,
}  # fmt: skip
HANDLERS: dict[Any, Callable[[Call], Data | Step]] = {
    **dict.fromkeys(UNCHANGED, _unchanged),
    **dict.fromkeys(_COMPARISONS, _compare),
    **dict.fromkeys((aten.add, aten.sub, aten.mul, aten.div, aten.neg), _arithmetic),
    **dict.fromkeys((aten.flatten, aten.view, aten.reshape, aten._unsafe_view), _reshape),
    **dict.fromkeys((aten.unsqueeze, aten.squeeze, aten.unflatten), _reshape),
    **dict.fromkeys((aten.clamp, aten.hardtanh, aten.clamp_min, aten.clamp_max), _clamp),
    **dict.fromkeys((aten.pad, aten.constant_pad_nd), _pad),
    **dict.fromkeys((aten.relu, aten.relu_), _relu),
    aten.dropout: _dropout,
    aten.linear: _linear,
    aten.conv2d: _conv2d,
    aten.batch_norm: _batch_norm,
    aten.sign: _sign,
    aten.max_pool2d: _max_pool2d,
}
