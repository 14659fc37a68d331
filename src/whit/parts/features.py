"""The features of a network: what its last weighted layer reads."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from whit.errors import WhitError

HEADS = (nn.Linear, nn.Conv1d, nn.Conv2d)


class WithFeatures(nn.Module):
    """A network that also returns its features.

    The last linear or convolution layer to be called is taken for the head, which holds for a
    network whose class scores come from one such layer; `path` names another.

    Args:
        network: from inputs to class scores.
        path: of the layer whose input is wanted; None for the last one of `network.modules()`.

    Shapes: inputs [batch, ...] -> (scores [batch, classes], features [batch, d]); features with
    more axes are flattened.

    Raises:
        WhitError: there is no such layer, or (in the call) it is not called exactly once.
    """

    def __init__(self, network: nn.Module, path: str | None = None) -> None:
        """Find the layer."""
        super().__init__()
        self.network = network
        self.path = head_path(network) if path is None else path
        if self.path not in dict(network.named_modules()):
            raise WhitError(
                f"WithFeatures was given the layer '{self.path}', which {type(network).__name__} "
                "does not have. Name one of network.named_modules()."
            )

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and features."""
        taken: list[Tensor] = []
        head = self.network.get_submodule(self.path)
        handle = head.register_forward_pre_hook(lambda _, arguments: taken.append(arguments[0]))
        try:
            scores = self.network(*inputs)
        finally:
            handle.remove()
        if len(taken) != 1:
            raise WhitError(
                f"The layer '{self.path}' was called {len(taken)} times in one call of "
                f"{type(self.network).__name__}, so it has no one input to take features from. "
                "Name a layer that is called once."
            )
        return scores, taken[0].flatten(1)


def head_path(network: nn.Module) -> str:
    """Return the path of the last linear or convolution layer.

    Raises:
        WhitError: there is none.
    """
    paths = [path for path, module in network.named_modules() if isinstance(module, HEADS)]
    if not paths:
        raise WhitError(
            f"{type(network).__name__} has no linear or convolution layer to take features from. "
            "Give the path of the layer whose input is wanted."
        )
    return str(paths[-1])


def features_of(network: nn.Module, *inputs: Tensor, path: str | None = None) -> Tensor:
    """Return features [batch, d] without gradient, in the mode that the network is in."""
    with torch.no_grad():
        return cast(Tensor, WithFeatures(network, path)(*inputs)[1])
