"""A float32 program as a module of ordinary torch layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from whit.benchmarking.float_twin import NoTwin
from whit.runtime import Program
from whit.runtime.layout import CHANNEL, FEATURE
from whit.runtime.operators import (
    Add,
    Affine,
    AvgPool2d,
    Clamp,
    Concat,
    Conv2d,
    Curve,
    Embedding,
    Flatten,
    GroupNorm,
    LayerNorm,
    LeakyRelu,
    Linear,
    MaxPool2d,
    Multiply,
    Normalize,
    Operator,
    Pad2d,
    Reduce,
    Relu,
    Reshape,
    Softmax,
    Transpose,
)
from whit.runtime.program import Step

TOLERANCE = 1e-3  # of the largest output


def torch_twin(program: Program) -> nn.Module:
    """Return a module that computes what a float32 program computes, in eval mode.

    A chain becomes an `nn.Sequential` of the layers that a user would write.

    Raises:
        NoTwin: an operator has no layer in torch, or the module computes something else.
    """
    readers = Counter(value for step in program.steps for value in _read(step))
    layers = [_layer(step, readers[step.source] == 1 and step.source > 0) for step in program.steps]
    chain = all(step.source == number for number, step in enumerate(program.steps))
    chain = chain and all(step.operator.inputs == 1 for step in program.steps)
    module = nn.Sequential(*layers) if chain else _Graph(program.steps, layers)
    if program.leading:
        module = nn.Sequential(module, _Function(lambda x: x.transpose(0, 1)))
    return module.eval().requires_grad_(False)


def check_torch_twin(module: nn.Module, program: Program, inputs: np.ndarray[Any, Any]) -> None:
    """Compare a module with its program.

    Raises:
        NoTwin: they differ beyond float rounding.
    """
    with torch.inference_mode():
        found = module(as_tensor(inputs)).numpy()
    expected = program(inputs)
    apart = float(np.abs(found - expected).max())
    if apart > TOLERANCE * max(1e-9, float(np.abs(expected).max())):
        raise NoTwin(f"its form in torch differs by {apart:g}: please report this with the file")


def as_tensor(inputs: np.ndarray[Any, Any]) -> Tensor:
    """Return inputs of a program as torch takes them: indices as int64."""
    return torch.from_numpy(inputs.astype(np.int64) if inputs.dtype == np.int32 else inputs)


class _Graph(nn.Module):
    """Layers that read each other's results by number."""

    def __init__(self, steps: tuple[Step, ...], layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.read = [_read(step) for step in steps]

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for layer, read in zip(self.layers, self.read, strict=True):
            values.append(layer(*(values[number] for number in read)))
        return values[-1]


class _Function(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *values: Tensor) -> Tensor:
        return self.function(*values)


class _Scale(nn.Module):
    """Multiply and add, or subtract and divide."""

    scale: Tensor | None
    shift: Tensor | None

    def __init__(self, operator: Affine, axes: int) -> None:
        super().__init__()
        self.first = isinstance(operator, Normalize)
        for name in ("scale", "shift"):
            constants = getattr(operator, name)
            granularity = getattr(operator, f"{name}_granularity")
            self.register_buffer(name, _spread(constants, granularity, axes))

    def forward(self, x: Tensor) -> Tensor:
        if self.first:
            x = x if self.shift is None else x - self.shift
            return x if self.scale is None else x / self.scale
        x = x if self.scale is None else x * self.scale
        return x if self.shift is None else x + self.shift


def _read(step: Step) -> tuple[int, ...]:
    return (step.source, step.other) if step.operator.inputs == 2 else (step.source,)


def _layer(step: Step, alone: bool) -> nn.Module:
    operator, axes = step.operator, len(step.cost.input_shape)
    if isinstance(operator, Linear | Embedding):
        return _rows(operator)
    if isinstance(operator, Conv2d):
        return _conv2d(operator, step.cost.input_shape[0])
    if isinstance(operator, Relu):
        return nn.ReLU(inplace=alone)  # overwriting what nothing else reads is quicker
    if isinstance(operator, Affine):
        return _Scale(operator, axes)
    if isinstance(operator, LayerNorm | GroupNorm):
        return _norm(operator, step.cost.input_shape)
    return _plain(operator, axes)


def _rows(operator: Linear | Embedding) -> nn.Module:
    weight = operator.weight
    if isinstance(operator, Embedding):
        return nn.Embedding(weight.rows, weight.columns, _weight=_tensor(weight.values))
    layer = nn.Linear(weight.columns, weight.rows, bias=operator.bias is not None)
    return _filled(layer, weight.values, operator.bias)


def _conv2d(operator: Conv2d, channels: int) -> nn.Module:
    per_group = operator.weight.columns // (operator.size[0] * operator.size[1])
    layer = nn.Conv2d(
        channels,
        operator.weight.rows,
        operator.size,
        stride=operator.stride,
        padding=operator.pad,
        dilation=operator.dilation,
        groups=channels // per_group,
        bias=operator.bias is not None,
    )
    return _filled(layer, operator.weight.values, operator.bias)


def _filled(layer: nn.Linear | nn.Conv2d, values: Any, bias: Any) -> nn.Module:
    with torch.no_grad():
        layer.weight.copy_(_tensor(values).reshape(layer.weight.shape))
        if layer.bias is not None:
            layer.bias.copy_(_tensor(bias))
    return layer


def _norm(operator: LayerNorm | GroupNorm, shape: tuple[int, ...]) -> nn.Module:
    weight = None if operator.weight is None else _tensor(operator.weight)
    shift = None if operator.shift is None else _tensor(operator.shift)
    if isinstance(operator, GroupNorm):
        function = partial(
            functional.group_norm, num_groups=operator.groups, weight=weight, bias=shift
        )
        return _Function(partial(function, eps=float(operator.epsilon)))
    last = shape[-operator.axes :]
    given = [None if part is None else part.reshape(last) for part in (weight, shift)]
    return _Function(
        lambda x: functional.layer_norm(x, last, given[0], given[1], float(operator.epsilon))
    )


def _plain(operator: Operator, axes: int) -> nn.Module:
    """Return the layer of an operator without a weight; `axes` is how many a sample has."""
    for kind, make in _PLAIN.items():
        if isinstance(operator, kind):
            return make(operator, axes)
    raise NoTwin(f"the operator {operator.kind} has no layer in torch here")


def _max_pool(operator: MaxPool2d, axes: int) -> nn.Module:
    return nn.MaxPool2d(operator.size, operator.stride, operator.pad)


def _avg_pool(operator: AvgPool2d, axes: int) -> nn.Module:
    counted = not operator.inside_only
    return nn.AvgPool2d(operator.size, operator.stride, operator.pad, count_include_pad=counted)


def _pad(operator: Pad2d, axes: int) -> nn.Module:
    top, left, below, right = operator.pads
    return nn.ConstantPad2d((left, right, top, below), operator.value)


def _reduce(operator: Reduce, axes: int) -> nn.Module:
    dims = [axis + 1 for axis in operator.axes]
    functions: dict[str, Callable[..., Tensor]] = {
        "mean": torch.mean,
        "max": torch.amax,
        "sum": torch.sum,
    }
    function = functions[operator.mode]
    return _Function(lambda x: function(x, dim=dims, keepdim=operator.keep))


def _leaky(operator: LeakyRelu, axes: int) -> nn.Module:
    if operator.slopes.size == 1:
        return nn.LeakyReLU(float(operator.slopes[0]))
    layer = nn.PReLU(operator.slopes.size)
    layer.weight.data = _tensor(operator.slopes)
    return layer


def _softmax(operator: Softmax, axes: int) -> nn.Module:
    return (nn.LogSoftmax if operator.log else nn.Softmax)(dim=operator.axis + 1)


def _curve(operator: Curve, axes: int) -> nn.Module:
    if operator.function == "elu":
        return nn.ELU(float(operator.alpha))
    return _CURVES[operator.function]()


def _tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32))


def _spread(constants: Any, granularity: int, axes: int) -> Tensor | None:
    if constants is None:
        return None
    tensor = _tensor(constants)
    if granularity == CHANNEL:
        return tensor.reshape(-1, *(1,) * (axes - 1))
    if granularity == FEATURE and axes > 1:
        raise NoTwin("a scale for each single value has no layer in torch here")
    return tensor


_CURVES: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, "tanh"),
    "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish,
    "softplus": nn.Softplus,
    "abs": lambda: _Function(torch.abs),
    "square": lambda: _Function(torch.square),
}
_PLAIN: dict[type, Callable[[Any, int], nn.Module]] = {
    MaxPool2d: _max_pool,
    AvgPool2d: _avg_pool,
    Pad2d: _pad,
    Reduce: _reduce,
    LeakyRelu: _leaky,
    Softmax: _softmax,
    Curve: _curve,
    Clamp: lambda operator, axes: nn.Hardtanh(operator.low, operator.high),
    Flatten: lambda operator, axes: nn.Flatten(),
    Reshape: lambda operator, axes: (
        nn.Unflatten(1, operator.shape)
        if axes == 1
        else _Function(lambda x: x.reshape(x.shape[0], *operator.shape))
    ),
    Transpose: lambda operator, axes: _Function(
        lambda x: x.permute(0, *(axis + 1 for axis in operator.order))
    ),
    Multiply: lambda operator, axes: _Function(torch.mul),
    Add: lambda operator, axes: _Function(torch.add),
    Concat: lambda operator, axes: _Function(
        lambda first, second: torch.cat([first, second], dim=operator.axis + 1)
    ),
}
