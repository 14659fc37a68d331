"""Channel gates: a binary convolution scaled by what its real input says of the channels.

    y = conv(b(x), b(w)) * sigmoid(W2 relu(W1 m)),   m = mean of x over its map

Martinez, Yang, Bulat and Tzimiropoulos, "Training Binary Neural Networks with Real-to-Binary
Convolutions", 2020, arXiv 2003.11535; a small squeeze-and-excitation block gives the scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from whit.errors import NoEffect, SpecError
from whit.parts.binary_layers import CONVOLUTIONS, pads_zeros, taken_padding
from whit.parts.straight_through import Sign
from whit.parts.surgery import swap_modules

FEWEST_HIDDEN = 4


class ChannelGate(nn.Module):
    """Factors between 0 and 1, one for each output channel, from the means of a map.

    It starts at 1/2 for every input, so that training starts from the plain binary layer.

    Args:
        inputs: channels of the map, >= 1.
        outputs: channels to scale, >= 1.
        reduction: hidden units are inputs / reduction, at least 4; >= 1.

    Shapes: [batch, inputs, *map] -> [batch, outputs, 1, ...].

    Raises:
        SpecError: the reduction is below 1.
    """

    def __init__(self, inputs: int, outputs: int, reduction: int = 8) -> None:
        """Make the two small real layers."""
        super().__init__()
        if not isinstance(reduction, int) or reduction < 1:
            raise SpecError(
                f"reduction was given {reduction!r}; expected a whole number, 1 or more."
            )
        hidden = max(FEWEST_HIDDEN, inputs // reduction)
        self.squeeze = nn.Linear(inputs, hidden)
        self.excite = nn.Linear(hidden, outputs)
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(self.excite.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the factors."""
        means = x.mean(tuple(range(2, x.dim())))
        gates = torch.sigmoid(self.excite(torch.relu(self.squeeze(means))))
        return gates.reshape(*gates.shape, *[1] * (x.dim() - 2))


class RealToBinary(nn.Module):
    """A convolution that binarises its input itself, and scales its output by a gate of it.

    Args:
        conv: its weight is made binary elsewhere; its padding is taken over.
        sign: of the input.
        padding: value to pad the signs with.
        reduction: of the gate, see `ChannelGate`.

    Shapes: those of the convolution.
    """

    def __init__(
        self,
        conv: nn.Conv1d | nn.Conv2d | nn.Conv3d,
        sign: Sign,
        padding: float,
        reduction: int = 8,
    ) -> None:
        """Take over the padding, if it is not 0 anyway."""
        super().__init__()
        self.sign = sign
        changes = pads_zeros(conv) and padding != 0
        self.pad = taken_padding(conv, padding) if changes else nn.Identity()
        self.conv = conv
        self.gate = ChannelGate(conv.in_channels, conv.out_channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled sums."""
        sums: Tensor = self.conv(self.pad(self.sign(x)))
        gates: Tensor = self.gate(x)
        return sums * gates


def gate_convolutions(
    model: nn.Module, layers: Sequence[nn.Module], sign: Sign, padding: float
) -> list[str]:
    """Put a sign before each of these layers, and a gate around those that are convolutions.

    The activations before them must be gone: gates read real values.

    Args:
        model: is changed in place; its own class stays.
        layers: those whose input is to be binary.
        sign: with the options of all signs.
        padding: value to pad the signs with.

    Returns:
        Paths of the gated convolutions.

    Raises:
        NoEffect: none of the layers is a convolution.
    """
    chosen = {id(layer) for layer in layers}
    if not any(isinstance(layer, CONVOLUTIONS) for layer in layers):
        raise NoEffect(
            "scale='real_to_binary' scales convolutions by the means of their input maps, and no "
            "convolution of the model reads an activation. Use scale='channel'."
        )

    def own_sign() -> Sign:
        return Sign(sign.window, sign.gradient, sign.rounding)

    def gated(module: nn.Module) -> nn.Module:
        assert isinstance(module, CONVOLUTIONS)
        return RealToBinary(module, own_sign(), padding)

    # The others first: a convolution that was put into its gate is found there again.
    swap_modules(
        model,
        lambda m: id(m) in chosen and not isinstance(m, CONVOLUTIONS),
        lambda m: nn.Sequential(own_sign(), m),
    )
    return swap_modules(model, lambda m: id(m) in chosen and isinstance(m, CONVOLUTIONS), gated)
