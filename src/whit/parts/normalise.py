"""The first layer of a control model: from raw values to values around zero.

Data stays as it came, and a packed file takes raw values, because the normalisation is a part of
the
model: `y = (x - shift) / scale`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from whit.errors import DataError


class Normalise(nn.Module):
    """Shift and scale the input by constants; nothing is trained.

    Shapes: [batch, ...] -> [batch, ...] float32; the constants broadcast against one sample.

    Args:
        shift: subtracted, in the units of the raw input; a number, or one value per feature.
        scale: divisor, > 0, in the units of the raw input; a number, or one value per feature.

    Raises:
        DataError: a scale is not positive, or a value is not finite.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self, shift: float | Sequence[float] | Tensor, scale: float | Sequence[float] | Tensor
    ) -> None:
        super().__init__()
        self.register_buffer("shift", torch.as_tensor(shift, dtype=torch.float32).clone())
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32).clone())
        if not bool((self.scale > 0).all()):
            raise DataError(f"Normalise was given the scale {scale}; expected values above 0.")
        if not bool(self.shift.isfinite().all() and self.scale.isfinite().all()):
            raise DataError(f"Normalise was given {shift} and {scale}; expected finite values.")

    @classmethod
    def fitted(cls, inputs: Tensor, input_range: tuple[float, float] | None = None) -> Normalise:
        """Return the normalisation for training inputs; never give it validation or test samples.

        Integers (raw measurements) get one shift and one scale that are exact in binary: half of
        the next power of two above the range, so 0..16 gives (x - 8) / 8 and 0..255 gives (x - 128)
        / 128. Sums of such values are exact in float32, on every backend. Floats get the mean
        and the standard deviation of each feature; a constant feature gets the scale 1.

        Shapes: inputs [samples, ...].

        Args:
            inputs: of the training split; uint8 or another small integer type, or float.
            input_range: lowest and highest possible raw value; those of `inputs` by default.

        Raises:
            DataError: the inputs are int64, which are indices and no measurements.
        """
        if inputs.dtype == torch.int64:
            raise DataError("int64 inputs are indices; embed them instead of normalising them.")
        if inputs.is_floating_point():
            values = inputs.double()
            scale = values.std(0, correction=0)
            return cls(values.mean(0).float(), scale.where(scale > 0, 1.0).float())
        low, high = input_range or (float(inputs.min()), float(inputs.max()))
        half = 2.0 ** (math.ceil(math.log2(max(high - low, 1.0))) - 1)
        return cls(low + half, half)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return `(inputs - shift) / scale`."""
        return (inputs - self.shift) / self.scale

    def extra_repr(self) -> str:
        """Show the constants where there is one of each."""
        if self.scale.dim() > 0:
            return f"features={tuple(self.scale.shape)}"
        return f"shift={self.shift.item():g}, scale={self.scale.item():g}"
