"""Pictures of what is typical of a situation, where the data are small images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from whit.core.notes import LARGEST_PICTURE, MOST_PICTURES
from whit.procedures.reflection.collaborative_group import CollaborativeGroup


def prototype_pictures(group: CollaborativeGroup) -> list[tuple[NDArray[np.uint8], str]]:
    """Return pictures and texts, as many of each situation; none where the data are no images.

    Images are [samples, 1 or 3, height, width], at most 64 a side.
    """
    images = group.samples.inputs[0]
    if (
        images.dim() != 4
        or images.shape[1] not in (1, 3)
        or max(images.shape[2:]) > LARGEST_PICTURE
    ):
        return []
    each = MOST_PICTURES // len(group.names)
    low, high = float(images.min()), float(images.max())
    target = group.samples.target
    return [
        (_pixels(images[number], low, high), f"{name}: {group.class_names[int(target[number])]}")
        for situation, name in enumerate(group.names)
        for number in group.prototypes(situation)[:each]
    ]


def _pixels(image: Tensor, low: float, high: float) -> NDArray[np.uint8]:
    """Scale an image [channels, height, width] from low..high to 0..255."""
    values: NDArray[Any] = image.cpu().numpy().astype(np.float64)
    values = np.round((values - low) / max(high - low, 1e-12) * 255)
    pixels = np.ascontiguousarray(values.transpose(1, 2, 0).astype(np.uint8))
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels
