"""The one training loop.

Data that fits in memory lives in tensors, a batch is an index selection, augmentation is batched
tensor code, convolutions on the CPU run channels-last, and the optimisers are fused. Every epoch
can be saved, and a run that was killed goes on to the same weights.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from whit.atomic_files import write_atomically
from whit.core.data import Augment, Batch, Split
from whit.core.hook import Hook, Plan
from whit.core.settings import Settings
from whit.core.task import Task
from whit.core.technique import HookFactory
from whit.errors import SettingsError, SpecError, TaskError
from whit.measure.meter import Meter, forward_macs
from whit.parts.group import Group
from whit.parts.schedules import LEARNING_RATES

SMALL_STEP_MACS = 40_000_000
PREDICT_BATCH = 1000
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Progress:
    """How far one call of `fit` is.

    Attributes:
        fit: number of this call within the run, from 0.
        epoch: finished epochs.
        epochs: all epochs of this call.
        loss: mean training loss of the last epoch.
    """

    fit: int
    epoch: int
    epochs: int
    loss: float


@dataclass(frozen=True)
class Surroundings:
    """What surrounds one call of `fit`.

    Attributes:
        task: gives loss and output axes.
        device: where to compute.
        meter: is charged.
        seed: of the order of samples, the augmentation and the hooks' generator.
        number: of this call within the run.
        checkpoint: file to save to and resume from, or None.
        identity: a checkpoint of another identity is ignored.
        progress: called after every epoch, or None.
    """

    task: Task
    device: torch.device
    meter: Meter
    seed: int = 0
    number: int = 0
    checkpoint: Path | None = None
    identity: str = ""
    progress: Callable[[Progress], None] | None = None


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
        SettingsError: the loss became infinite or not a number.
    """
    training = _Training(model, split, settings, hooks, surroundings)
    training.augment = augment
    training.sample_weights = _checked_weights(sample_weights, len(split))
    with training.suitable_threads(), surroundings.meter.training(model):
        try:
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
    sample_weights: Tensor | None = None

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
        self.channels_last = any(isinstance(m, nn.Conv2d) for m in model.modules())
        if self.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.split = split.to(surroundings.device)
        # A group whose members take their own inputs gets its own order of samples for each member.
        self.orders = len(model) if isinstance(model, Group) and model.own_inputs else 0
        if self.orders and split.shared:
            raise TaskError(
                "A Group with own_inputs cannot learn from a graph: its tensors are shared by all "
                "samples. Use own_inputs=False."
            )
        self.epoch = 0
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
        self.generator = torch.Generator().manual_seed(surroundings.seed)
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

    @contextmanager
    def suitable_threads(self) -> Iterator[None]:
        """Use one thread for small steps: a second costs more in waiting than it brings."""
        threads = torch.get_num_threads()
        index = torch.zeros(1, dtype=torch.int64, device=self.around.device)
        if self.orders:
            index = index.expand(self.orders, 1)
        sample = self.split.batch(index)
        step_macs = forward_macs(self.model, *sample.inputs) * self.batch_size
        if step_macs < SMALL_STEP_MACS:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def run_epoch(self) -> None:
        self.model.train()
        total = torch.zeros((), device=self.around.device)
        order = self._order().to(self.around.device)
        for step, batch in enumerate(self.split.batches(order, self.batch_size)):
            self._set_rate((self.epoch * self.steps_per_epoch + step) / self.plan.total_steps)
            total += self._step(self._augmented(batch))
        for hook in self.hooks:
            hook.after_epoch()
        self.epoch += 1
        mean_loss = float(total) / self.steps_per_epoch
        if not torch.isfinite(torch.tensor(mean_loss)):
            raise SettingsError(
                f"Training diverged: the mean loss of epoch {self.epoch} is {mean_loss}. Use a "
                f"smaller learning rate than {self.settings.learning_rate:g}."
            )
        if self.around.progress is not None:
            self.around.progress(
                Progress(self.around.number, self.epoch, self.settings.epochs, mean_loss)
            )

    def _order(self) -> Tensor:
        """Return the numbers of the epoch's samples: [samples], or [members, samples]."""
        if self.orders:
            return torch.stack([self._one_order() for _ in range(self.orders)])
        return self._one_order()

    def _one_order(self) -> Tensor:
        if self.sample_weights is None:
            return torch.randperm(len(self.split), generator=self.generator)
        return torch.multinomial(
            self.sample_weights, len(self.split), replacement=True, generator=self.generator
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
        if not self.orders:
            return self.augment(inputs, self.generator)
        return self.augment(inputs.flatten(0, 1), self.generator).reshape(inputs.shape)

    def _step(self, batch: Batch) -> Tensor:
        output = self.model(*batch.inputs)
        if self.epoch == 0:
            self.around.task.check_output(output, self.batch_size)
        loss = self.around.task.mean_loss(output, batch.target, bool(self.orders))
        for hook in self.hooks:
            loss = hook.loss(loss, output, batch)
        for parameter in self.trained:  # as optimizer.zero_grad does, without its bookkeeping
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        for hook in self.hooks:
            hook.before_step()
        self.optimizer.step()
        for hook in self.hooks:
            hook.after_step()
        return loss.detach()

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
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "hooks": [hook.state_dict() for hook in self.hooks],
            "generators": [self.generator.get_state(), self.plan.generator.get_state()],
            "random": torch.get_rng_state(),
            "meter": self.around.meter.state_dict(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda partial: torch.save(state, partial))
        if self.epoch == 1:
            self._check_readable(path)

    def _check_readable(self, path: Path) -> None:
        """Read the first checkpoint at once: one that cannot be read would be ignored for ever."""
        try:
            torch.load(path, weights_only=True)
        except pickle.UnpicklingError as error:
            raise SpecError(
                "A hook's state_dict holds something else than tensors, numbers, texts, lists and "
                f"dictionaries, so that the run could not go on after a kill: {str(error)[:200]}"
            ) from None

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one of the same run."""
        path = self.around.checkpoint
        if path is None or not path.exists():
            return
        try:
            state = torch.load(path, weights_only=True, map_location=self.around.device)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError):
            return  # a torn file: training begins again
        if state.get("identity") != self.around.identity:
            return
        self.epoch = state["epoch"]
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise SettingsError(
                f"The checkpoint '{path}' does not fit the model ({str(error)[:200]}). Something "
                "that the run's identity does not see has changed: remove the folder."
            ) from None
        self.optimizer.load_state_dict(state["optimizer"])
        for hook, saved in zip(self.hooks, state["hooks"], strict=True):
            hook.load_state_dict(saved)
        self.generator.set_state(state["generators"][0].cpu())
        self.plan.generator.set_state(state["generators"][1].cpu())
        torch.set_rng_state(state["random"].cpu())
        self.around.meter.load_state_dict(state["meter"])


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


def _checked_weights(weights: Tensor | None, samples: int) -> Tensor | None:
    if weights is None:
        return None
    if (
        weights.shape != (samples,)
        or not bool((weights >= 0).all())
        or not float(weights.sum()) > 0
    ):
        raise TaskError(
            f"sample_weights has shape {list(weights.shape)}; expected [{samples}], one weight a "
            "training sample, none negative, not all zero."
        )
    return weights.detach().cpu().double()


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
