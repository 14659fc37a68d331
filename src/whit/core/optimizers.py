"""The optimisers that `fit` uses."""

from __future__ import annotations

import torch
from torch import nn

from whit.core.settings import Settings
from whit.errors import TaskError


def make_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """Return the fused optimiser of the settings; vectors (biases, norms) are not decayed.

    Raises:
        TaskError: the model has no parameter that requires a gradient.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise TaskError(
            "The model has no trainable parameter. Give a model with weights, or unfreeze some."
        )
    decay = settings.weight_decay
    kinds = [
        ([p for p in trained if p.dim() >= 2], decay),
        ([p for p in trained if p.dim() < 2], 0.0),
    ]
    if decay == 0:  # one group is faster to step than two
        kinds = [(trained, 0.0)]
    groups = [{"params": params, "weight_decay": d} for params, d in kinds if params]
    rate = settings.learning_rate
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True, fused=True)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=rate, fused=True)
