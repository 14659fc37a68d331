"""The network of BinaryDenseNet, by sizes: binary dense layers between real transitions.

Bethge et al. 2018 and 2019; see `methods.low_bit.binary_densenet`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from whit.errors import NotApplicable, SpecError
from whit.parts.binary_layers import PADDINGS, BinaryWeight, Padding
from whit.parts.levels import SCALES, Scale
from whit.parts.straight_through import Gradient, Sign, check_sign

Head = Literal["classes", "image"]
Transitions = Literal["real", "binary"]
TRANSITIONS = ("real", "binary")
LARGE_IMAGE = 50


@dataclass(frozen=True)
class Architecture:
    """Sizes and choices of a BinaryDenseNet; the defaults are those of the papers.

    Attributes:
        layers: dense layers of each block, each >= 1.
        reductions: divisor of the channels in each transition, one fewer than blocks, each >= 1.
        growth: new channels of a dense layer, >= 1.
        filters: channels of the stem, >= 1.
        dilations: of the convolutions of each block; before a block with more than 1 nothing is
            pooled, so that its maps stay large. Empty for 1 everywhere.
        multiple: channels behind a transition are a multiple of this, >= 1.
        window: a sign's gradient passes where |x| <= window, > 0.
        gradient: of a sign, "ste" or "approxsign".
        padding: of binary convolutions, "plus_one", "minus_one" or "zero" (not binary).
        scale: of binary weights, "none", "layer" or "channel".
        bottleneck: 0, or a binary convolution 1x1 to bottleneck * growth channels comes first.
        transitions: "real", or "binary": sign instead of ReLU, and binary convolutions 1x1.

    Raises:
        SpecError: an option is out of range.
    """

    layers: tuple[int, ...]
    reductions: tuple[float, ...]
    growth: int = 64
    filters: int = 64
    dilations: tuple[int, ...] = ()
    multiple: int = 32
    window: float = 1.3
    gradient: Gradient = "ste"
    padding: Padding = "plus_one"
    scale: Scale = "none"
    bottleneck: int = 0
    transitions: Transitions = "real"

    def __post_init__(self) -> None:
        """Check sizes and names."""
        _check_counts("layers", self.layers, 1)
        for name in ("growth", "filters", "multiple"):
            _check_count(name, getattr(self, name), 1)
        _check_count("bottleneck", self.bottleneck, 0)
        blocks = len(self.layers)
        if len(self.reductions) != blocks - 1 or not all(_is_divisor(r) for r in self.reductions):
            raise SpecError(
                f"reductions was given {self.reductions!r} for {blocks} blocks; expected one "
                "number, 1 or more, between every two blocks."
            )
        if self.dilations:
            _check_counts("dilations", self.dilations, 1)
        if len(self.dilations) not in (0, blocks):
            raise SpecError(
                f"dilations was given {self.dilations!r} for {blocks} blocks; expected one for "
                "each."
            )
        check_sign(self.window, self.gradient)
        for name, known in (
            ("padding", tuple(PADDINGS)),
            ("scale", SCALES),
            ("transitions", TRANSITIONS),
        ):
            value = getattr(self, name)
            if value not in known:
                raise SpecError(f"{name} was given {value!r}. Known: {', '.join(known)}.")

    def dilation(self, block: int) -> int:
        """Return the dilation of a block."""
        return self.dilations[block] if self.dilations else 1

    def after_transition(self, channels: int, block: int) -> int:
        """Return the channels behind the transition that follows a block."""
        whole = math.floor(channels / self.reductions[block])
        return max(1, round(whole / self.multiple)) * self.multiple

    def sign(self) -> Sign:
        """Return a new binary activation."""
        return Sign(self.window, self.gradient)

    def binary(self, conv: nn.Conv2d) -> nn.Conv2d:
        """Return the convolution with binary weights, Glorot normal behind them."""
        nn.init.xavier_normal_(conv.weight)
        parametrize.register_parametrization(conv, "weight", BinaryWeight(self.scale))
        return conv


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _check_count(name: str, value: object, least: int) -> None:
    if not _is_count(value, least):
        raise SpecError(f"{name} was given {value!r}; expected a whole number, {least} or more.")


def _check_counts(name: str, values: object, least: int) -> None:
    good = isinstance(values, tuple) and all(_is_count(v, least) for v in values)
    if not good or not values:
        shown = list(values) if isinstance(values, tuple) else values
        raise SpecError(f"{name} was given {shown!r}; expected whole numbers, {least} or more.")


def _is_divisor(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 1 <= value < math.inf  # type: ignore[operator]


class DenseLayer(nn.Module):
    """Append binary features to what came in: [x, conv(b(norm(x)))].

    Args:
        channels: that come in, >= 1.
        plan: sizes and options.
        dilation: of the 3 x 3 convolution, >= 1.

    Shapes: [batch, channels, height, width] -> [batch, channels + growth, height, width].
    """

    def __init__(self, channels: int, plan: Architecture, dilation: int) -> None:
        """Make norm, sign, padding and convolution, behind a bottleneck if there is one."""
        super().__init__()
        steps: OrderedDict[str, nn.Module] = OrderedDict()
        if plan.bottleneck:
            wide = plan.bottleneck * plan.growth
            steps["norm1"], steps["sign1"] = nn.BatchNorm2d(channels), plan.sign()
            steps["conv1"] = plan.binary(nn.Conv2d(channels, wide, 1, bias=False))
            channels = wide
        steps["norm"], steps["sign"] = nn.BatchNorm2d(channels), plan.sign()
        # Padded apart with the value that is deployed: zeros would be a third one.
        steps["pad"] = nn.ConstantPad2d(dilation, PADDINGS[plan.padding])
        conv = nn.Conv2d(channels, plan.growth, 3, dilation=dilation, bias=False)
        steps["conv"] = plan.binary(conv)
        self.new = nn.Sequential(steps)

    def forward(self, x: Tensor) -> Tensor:
        """Return old and new features."""
        return torch.cat([x, self.new(x)], 1)


class BinaryDenseNet(nn.Module):
    """Stem, dense blocks with transitions between them, and a real last layer.

    Args:
        plan: sizes and options.
        channels: of the image, >= 1.
        outputs: classes, or channels of the image that comes out, >= 1.
        size: height and width; decide on the stem.
        head: "classes", or "image": nothing is pooled, and a real convolution 1x1 ends it.
        normalise: first layer, from raw values.

    Shapes: [batch, channels, height, width] -> [batch, outputs], or [batch, outputs, height,
    width].

    Raises:
        NotApplicable: pooling leaves nothing of images of this size.
    """

    def __init__(
        self,
        plan: Architecture,
        channels: int,
        outputs: int,
        size: tuple[int, int],
        head: Head = "classes",
        normalise: nn.Module | None = None,
    ) -> None:
        """Build stem, blocks and transitions, and the end."""
        super().__init__()
        pooled = head == "classes"
        stem = _large_stem if pooled and min(size) >= LARGE_IMAGE else _small_stem
        steps = OrderedDict(normalise=normalise or nn.Identity(), stem=stem(channels, plan.filters))
        width, rows = plan.filters, min(size) // (4 if stem is _large_stem else 1)
        for block, count in enumerate(plan.layers):
            dilation = plan.dilation(block)
            if block > 0:
                pools = pooled and dilation == 1
                after = plan.after_transition(width, block - 1)
                steps[f"transition{block}"] = _transition(width, after, plan, pools)
                width, rows = after, rows // 2 if pools else rows
            for number in range(1, count + 1):
                steps[f"block{block + 1}_layer{number}"] = DenseLayer(width, plan, dilation)
                width += plan.growth
        if rows < 1:
            raise NotApplicable(
                f"binary_densenet halves images {len(plan.layers) - 1} times, and nothing is left "
                f"of {size[0]} x {size[1]} pixels. Use fewer blocks: layers=[3, 3]."
            )
        steps["norm"], steps["relu"] = nn.BatchNorm2d(width), nn.ReLU()
        steps.update(_class_head(width, outputs) if pooled else _image_head(width, outputs))
        self.steps = nn.Sequential(steps)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores, or an image."""
        result: Tensor = self.steps(x)
        return result


def _small_stem(channels: int, filters: int) -> nn.Module:
    return _he_normal(nn.Conv2d(channels, filters, 3, padding=1, bias=False))


def _large_stem(channels: int, filters: int) -> nn.Module:
    return nn.Sequential(
        _he_normal(nn.Conv2d(channels, filters, 7, stride=2, padding=3, bias=False)),
        nn.BatchNorm2d(filters),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
    )


def _he_normal(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv


def _transition(channels: int, after: int, plan: Architecture, pools: bool) -> nn.Module:
    steps: OrderedDict[str, nn.Module] = OrderedDict(norm=nn.BatchNorm2d(channels))
    if pools:
        steps["pool"] = nn.MaxPool2d(2)
    conv = nn.Conv2d(channels, after, 1, bias=False)
    if plan.transitions == "binary":
        steps["sign"], steps["conv"] = plan.sign(), plan.binary(conv)
    else:
        steps["relu"], steps["conv"] = nn.ReLU(), _he_normal(conv)
    return nn.Sequential(steps)


def _class_head(width: int, classes: int) -> dict[str, nn.Module]:
    return {
        "mean": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "head": nn.Linear(width, classes),
    }


def _image_head(width: int, outputs: int) -> dict[str, nn.Module]:
    return {"head": nn.Conv2d(width, outputs, 1)}
