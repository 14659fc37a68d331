"""ATen operators that move, join, choose or gather numbers."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from whit.packing.aten_matrices import pair
from whit.packing.graph_nodes import Node, OperatorNode, PadNode, PoolNode, ReshapeNode, reshaped
from whit.packing.subnetworks import concatenated
from whit.packing.symbols import Call, Data
from whit.runtime.operators import AvgPool2d, Operator, Reduce, Softmax, Transpose


def _image(call: Call) -> tuple[Node, bool]:
    """Return the source as [channel, height, width], and whether it had one axis less."""
    shape = call.data.shape
    if len(shape) == 2:
        return reshaped(call.data.node, (shape[0], 1, shape[1])), True
    if len(shape) != 3 or call.data.leading:
        raise call.refuse("it works on [batch, channel, length] or [batch, channel, height, width]")
    return call.data.node, False


def _window(value: Any, line: bool, missing: int) -> tuple[int, int]:
    if not line:
        return pair(value)
    items = list(value) if isinstance(value, list | tuple) else [value]
    return missing, int(items[0])


def lower_max_pool(call: Call) -> Data:
    """Lower max_pool1d and max_pool2d, with or without the positions."""
    source, line = _image(call)
    size = _window(call.get(1, "kernel_size"), line, 1)
    stride = _window(call.get(2, "stride") or call.get(1, "kernel_size"), line, 1)
    pad = _window(call.get(3, "padding", 0), line, 0)
    if {*_window(call.get(4, "dilation", 1), line, 1)} != {1} or call.get(5, "ceil_mode", False):
        raise call.refuse("max-pooling with dilation or ceil_mode; use neither")
    shape = call.shape_of(_first(call.node.meta["val"]), False)
    image = (shape[0], 1, shape[1]) if line else shape
    node = PoolNode(
        module=call.module, shape=image, sources=(source,), size=size, stride=stride, pad=pad
    )
    return call.now(reshaped(node, shape))


def lower_max_pool_with_positions(call: Call) -> list[Data | None]:
    """Lower the form that also gives positions, which cannot be used."""
    return [lower_max_pool(call), None]


def lower_avg_pool(call: Call) -> Data:
    """Lower avg_pool1d and avg_pool2d."""
    source, line = _image(call)
    size = _window(call.get(1, "kernel_size"), line, 1)
    stride = _window(call.get(2, "stride") or call.get(1, "kernel_size"), line, 1)
    pad = _window(call.get(3, "padding", 0), line, 0)
    if call.get(4, "ceil_mode", False) or call.get(6, "divisor_override") is not None:
        raise call.refuse("average pooling with ceil_mode or divisor_override; use neither")
    inside = not call.get(5, "count_include_pad", True) and pad != (0, 0)
    return _pooled(call, source, AvgPool2d(size, stride, pad, inside))


def lower_adaptive_avg_pool(call: Call) -> Data:
    """Lower adaptive average pooling where the output size divides the input size."""
    source, line = _image(call)
    size = _adaptive(call, source, line)
    return _pooled(call, source, AvgPool2d(size, size, (0, 0), False))


def lower_adaptive_max_pool(call: Call) -> list[Data | None]:
    """Lower adaptive max-pooling where the output size divides the input size."""
    source, line = _image(call)
    size = _adaptive(call, source, line)
    shape = call.shape_of(_first(call.node.meta["val"]), False)
    image = (shape[0], 1, shape[1]) if line else shape
    node = PoolNode(
        module=call.module, shape=image, sources=(source,), size=size, stride=size, pad=(0, 0)
    )
    return [call.now(reshaped(node, shape)), None]


def _adaptive(call: Call, source: Node, line: bool) -> tuple[int, int]:
    shape = call.shape_of(_first(call.node.meta["val"]), False)
    after = (1, shape[1]) if line else shape[1:]
    sides = list(zip(source.shape[1:], after, strict=True))
    if any(before % result for before, result in sides):
        raise call.refuse(
            f"adaptive pooling from {list(source.shape[1:])} to {list(after)}: the sizes must "
            "divide; pool to 1, or to a divisor"
        )
    return sides[0][0] // sides[0][1], sides[1][0] // sides[1][1]


def _pooled(call: Call, source: Node, operator: Operator) -> Data:
    shape = call.shape()
    image = (shape[0], 1, shape[1]) if len(shape) == 2 else shape
    node = OperatorNode(module=call.module, shape=image, sources=(source,), operator=operator)
    return call.now(reshaped(node, shape))


def _first(value: Any) -> Tensor:
    found = value[0] if isinstance(value, tuple | list) else value
    assert isinstance(found, Tensor)
    return found


def lower_reduce(call: Call) -> Data:
    """Lower mean, sum, amax over given axes."""
    mode = {"mean": "mean", "sum": "sum", "amax": "max"}[call.name.split(".")[0]]
    dims = call.get(1, "dim")
    keep = bool(call.get(2, "keepdim", False))
    return _reduced(call, mode, dims, keep, _stays_leading(call, dims, keep))


def lower_max_over_axis(call: Call) -> list[Data | None]:
    """Lower max over one axis; its positions cannot be used."""
    if len(call.arguments) < 2 or not isinstance(call.arguments[1], int):
        raise call.refuse("only the maximum over one axis, max(dim=...), can be packed")
    dims, keep = [call.arguments[1]], bool(call.get(2, "keepdim", False))
    return [_reduced(call, "max", dims, keep, _stays_leading(call, dims, keep)), None]


def _stays_leading(call: Call, dims: Any, keep: bool) -> bool:
    listed = [dims] if isinstance(dims, int) else list(dims or [])
    rank = len(call.data.shape) + 1
    return call.data.leading and (keep or not any(int(dim) % rank == 0 for dim in listed))


def _reduced(call: Call, mode: str, dims: Any, keep: bool, leading: bool) -> Data:
    if dims is None or (isinstance(dims, list) and not dims):
        raise call.refuse("it reduces the whole batch; name the axes behind the batch axis")
    listed = [dims] if isinstance(dims, int) else list(dims)
    axes = tuple(sorted({call.data.axis(int(dim), call) for dim in listed}))
    if len(axes) == len(call.data.shape) and not keep:
        raise call.refuse("it leaves one number a sample without an axis; use keepdim=True")
    shape = call.shape_of(_first(call.node.meta["val"]), leading)
    operator = Reduce(mode, axes, keep)
    node = OperatorNode(
        module=call.module, shape=shape, sources=(call.data.node,), operator=operator
    )
    return call.now(node, leading)


def lower_softmax(call: Call) -> Data:
    """Lower softmax and log_softmax."""
    axis = call.data.axis(int(call.get(1, "dim")), call)
    log = "log" in call.name
    return call.then(OperatorNode, operator=Softmax(axis, log))


def lower_reshape(call: Call) -> Data:
    """Lower whatever keeps the order of the numbers."""
    shape = call.shape()
    if shape == call.data.shape:
        return replace(call.data, difference=None)
    if call.data.leading:
        raise call.refuse("members are reshaped; combine them before")
    return call.then(ReshapeNode)


def lower_transpose(call: Call) -> Data:
    """Lower permute, transpose and t on the axes behind the batch."""
    rank = len(call.data.shape) + 1
    order = list(range(rank))
    if call.name.split(".")[0] == "permute":
        order = [int(dim) % rank for dim in call.arguments[1]]
    else:
        first, second = (int(dim) % rank for dim in call.arguments[1:3])
        order[first], order[second] = order[second], order[first]
    if call.data.leading or order[0] != 0:
        raise call.refuse("the batch axis is moved; keep it first")
    axes = tuple(dim - 1 for dim in order[1:])
    if axes == tuple(range(rank - 1)):
        return call.data
    return call.then(OperatorNode, operator=Transpose(axes))


def lower_concat(call: Call) -> Data:
    """Lower cat of activations of the same batch."""
    parts = call.arguments[0]
    if not all(isinstance(part, Data) for part in parts):
        raise call.refuse("an activation is joined with a constant; only activations can be joined")
    axis = call.data.axis(int(call.get(1, "dim", 0)), call)
    return call.now(concatenated([part.node for part in parts], axis, call.module))


def lower_stack(call: Call) -> Data:
    """Lower stack: a new axis of the sample, or leading members with dim=0."""
    parts = call.arguments[0]
    if not all(isinstance(part, Data) for part in parts) or call.data.leading:
        raise call.refuse("only activations of one batch can be stacked")
    dim = int(call.get(1, "dim", 0)) % (len(call.data.shape) + 2)
    axis = max(0, dim - 1)
    if dim == 1:
        axis = 0
    sizes = list(call.data.shape)
    sizes.insert(axis, 1)
    nodes = [reshaped(part.node, tuple(sizes)) for part in parts]
    return call.now(concatenated(nodes, axis, call.module), leading=dim == 0)


def lower_pad(call: Call) -> Data:
    """Lower constant padding of the last one or two axes of [channel, ..]."""
    pads = [int(side) for side in call.get(1, "pad")]
    mode, value = call.get(2, "mode", "constant"), call.get(3, "value")
    if "constant_pad_nd" in call.name:
        mode, value = "constant", call.get(2, "value", 0.0)
    left, right, top, below = (pads + [0, 0])[:4]
    if mode != "constant" or len(pads) > 4 or min(pads) < 0:
        raise call.refuse("only constant padding of height and width can be packed")
    source, line = _image(call)
    if line and (top or below):
        raise call.refuse("only the last axis of [channel, length] can be padded")
    shape = call.shape()
    image = (shape[0], 1, shape[1]) if line else shape
    node = PadNode(
        module=call.module,
        shape=image,
        sources=(source,),
        pads=(top, left, below, right),
        value=float(value or 0.0),
    )
    return call.now(reshaped(node, shape))


def lower_channel_shuffle(call: Call) -> Data:
    """Lower channel_shuffle: reshape, transpose, reshape."""
    groups, shape = int(call.arguments[1]), call.data.shape
    inner = 1
    for size in shape[1:]:
        inner *= size
    split = reshaped(call.data.node, (groups, shape[0] // groups, inner))
    turned = OperatorNode(
        module=call.module,
        shape=(shape[0] // groups, groups, inner),
        sources=(split,),
        operator=Transpose((1, 0, 2)),
    )
    return call.now(reshaped(turned, shape))
