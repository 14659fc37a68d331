"""What a model answers outside of training: its outputs, and its quality after an epoch."""

from __future__ import annotations

from contextlib import AbstractContextManager
from math import isfinite

import torch
from torch import Tensor, nn

from whit.core.data import Split
from whit.core.surroundings import Surroundings
from whit.core.task import Task
from whit.measure.meter import undisturbed

PREDICT_BATCH = 1000


def predict(model: nn.Module, split: Split, task: Task, device: torch.device) -> Tensor:
    """Return one output per sample, in evaluation mode, on the CPU.

    Shapes: -> [samples, *output_axes]; leading axes (members, exits) are combined by the task.
    """
    training = {m: m.training for m in model.modules()}
    model.eval()
    split = split.to(device)
    outputs = []
    try:
        with torch.no_grad():
            for start in range(0, len(split), PREDICT_BATCH):
                stop = min(start + PREDICT_BATCH, len(split))
                index = torch.arange(start, stop, device=device)
                output = model(*split.batch(index).inputs)
                task.check_output(output, len(index))
                outputs.append(task.combined_output(output).cpu())
    finally:
        for module, mode in training.items():
            module.training = mode
    return torch.cat(outputs)


class Validation:
    """The task's metric on the validation split, after every epoch of one call of `fit`.

    It leaves no trace: weights, buffers, random streams and the meter are as before.

    Args:
        model: that is trained.
        surroundings: give the validation samples (or None), task, device and meter.
    """

    def __init__(self, model: nn.Module, surroundings: Surroundings) -> None:
        """Move the samples to the device once."""
        self.model, self.task = model, surroundings.task
        self.device, self.meter = surroundings.device, surroundings.meter
        split = surroundings.valid
        self.split = None if split is None else split.to(self.device)

    def score(self, watch: AbstractContextManager[object]) -> tuple[float | None, str]:
        """Return the metric and "", or None and why it is unknown.

        A procedure may train on something else than the task's samples. After the first failure
        the metric is not tried again.

        Args:
            watch: is entered around the forward calls.
        """
        if self.split is None:
            return None, ""
        try:
            with self.meter.uncharged(), undisturbed(self.model), watch:
                output = predict(self.model, self.split, self.task, self.device)
                value = self.task.score(output, self.split.target.cpu())
        except Exception as error:  # whatever a model or a metric of a user raises
            self.split = None
            text = " ".join(f"{type(error).__name__}: {error}".split())
            return None, f"The validation metric is unknown in this call of fit ({text[:200]})."
        if not isfinite(value):
            return None, f"The validation metric '{self.task.metric_name}' is {value}."
        return value, ""
