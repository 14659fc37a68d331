"""Augmentation as batched tensor code: `(inputs, generator) -> inputs`, for images.

Each function here returns an `Augment`; all randomness comes from the generator it is given, so
a run that is resumed sees the same images.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from whit.core.data import Augment


def in_turn(*augments: Augment) -> Augment:
    """Return an augmentation that applies others one after the other, in the order given."""

    def augment(inputs: Tensor, generator: torch.Generator) -> Tensor:
        for one in augments:
            inputs = one(inputs, generator)
        return inputs

    return augment


def random_flips() -> Augment:
    """Return an augmentation that mirrors each image, left to right, with a chance of one half.

    Shapes: [batch, channels, height, width] -> the same.
    """

    def augment(inputs: Tensor, generator: torch.Generator) -> Tensor:
        flipped = torch.rand(len(inputs), 1, 1, 1, generator=generator) < 0.5
        return torch.where(flipped.to(inputs.device), inputs.flip(3), inputs)

    return augment


def random_shifts(pixels: int, background: float = 0.0) -> Augment:
    """Return an augmentation that moves each image by whole pixels, independently.

    Shapes: float32 [batch, channels, height, width] -> the same.

    Args:
        pixels: largest move in each direction, >= 0.
        background: raw value of the pixels that come in.
    """

    def augment(inputs: Tensor, generator: torch.Generator) -> Tensor:
        batch, _, height, width = inputs.shape
        moves = torch.randint(0, 2 * pixels + 1, (2, batch), generator=generator)
        down, right = moves.to(inputs.device)
        padded = functional.pad(inputs, (pixels,) * 4, value=background)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)
        return windows[torch.arange(batch, device=inputs.device), :, down, right]

    return augment


def random_affine(degrees: float, scale: float, pixels: float) -> Augment:
    """Return an augmentation that turns, scales and moves each image, independently.

    Values are interpolated between pixels; what comes in from outside is 0.

    Shapes: float32 [batch, channels, height, width] -> the same.

    Args:
        degrees: largest angle in either direction.
        scale: largest relative change of size, in 0..1, for height and width independently.
        pixels: largest move in each direction, any number >= 0.
    """

    def augment(inputs: Tensor, generator: torch.Generator) -> Tensor:
        batch, _, height, width = inputs.shape
        draws = torch.rand(5, batch, generator=generator) * 2 - 1
        angle = draws[0] * (degrees * torch.pi / 180)
        tall, wide = 1 + scale * draws[1], 1 + scale * draws[2]
        matrix = torch.empty(batch, 2, 3)
        matrix[:, 0, 0], matrix[:, 0, 1] = wide * angle.cos(), -wide * angle.sin()
        matrix[:, 1, 0], matrix[:, 1, 1] = tall * angle.sin(), tall * angle.cos()
        # The grid spans -1..1, so a pixel is 2 / size.
        matrix[:, 0, 2] = draws[3] * (2 * pixels / width)
        matrix[:, 1, 2] = draws[4] * (2 * pixels / height)
        grid = functional.affine_grid(
            matrix.to(inputs.device), list(inputs.shape), align_corners=False
        )
        return functional.grid_sample(inputs, grid, align_corners=False)

    return augment
