"""The one training loop.

Data that fits in memory lives in tensors, a batch is an index selection, augmentation is batched
tensor code, convolutions on the CPU run channels-last, and the optimisers are fused. Every epoch
can be saved, and a run that was killed goes on to the same weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from whit.core.checkpoints import (
    load_model_state,
    model_state,
    random_states,
    read_checkpoint,
    require_readable,
    set_random_states,
    write_checkpoint,
)
from whit.core.data import Augment, Batch, Split
from whit.core.divergence import is_finite, where_not_finite
from whit.core.health import Health
from whit.core.hook import Hook, Plan
from whit.core.memory_format import suits_channels_last
from whit.core.optimizers import make_optimizer
from whit.core.prediction import Validation
from whit.core.prediction import predict as predict
from whit.core.sample_order import SampleOrder
from whit.core.settings import Settings
from whit.core.surroundings import Progress as Progress
from whit.core.surroundings import Surroundings as Surroundings
from whit.core.technique import HookFactory
from whit.core.threads import suitable_threads
from whit.errors import SettingsError
from whit.measure.meter import forward_macs
from whit.parts.schedules import LEARNING_RATES

# Reading the loss waits for an accelerator, so there it is read every so many steps.
STEPS_BETWEEN_READS = 50
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fit(
    model: nn.Module,
    split: Split,
    settings: Settings,
    hooks: Sequence[HookFactory],
    surroundings: Surroundings,
    augment: Augment | None = None,
    sample_weights: Tensor | None = None,
) -> nn.Module:
    """Train a model in place and return it, in evaluation mode.

    Args:
        model: any module; its parameters that require gradients are trained.
        split: samples to learn from.
        settings: epochs, batch size, optimiser and schedule.
        hooks: factories, called once with the model and the plan.
        surroundings: task, device, meter, seed, checkpoint.
        augment: batched code for the first input of each batch, or None.
        sample_weights: non-negative [samples]; samples are then drawn with replacement, in
            proportion.

    Raises:
        TaskError: nothing to train, or an output of the wrong shape.
        SettingsError: the loss or a weight became infinite or not a number; the model is put back
            to the last checkpoint, if there is one.
        WhitError: the checkpoint cannot be written.
    """
    training = _Training(model, split, settings, hooks, surroundings)
    training.augment = augment
    try:
        training.order.weigh(sample_weights)
        with suitable_threads(training.step_macs()), surroundings.meter.training(model):
            training.resume()
            while training.epoch < settings.epochs:
                training.run_epoch()
                training.save()
    finally:
        training.close()
    return model.eval()


class _Training:
    """State of one call of `fit`: everything that a checkpoint must hold hangs here."""

    augment: Augment | None = None

    def __init__(
        self,
        model: nn.Module,
        split: Split,
        settings: Settings,
        hooks: Sequence[HookFactory],
        surroundings: Surroundings,
    ) -> None:
        self.around = surroundings
        self.settings = settings
        self.model = model.to(surroundings.device)
        self.channels_last = suits_channels_last(model)
        if self.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.split = split.to(surroundings.device)
        self.order = SampleOrder(model, split, surroundings.seed)
        self.epoch = 0
        self.total = torch.zeros(())
        self.record = surroundings.record
        self.record.epochs = settings.epochs
        self.record.fit = surroundings.number
        self.new_warnings: list[str] = []
        self.health = Health(self.model)
        self.validation = Validation(self.model, surroundings)
        self.batch_size = min(settings.batch_size, len(split))
        # A last, smaller batch would upset batch norm; the order changes, so no sample is left
        # out for long.
        self.steps_per_epoch = len(split) // self.batch_size
        if self.batch_size == 1 and any(isinstance(m, BATCH_NORMS) for m in model.modules()):
            raise SettingsError(
                "The batch size is 1, and the model has batch norm, which needs at least 2 samples "
                "to normalise over. Use a larger batch size."
            )
        self.optimizer = make_optimizer(model, settings)
        self.trained = [p for p in model.parameters() if p.requires_grad]
        hook_generator = torch.Generator().manual_seed(surroundings.seed + 1)
        plan = Plan(
            self.steps_per_epoch * settings.epochs,
            self.steps_per_epoch,
            self.optimizer,
            surroundings.device,
            hook_generator,
        )
        self.plan = plan
        self.hooks: list[Hook] = []
        try:
            for make in hooks:
                self.hooks.append(make(model, plan))
        except BaseException:
            self.close()
            raise
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", settings.learning_rate)
        self.rate = LEARNING_RATES[settings.schedule]

    def close(self) -> None:
        for hook in self.hooks:
            hook.close()

    def step_macs(self) -> int:
        """Return the multiply-accumulates of one forward call on a batch."""
        sample = self.split.batch(self.order.first().to(self.around.device))
        return forward_macs(self.model, *sample.inputs) * self.batch_size

    def run_epoch(self) -> None:
        begin = time.perf_counter()
        self.model.train()
        self.total = torch.zeros((), device=self.around.device)
        order = self.order.draw().to(self.around.device)
        for step, batch in enumerate(self.split.batches(order, self.batch_size)):
            self._set_rate((self.epoch * self.steps_per_epoch + step) / self.plan.total_steps)
            batch = self._augmented(batch)
            self._step(step, batch)
        if not all(map(is_finite, self.trained)):
            self._diverged(step, batch)
        for hook in self.hooks:
            hook.after_epoch()
        self.epoch += 1
        self._look(begin)

    def _look(self, begin: float) -> None:
        """Record the epoch that has ended, and tell of it."""
        loss = float(self.total) / self.steps_per_epoch
        valid, reason = self.validation.score(self.health.watching())
        self.record.add(loss, valid, time.perf_counter() - begin)
        found = [*self.new_warnings, reason, *self.health.after_epoch(self.record.loss)]
        self.new_warnings = []
        new = [text for text in found if text and text not in self.record.warnings]
        self.record.warnings.extend(new)
        if self.around.progress is not None:
            self.around.progress(
                Progress(
                    self.around.number,
                    self.epoch,
                    self.settings.epochs,
                    loss,
                    valid,
                    self.around.task.metric_name,
                    self.record.seconds_left,
                    tuple(new),
                )
            )

    def _augmented(self, batch: Batch) -> Batch:
        first = batch.inputs[0]
        if self.augment is not None:
            first = self._augment(first)
        if self.channels_last and first.dim() == 4:
            first = first.contiguous(memory_format=torch.channels_last)
        return Batch((first, *batch.inputs[1:]), batch.target, batch.index)

    def _augment(self, inputs: Tensor) -> Tensor:
        assert self.augment is not None
        if not self.order.members:
            return self.augment(inputs, self.order.generator)
        return self.augment(inputs.flatten(0, 1), self.order.generator).reshape(inputs.shape)

    def _step(self, step: int, batch: Batch) -> None:
        output = self.model(*batch.inputs)
        if self.epoch == 0:
            self.around.task.check_output(output, self.batch_size, self.around.classes)
        loss = self.around.task.mean_loss(output, batch.target, bool(self.order.members))
        for hook in self.hooks:
            loss = hook.loss(loss, output, batch)
        self.total += loss.detach()
        if self._reads(step) and not math.isfinite(float(self.total)):
            self._diverged(step, batch)
        for parameter in self.trained:  # as optimizer.zero_grad does, without its bookkeeping
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        for hook in self.hooks:
            hook.before_step()
        self.optimizer.step()
        for hook in self.hooks:
            hook.after_step()

    def _reads(self, step: int) -> bool:
        """Say whether the loss is read in this step."""
        often = self.around.device.type == "cpu" or step % STEPS_BETWEEN_READS == 0
        return often or step == self.steps_per_epoch - 1

    def _diverged(self, step: int, batch: Batch) -> NoReturn:
        """Put the model back to the last good epoch, and say where training went wrong."""
        where = where_not_finite(self.model, batch.inputs)
        path = self.around.checkpoint
        state, _ = read_checkpoint(path, self.around.identity, self.around.device)
        kept = ""
        if state is not None and path is not None:
            load_model_state(self.model, state["model"], path)
            kept = (
                f" The weights of the last good epoch, {state['epoch']}, are in the model again "
                f"and in '{path}'."
            )
        raise SettingsError(
            f"Training diverged in epoch {self.epoch + 1}, step {step + 1} of "
            f"{self.steps_per_epoch}: the loss or a weight is infinite or not a number. It arose "
            f"first in {where}. Use a smaller learning rate than "
            f"{self.settings.learning_rate:g}, or mend that place.{kept}"
        )

    def _set_rate(self, t: float) -> None:
        factor = self.rate(t)
        for group in self.optimizer.param_groups:
            group["lr"] = factor * group["initial_lr"]

    def save(self) -> None:
        """Write the state after an epoch, atomically."""
        path = self.around.checkpoint
        if path is None:
            return
        state: dict[str, Any] = {
            "identity": self.around.identity,
            "epoch": self.epoch,
            "model": model_state(self.model),
            "optimizer": self.optimizer.state_dict(),
            "hooks": [hook.state_dict() for hook in self.hooks],
            "generators": [self.order.generator.get_state(), self.plan.generator.get_state()],
            "random": random_states(self.around.device),
            "meter": self.around.meter.state_dict(),
            "record": self.record.as_dict(),
            "health": self.health.state_dict(),
        }
        write_checkpoint(path, state)
        if self.epoch == 1:
            require_readable(path)

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one of the same run."""
        path = self.around.checkpoint
        state, ignored = read_checkpoint(path, self.around.identity, self.around.device)
        if ignored:
            self.new_warnings.append(ignored)
        if state is None or path is None:
            return
        self.epoch = state["epoch"]
        load_model_state(self.model, state["model"], path)
        self.optimizer.load_state_dict(state["optimizer"])
        for hook, saved in zip(self.hooks, state["hooks"], strict=True):
            hook.load_state_dict(saved)
        self.order.generator.set_state(state["generators"][0].cpu())
        self.plan.generator.set_state(state["generators"][1].cpu())
        set_random_states(state["random"], self.around.device)
        self.around.meter.load_state_dict(state["meter"])
        self.record.restore(state["record"])
        self.health.load_state_dict(state["health"])
