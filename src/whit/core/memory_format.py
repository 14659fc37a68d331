"""How tensors of images lie in memory while a model trains."""

from __future__ import annotations

from torch import nn

# 6 is the most that crashed where oneDNN has blocks of 8 floats (AVX2); AVX-512 has blocks of 16.
FEWEST_CHANNELS = 16


def suits_channels_last(model: nn.Module) -> bool:
    """Say whether a model has 2-D convolutions, which run faster channels-last, all of them safe.

    torch 2.13's oneDNN writes outside of its memory in the channels-last backward pass of a 1x1
    convolution of stride 2 with few input channels, and the process dies: seen with 1 to 6 of them,
    in plain torch. Such models, small residual networks among them, stay as they are.
    """
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    return bool(convolutions) and not any(
        set(m.kernel_size) == {1}
        and max(m.stride) > 1
        and m.in_channels // m.groups < FEWEST_CHANNELS
        for m in convolutions
    )
