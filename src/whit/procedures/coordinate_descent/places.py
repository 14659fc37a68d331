"""One discrete layer as the scorer sees it: how a move of one weight reaches the next layer.

    linear   the move of W[i, j] by d adds d x_j to output i
    conv     the move of W[o, c, u, v] by d adds d times the input channel c, shifted by (u, v)
    next     a change h of channel i adds W_next[:, i] h to the next layer's output

Shapes: a channel is [samples, *places], see `channels`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from whit.parts.binary_layers import padding_sides
from whit.procedures.coordinate_descent.channels import Segment
from whit.procedures.coordinate_descent.network import DiscreteLayer


@dataclass(eq=False)
class Place:
    """A discrete layer among the steps of a model.

    Attributes:
        number: of the layer in the network.
        layer: its values and indices.
        module: with the same weights, float64.
        node: its step.
        segment: the way of one channel to `following`, or to the output; None where other channels
            take part.
        following: number of the next discrete layer behind the segment; None for the output.
    """

    number: int
    layer: DiscreteLayer
    module: nn.Linear | nn.Conv2d
    node: fx.Node
    segment: Segment | None = None
    following: int | None = None
    _columns: Tensor | None = field(default=None, repr=False)
    _source: Tensor | None = field(default=None, repr=False)

    @property
    def linear(self) -> bool:
        """Whether the layer is linear, so that its channels are the last axis."""
        return isinstance(self.module, nn.Linear)

    def channel(self, output: Tensor, unit: int) -> Tensor:
        """Return one channel of the layer's output: [..., samples, *places], a view."""
        return output[..., unit] if self.linear else output.select(-3, unit)

    def columns(self, inputs: Tensor, position: Tensor) -> Tensor:
        """Return what a change by 1 at each position adds to its channel.

        Shapes: -> [positions, samples, *places].

        Args:
            inputs: of the layer.
            position: int64; weights, then biases.
        """
        weights = self.layer.index.numel()
        if self._source is not inputs:
            self._source, self._columns = inputs, self._prepared(inputs)
        assert self._columns is not None
        if self.linear:
            one_more = self._columns.shape[0] - 1  # the last row is of ones, for biases
            feature = torch.where(
                position < weights, position % self.module.weight.shape[1], one_more
            )
            return self._columns.index_select(0, feature)
        shifted = [self._shifted(self._columns, int(p), weights) for p in position.tolist()]
        return torch.stack(shifted)

    def _prepared(self, inputs: Tensor) -> Tensor:
        if self.linear:
            ones = torch.ones_like(inputs[..., :1])
            return torch.cat([inputs, ones], -1).movedim(-1, 0).contiguous()
        return self.padded(inputs)

    def padded(self, inputs: Tensor) -> Tensor:
        """Return the input of a convolution with its padding around it."""
        conv = self.module
        assert isinstance(conv, nn.Conv2d)
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        sides = padding_sides(conv)
        return functional.pad(inputs, sides, mode=mode) if any(sides) else inputs

    def _shifted(self, padded: Tensor, position: int, weights: int) -> Tensor:
        conv = self.module
        assert isinstance(conv, nn.Conv2d)
        sizes = [
            (padded.shape[2 + a] - conv.dilation[a] * (conv.kernel_size[a] - 1) - 1)
            // conv.stride[a]
            + 1
            for a in (0, 1)
        ]
        if position >= weights:
            return padded.new_ones(len(padded), *sizes)
        rest, column = divmod(position, conv.kernel_size[1])
        rest, row = divmod(rest, conv.kernel_size[0])
        unit, channel = divmod(rest, conv.in_channels // conv.groups)
        group = unit // (conv.out_channels // conv.groups)
        source = padded[:, group * (conv.in_channels // conv.groups) + channel]
        for axis, start in ((1, row * conv.dilation[0]), (2, column * conv.dilation[1])):
            step = conv.stride[axis - 1]
            stop = start + step * (sizes[axis - 1] - 1) + 1
            source = source.narrow(axis, start, stop - start)
            source = source[:, ::step] if axis == 1 else source[:, :, ::step]
        return source

    def contribution(self, unit: int, change: Tensor, flattened: bool) -> Tensor:
        """Return what the change of one input channel adds to the layer's output.

        Shapes: change [rows, *places] -> [rows, ...] as the layer's output.

        Args:
            unit: which channel came from the layer before.
            change: of it.
            flattened: whether the channel's places are neighbouring features.
        """
        weight = self.module.weight
        if isinstance(self.module, nn.Linear):
            if not flattened:
                return change.unsqueeze(-1) * weight[:, unit]
            block = change.flatten(1)
            width = block.shape[1]
            return block @ weight[:, unit * width : (unit + 1) * width].T
        conv = self.module
        group, channel = divmod(unit, conv.in_channels // conv.groups)
        outputs = conv.out_channels // conv.groups
        own = weight[group * outputs : (group + 1) * outputs, channel : channel + 1]
        padded = self.padded(change.unsqueeze(1))
        added = functional.conv2d(padded, own, None, conv.stride, 0, conv.dilation)
        if conv.groups == 1:
            return added
        whole = added.new_zeros(len(added), conv.out_channels, *added.shape[2:])
        whole[:, group * outputs : (group + 1) * outputs] = added
        return whole

    def load(self, unit: int | None = None) -> None:
        """Put the layer's weights and discrete biases into the module, of all units or of one."""
        chosen = slice(None) if unit is None else slice(unit, unit + 1)
        layer = self.layer
        rows = layer.row_scales()[chosen]
        index = layer.index[chosen].long()
        with torch.no_grad():
            scaled = rows.reshape(-1, *[1] * (index.dim() - 1)) * layer.values[index]
            self.module.weight[chosen] = scaled
            if layer.bias_index is not None:
                assert self.module.bias is not None
                self.module.bias[chosen] = rows * layer.values[layer.bias_index[chosen].long()]
