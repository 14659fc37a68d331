"""Control models by name and width, and the `build` function of a built-in task.

All start with `Normalise`, so they take raw values. Layers before a batch norm have no bias of
their own, every activation is a module of its own (techniques swap them), and in `conv4` the
pooling comes before batch norm and activation: for ReLU that is the same class of functions with a
quarter of the elements to normalise, and binary activations must be pooled before the sign.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from whit.core.data import Data, ImageData
from whit.core.options import is_number, nearest
from whit.errors import TaskError
from whit.parts.normalise import Normalise

Builder = Callable[..., nn.Module]
LARGEST_WIDTH = 64


def hidden_width(base: int, width: float) -> int:
    """Return a base size times the width, rounded, at least 4."""
    return max(4, round(base * width))


def mlp4(data: Data, width: float = 1.0) -> nn.Module:
    """Build four linear layers, each but the last followed by batch norm and ReLU.

    The three hidden sizes follow the number of input values, so that a small input gets a small
    model and savings are not flattered: 512-256-128 from 256 values on (MNIST), 128-128-64 from 32
    on (digits), else 32-32-16 (small tables).

    Shapes: [batch, ...] -> [batch, data.output_size].

    Args:
        data: gives the input shape, the normalisation and the output size.
        width: multiplies the hidden sizes, > 0.
    """
    values = math.prod(data.input_shape)
    bases = (512, 256, 128) if values >= 256 else (128, 128, 64) if values >= 32 else (32, 32, 16)
    return _normalised_mlp(data, bases, width)


def _normalised_mlp(data: Data, bases: tuple[int, ...], width: float) -> nn.Module:
    values = math.prod(data.input_shape)
    layers = _start(data)
    if len(data.input_shape) > 1:
        layers["flatten"] = nn.Flatten()
    for number, base in enumerate(bases, start=1):
        size = hidden_width(base, width)
        _linear_block(layers, number, values, size)
        values = size
    layers["head"] = nn.Linear(values, data.output_size)
    return nn.Sequential(layers)


def mlp2(data: Data, width: float = 1.0) -> nn.Module:
    """Build two linear layers with a ReLU between them, and nothing else.

    The hidden size follows the number of input values: 256 from 256 values on (MNIST), 32 from 32
    on (digits), else 10 (small tables).

    Shapes: [batch, ...] -> [batch, data.output_size].

    Args:
        data: gives the input shape, the normalisation and the output size.
        width: multiplies the hidden size, > 0.
    """
    values = math.prod(data.input_shape)
    size = hidden_width(256 if values >= 256 else 32 if values >= 32 else 10, width)
    layers = _start(data)
    if len(data.input_shape) > 1:
        layers["flatten"] = nn.Flatten()
    layers["linear1"] = nn.Linear(values, size)
    layers["relu1"] = nn.ReLU()
    layers["head"] = nn.Linear(size, data.output_size)
    return nn.Sequential(layers)


def mlp4_wide(data: Data, width: float = 1.0) -> nn.Module:
    """Build `mlp4` with three hidden layers of the same size, 1024.

    Shapes: [batch, ...] -> [batch, data.output_size].

    Args:
        data: gives the input shape, the normalisation and the output size.
        width: multiplies the hidden size, > 0.
    """
    return _normalised_mlp(data, (1024, 1024, 1024), width)


def conv4(data: Data, width: float = 1.0) -> nn.Module:
    """Build two convolutions (32 and 64 channels, 3 x 3) and two linear layers (128 hidden).

    Shapes: [batch, channels, height, width] -> [batch, data.output_size]; height and width >= 4.

    Args:
        data: gives the input shape, the normalisation and the output size.
        width: multiplies channels and hidden size, > 0.

    Raises:
        TaskError: the data are no images, or the images are smaller than 4 x 4.
    """
    _require_images(data, "conv4")
    layers = _start(data)
    channels, rows, columns = data.input_shape
    for number, base in enumerate((32, 64), start=1):
        size = hidden_width(base, width)
        layers[f"conv{number}"] = nn.Conv2d(channels, size, 3, padding=1, bias=False)
        layers[f"pool{number}"] = nn.MaxPool2d(2)
        layers[f"norm{number}"] = nn.BatchNorm2d(size)
        layers[f"relu{number}"] = nn.ReLU()
        channels, rows, columns = size, rows // 2, columns // 2
    layers["flatten"] = nn.Flatten()
    size = hidden_width(128, width)
    _linear_block(layers, 3, channels * rows * columns, size)
    layers["head"] = nn.Linear(size, data.output_size)
    return nn.Sequential(layers)


class ResidualBlock(nn.Module):
    """Two convolutions 3 x 3 with batch norm, and a shortcut around them: `relu(f(x) + s(x))`.

    The shortcut `s` is the identity, or a convolution 1 x 1 with batch norm where shapes change.

    Shapes: [batch, inputs, height, width] -> [batch, outputs, ceil(height / stride),
    ceil(width / stride)].

    Args:
        inputs: channels that come in, >= 1.
        outputs: channels that go out, >= 1.
        stride: of the first convolution and of the shortcut, >= 1.

    Reference: He, Zhang, Ren and Sun 2015, https://arxiv.org/abs/1512.03385.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                OrderedDict(
                    conv=nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False),
                    norm=nn.BatchNorm2d(outputs),
                )
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        hidden = self.relu1(self.norm1(self.conv1(x)))
        output: Tensor = self.relu2(self.norm2(self.conv2(hidden)) + self.shortcut(x))
        return output


def resnet8(data: Data, width: float = 1.0) -> nn.Module:
    """Build a small residual network: a convolution, three residual blocks, a linear layer.

    The blocks have 16, 32 and 64 channels, and the second and the third halve the image. It is of
    the size that MLPerf Tiny uses for CIFAR-10: 78 thousand parameters at width 1.

    Shapes: [batch, channels, height, width] -> [batch, data.output_size]; height and width >= 4.

    Args:
        data: gives the input shape, the normalisation and the output size.
        width: multiplies the channels, > 0.

    Raises:
        TaskError: the data are no images, or the images are smaller than 4 x 4.
    """
    _require_images(data, "resnet8")
    layers = _start(data)
    channels = hidden_width(16, width)
    # Names apart from those in the blocks: a technique's `skip` takes the last part of a path too.
    layers["stem"] = nn.Conv2d(data.input_shape[0], channels, 3, padding=1, bias=False)
    layers["stem_norm"] = nn.BatchNorm2d(channels)
    layers["stem_relu"] = nn.ReLU()
    for number, (base, stride) in enumerate(((16, 1), (32, 2), (64, 2)), start=1):
        size = hidden_width(base, width)
        layers[f"block{number}"] = ResidualBlock(channels, size, stride)
        channels = size
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["head"] = nn.Linear(channels, data.output_size)
    return nn.Sequential(layers)


def _require_images(data: Data, model: str) -> None:
    if not isinstance(data, ImageData) or min(data.input_shape[1:]) < 4:
        raise TaskError(
            f"The model '{model}' needs images of 4 x 4 pixels or more, and the task has "
            f"{type(data).__name__} with inputs {list(data.input_shape)}. Use model='mlp4'."
        )


def _start(data: Data) -> OrderedDict[str, nn.Module]:
    return OrderedDict(normalise=Normalise.fitted(data.train.inputs[0], data.input_range))


def _linear_block(
    layers: OrderedDict[str, nn.Module], number: int, inputs: int, outputs: int
) -> None:
    layers[f"linear{number}"] = nn.Linear(inputs, outputs, bias=False)
    layers[f"norm{number}"] = nn.BatchNorm1d(outputs)
    layers[f"relu{number}"] = nn.ReLU()


CONTROL_MODELS: Mapping[str, Builder] = {
    "mlp2": mlp2,
    "mlp4": mlp4,
    "mlp4_wide": mlp4_wide,
    "conv4": conv4,
    "resnet8": resnet8,
}


def check_width(width: float) -> None:
    """Check the option `width`.

    Raises:
        TaskError: it is no finite number above 0.
    """
    if not is_number(width) or not 0 < width <= LARGEST_WIDTH:
        given = repr(width) if len(repr(width)) < 40 else "a huge number"
        raise TaskError(
            f"The width was given as {given}; expected a number above 0, at most {LARGEST_WIDTH}."
        )


def control_builder(model: str, width: float) -> Builder:
    """Return `build(data, *, model, width)` of a task, with the task's own values as defaults.

    Args:
        model: a name in `CONTROL_MODELS`.
        width: multiplies the hidden sizes, > 0.

    Raises:
        TaskError: (here, and when the model is built) an unknown name, or a width not above 0.
    """

    def build(data: Data, *, model: str = model, width: float = width) -> nn.Module:
        _check(model, width)
        return CONTROL_MODELS[model](data, width)

    _check(model, width)
    return build


def width_builder(model: Builder, width: float) -> Builder:
    """Return `build(data, *, width)` of a task that has one control model.

    Raises:
        TaskError: (here, and when the model is built) the width is not positive.
    """

    def build(data: Data, *, width: float = width) -> nn.Module:
        check_width(width)
        return model(data, width)

    check_width(width)
    return build


def _check(model: str, width: float) -> None:
    if not isinstance(model, str) or model not in CONTROL_MODELS:
        raise TaskError(
            f"There is no control model '{model}'. {nearest(str(model), CONTROL_MODELS)}"
        )
    check_width(width)


def call_text(make: Callable[..., object], **options: object) -> str:
    """Return the call that makes a task, without options at their defaults: its name in results.

    Args:
        make: the task function, whose keyword-only options have defaults.
        options: the values of this call.
    """
    defaults = make.__kwdefaults__ or {}
    written = [f"{k}={v!r}" for k, v in options.items() if defaults.get(k) != v]
    return f"{make.__name__}({', '.join(written)})" if written else make.__name__
