"""From folded nodes to runtime operators, with every weight in its smallest format."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whit.errors import ArtifactError, CannotPack
from whit.packing.formats import choose_storage
from whit.packing.graph_nodes import (
    ConvNode,
    ElementwiseNode,
    LinearNode,
    Node,
    PadNode,
    PoolNode,
    ReshapeNode,
    ThresholdNode,
)
from whit.runtime.layout import NONE, Activation
from whit.runtime.operators import (
    Affine,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    Normalize,
    Operator,
    Pad2d,
    Relu,
    Reshape,
    Sign,
    Threshold,
)
from whit.runtime.operators.contract import granularity_of

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Emitted:
    """An operator with the module it came from and the reason for its weight format."""

    operator: Operator
    module: str
    reason: str


def emit(nodes: Sequence[Node], source: Activation) -> list[Emitted]:
    """Turn nodes into operators.

    Args:
        nodes: from ``fold``.
        source: the input of the program.

    Raises:
        CannotPack: an operator has no place in the format, or a number does not fit its field.
    """
    emitted: list[Emitted] = []
    for node in nodes:
        try:
            step = _emit_node(node, source)
            joined = _join(emitted[-1], step) if emitted else None
            result = step.operator.result(source)
        except ArtifactError as error:
            raise CannotPack(f"{error}; the packed format cannot hold it", node.module) from error
        if joined is not None:
            emitted[-1] = joined
        else:
            emitted.append(step)
        source = result
    return emitted


def _emit_node(node: Node, source: Activation) -> Emitted:
    if isinstance(node, LinearNode):
        return _emit_matrix(node)
    if isinstance(node, ElementwiseNode):
        return Emitted(_elementwise(node, source), node.module, "")
    return Emitted(_plain_operator(node, source), node.module, "")


def _plain_operator(node: Node, source: Activation) -> Operator:
    if isinstance(node, ThresholdNode):
        return _threshold(node)
    if isinstance(node, PoolNode):
        _check_bytes(node, *node.size, *node.stride, *node.pad)
        return MaxPool2d(node.size, node.stride, node.pad)
    if isinstance(node, PadNode):
        _check_bytes(node, *node.pads)
        return Pad2d(node.pads, float(np.float32(node.value)))
    if isinstance(node, ReshapeNode):
        return Flatten() if node.shape == (source.elements,) else Reshape(node.shape)
    raise CannotPack("this step could not be folded; report it with the model", node.module)


def _emit_matrix(node: LinearNode) -> Emitted:
    values = to_numpy(node.weight, node.module).reshape(node.weight.shape[0], -1)
    bias = None if node.bias is None else to_numpy(node.bias, node.module)
    bias = bias if bias is not None and bias.any() else None
    choice = choose_storage(values)
    if not isinstance(node, ConvNode):
        return Emitted(Linear(choice.weight, bias), node.module, choice.reason)
    size = (int(node.weight.shape[2]), int(node.weight.shape[3]))
    _check_bytes(node, *size, *node.stride, *node.pad, node.dilation)
    operator = Conv2d(
        choice.weight, bias, size, node.stride, node.pad, node.pad_value, node.dilation
    )
    return Emitted(operator, node.module, choice.reason)


def to_numpy(tensor: Tensor, module: str) -> Floats:
    """Return constants as float32.

    Raises:
        CannotPack: NaN or infinite numbers, or numbers that are not real.
    """
    if tensor.is_complex() or not bool(torch.isfinite(tensor).all()):
        raise CannotPack(
            "a weight or constant holds NaN, infinite or complex numbers; the training diverged, "
            "lower the learning rate",
            module,
        )
    values: Floats = tensor.detach().to(torch.float32).numpy()
    return values


def _check_bytes(node: Node, *sizes: int) -> None:
    if any(size > 255 for size in sizes):
        raise CannotPack(f"sizes, strides and pads must be at most 255, got {sizes}", node.module)


def _elementwise(node: ElementwiseNode, source: Activation) -> Operator:
    if node.form == "relu":
        return Relu()
    constants = [to_numpy(constant.reshape(-1), node.module) for constant in node.constants]
    grains = [granularity_of(constant.size, source) for constant in constants]
    first, grain = (constants[0], grains[0]) if constants else (None, NONE)
    minus = np.array([-1], dtype=np.float32)
    made: dict[str, Operator] = {
        "multiply": Affine(first, None, grain, NONE),
        "add": Affine(None, first, NONE, grain),
        "subtract": Normalize(None, first, NONE, grain),
        "divide": Normalize(first, None, grain, NONE),
        "subtract_from": Affine(minus, first, granularity_of(1, source), grain),
    }
    if node.form == "batch_norm":
        return Affine(first, constants[1], grain, grains[1])
    if node.form in made:
        return made[node.form]
    raise CannotPack(
        "this operator is packed only in front of a sign, where it folds away; use ReLU instead",
        node.module,
        node.name,
    )


def _join(before: Emitted, after: Emitted) -> Emitted | None:
    """Join multiply + add into one affine, subtract + divide into one normalize."""
    first, second = before.operator, after.operator
    if type(first) is Affine and type(second) is Affine:
        if first.shift is None and second.scale is None:
            grains = (first.scale_granularity, second.shift_granularity)
            return Emitted(Affine(first.scale, second.shift, *grains), after.module, "")
    if isinstance(first, Normalize) and isinstance(second, Normalize):
        if first.scale is None and second.shift is None:
            grains = (second.scale_granularity, first.shift_granularity)
            return Emitted(Normalize(second.scale, first.shift, *grains), after.module, "")
    return None


def _threshold(node: ThresholdNode) -> Operator:
    flipped = node.flipped.numpy()
    if node.integers:
        numbers = node.thresholds.numpy()
        extreme = max(abs(int(numbers.min())), abs(int(numbers.max())))
        dtype = np.int8 if extreme < 1 << 7 else np.int16 if extreme < 1 << 15 else np.int32
        thresholds: NDArray[np.generic] = numbers.astype(dtype)
    else:
        thresholds = node.thresholds.to(torch.float32).numpy()
    if (thresholds == thresholds[0]).all() and (flipped == flipped[0]).all():
        thresholds, flipped = thresholds[:1], flipped[:1]
    if thresholds.size == 1 and thresholds[0] == 0 and not flipped.any():
        return Sign()
    return Threshold(thresholds, flipped if flipped.any() else None)
