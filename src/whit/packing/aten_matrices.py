"""ATen operators with a weight, and the normalisations."""

from typing import Any

import torch
from torch import Tensor

from whit.packing.graph_nodes import (
    ConvNode,
    ElementwiseNode,
    EmbeddingNode,
    LinearNode,
    Node,
    OperatorNode,
    reshaped,
)
from whit.packing.symbols import Call, Data
from whit.runtime.operators import GroupNorm, LayerNorm


def pair(value: Any) -> tuple[int, int]:
    """Return one number, or a list of one or two, as two."""
    items = list(value) if isinstance(value, list | tuple) else [value]
    first, second = (items * 2)[:2] if len(items) == 1 else items
    return int(first), int(second)


def lower_linear(call: Call) -> Data:
    """Lower linear: any axes, the last is multiplied."""
    weight, bias = call.get(1, "weight"), call.get(2, "bias")
    if not isinstance(weight, Tensor) or isinstance(bias, Data):
        raise call.refuse("its weight or bias is computed from the input; use constant weights")
    if len(call.data.shape) < 1:
        raise call.refuse("linear works on [batch, ..., features]; flatten")
    return call.then(LinearNode, weight=weight, bias=bias)


def lower_matmul(call: Call) -> Data:
    """Lower x @ W with a constant W [columns, rows]."""
    left, right = call.arguments[:2]
    if not isinstance(left, Data) or not isinstance(right, Tensor) or right.dim() != 2:
        raise call.refuse(
            "only activation @ constant matrix can be packed; products of two activations "
            "(attention) are not in the format"
        )
    return call.then(LinearNode, weight=right.t().contiguous(), bias=None)


def lower_addmm(call: Call) -> Data:
    """Lower bias + x @ W."""
    bias, left, right = call.arguments[:3]
    scaled = call.get(3, "beta", 1) != 1 or call.get(4, "alpha", 1) != 1
    constant = isinstance(bias, Tensor) and isinstance(right, Tensor)
    if scaled or not isinstance(left, Data) or not constant:
        raise call.refuse("only constant + activation @ constant can be packed; use nn.Linear")
    return call.then(LinearNode, weight=right.t().contiguous(), bias=bias)


def lower_conv(call: Call) -> Data:
    """Lower conv1d and conv2d; one-dimensional ones get a height of 1."""
    weight, bias = call.get(1, "weight"), call.get(2, "bias")
    if not isinstance(weight, Tensor) or isinstance(bias, Data):
        raise call.refuse("its weight or bias is computed from the input; use constant weights")
    axes = weight.dim() - 2
    if len(call.data.shape) != axes + 1 or axes not in (1, 2):
        raise call.refuse("convolutions work on [batch, channel, length] or [.., height, width]")
    stride = _sides(call.get(3, "stride", 1), axes, 1)
    dilation = _sides(call.get(5, "dilation", 1), axes, 1)
    kernel = tuple(weight.shape[2:]) if axes == 2 else (1, int(weight.shape[2]))
    pad = _padding(call, call.get(4, "padding", 0), axes, kernel, dilation)
    # A kernel of size 1 has no gaps, so its dilation may be anything.
    steps = {d for d, size in zip(dilation, kernel, strict=True) if size > 1} or {1}
    if len(steps) > 1:
        raise call.refuse(f"the dilation {dilation} differs between the axes; use one number")
    if axes == 1:
        weight = weight.unsqueeze(2)
    fields = {"weight": weight, "bias": bias, "stride": stride, "pad": pad}
    shape = call.shape()
    source = call.data.node
    if axes == 1:
        source = reshaped(source, (source.shape[0], 1, source.shape[1]))
    image = shape if axes == 2 else (shape[0], 1, shape[1])
    node = ConvNode(
        module=call.module, shape=image, sources=(source,), dilation=steps.pop(), **fields
    )
    return call.now(reshaped(node, shape))


def _sides(value: Any, axes: int, missing: int) -> tuple[int, int]:
    if axes == 2:
        return pair(value)
    items = list(value) if isinstance(value, list | tuple) else [value]
    return missing, int(items[0])


def _padding(
    call: Call, pad: Any, axes: int, kernel: tuple[int, ...], dilation: tuple[int, int]
) -> tuple[int, int]:
    if not isinstance(pad, str):
        return _sides(pad, axes, 0)
    if pad == "same" and any(size % 2 == 0 for size in kernel):
        raise call.refuse("padding='same' with an even kernel is uneven; pad explicitly")
    if pad != "same":
        return 0, 0
    reach = [d * (size - 1) // 2 for d, size in zip(dilation, kernel, strict=True)]
    return reach[0], reach[1]


def lower_embedding(call: Call) -> Data:
    """Lower a look-up in a constant table."""
    weight, indices = call.arguments[:2]
    if not isinstance(weight, Tensor) or not isinstance(indices, Data):
        raise call.refuse("only a constant table, looked up by the input, can be packed")
    return call.then(EmbeddingNode, weight=weight)


def lower_batch_norm(call: Call) -> Data:
    """Lower batch norm with running statistics."""
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


def lower_layer_norm(call: Call) -> Data:
    """Lower layer norm over the last axes."""
    axes = len(call.arguments[1])
    weight, bias = call.get(2, "weight"), call.get(3, "bias")
    epsilon = float(call.get(4, "eps", 1e-5))
    columns = 1
    for size in call.data.shape[len(call.data.shape) - axes :]:
        columns *= size
    operator = LayerNorm(axes, epsilon, _flat(weight), _flat(bias), columns)
    return _norm(call, operator)


def lower_group_norm(call: Call) -> Data:
    """Lower group norm."""
    weight, bias = call.get(2, "weight"), call.get(3, "bias")
    epsilon = float(call.get(4, "eps", 1e-5))
    operator = GroupNorm(int(call.arguments[1]), epsilon, _flat(weight), _flat(bias))
    return _norm(call, operator)


def lower_instance_norm(call: Call) -> Data:
    """Lower instance norm without running statistics: a group norm of one channel a group."""
    _, weight, bias, mean, variance, use_input, _, epsilon, *_ = call.arguments
    if not use_input:
        fixed = [call.data, weight, bias, mean, variance, False, 0.0, epsilon, False]
        return lower_batch_norm(Call(call.node, fixed, {}, call.module, call.name))
    operator = GroupNorm(call.data.shape[0], float(epsilon), _flat(weight), _flat(bias))
    return _norm(call, operator)


def _norm(call: Call, operator: Any) -> Data:
    shape = call.shape()
    node: Node = OperatorNode(
        module=call.module, shape=shape, sources=(call.data.node,), operator=operator
    )
    return call.now(node)


def _flat(values: Tensor | None) -> Any:
    return None if values is None else values.detach().reshape(-1).to(torch.float32).numpy()
