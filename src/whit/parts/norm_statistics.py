"""Batch norm's running statistics, estimated anew for weights that training did not see."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def reestimate_norms(model: nn.Module, batches: Iterable[tuple[Tensor, ...]]) -> nn.Module:
    """Replace the running statistics by the means over some batches, in place; return the model.

    Everything but the batch norms is in evaluation mode meanwhile; afterwards all of it is.

    Args:
        model: any module; without batch norm with running statistics it stays as it is.
        batches: inputs of the model, at least one; they are moved to its device.
    """
    norms = [m for m in model.eval().modules() if isinstance(m, _NORMS) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    if not norms:
        return model
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over the batches
        norm.train()
    device = next(norms[0].buffers()).device
    with torch.no_grad():
        for inputs in batches:
            model(*(x.to(device) for x in inputs))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()
