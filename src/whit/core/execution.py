"""The one standard procedure: seal the test split, run the slots, measure the model."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from whit.atomic_files import remove_leftovers, require_writable
from whit.core.budget import Budget
from whit.core.checkpoints import remove_checkpoints
from whit.core.data import Data, SealedSplit, Split
from whit.core.device import Device
from whit.core.fit import predict
from whit.core.result import Result
from whit.core.run import Ledger, Run, ShowProgress, mixed_seed
from whit.core.settings import Settings
from whit.core.task import Task
from whit.core.technique import Technique
from whit.errors import SettingsError, TaskError
from whit.measure.provenance import made_by, provenance, run_identity
from whit.measure.scorecard import Subject, measure


@dataclass(frozen=True)
class Conditions:
    """Under which a run happens; the attributes are described at `execute`."""

    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    device: Device = field(default_factory=Device.from_environment)
    out: Path | None = None
    progress: ShowProgress | None = None


def execute(  # noqa: PLR0913 - the public call: everything about one run, by name
    task: Task,
    technique: Technique | None = None,
    settings: Settings | None = None,
    *,
    budget: Budget | None = None,
    seed: int = 0,
    device: Device | None = None,
    out: str | Path | None = None,
    progress: ShowProgress | None = None,
) -> Result:
    """Run the one standard procedure with a technique's slots plugged in, and measure the model.

    Args:
        task: data, control model, loss and metric.
        technique: the sum of techniques; plain training by default.
        settings: the task's own by default.
        budget: limits for searches and recommendations.
        seed: >= 0; the same seed gives the same weights on the same machine type and thread count.
        device: this process; from torchrun's environment by default.
        out: folder for checkpoints and the result; a killed run goes on when it is repeated.
        progress: called after every epoch.

    Returns:
        The model with its scorecard (None on other ranks than 0: only rank 0 measures and writes).

    Raises:
        WhitError: an argument, the data, the technique or the model is not as expected.
    """
    conditions = Conditions(
        budget=budget or Budget(),
        seed=seed,
        device=device or Device.from_environment(),
        out=None if out is None else Path(out),
        progress=progress,
    )
    technique = technique or Technique()
    trained = train(task, technique, settings or task.settings, conditions)
    run = trained.run
    result = Result(
        model=trained.model,
        scorecard=None,
        spec=technique.spec,
        provenance=provenance(),
        task=task.name,
        seed=seed,
        settings=run.settings,
        choices=trained.choices,
        history=run.history,
        notes=run.notes,
    )
    if conditions.device.writes:
        result = _measured(result, trained)
        if trained.folder is not None:
            result.save(trained.folder)
    if trained.folder is not None:
        remove_checkpoints(trained.folder)
    return result


@dataclass(frozen=True)
class Trained:
    """What `train` leaves to be measured: the finished model and its run.

    Attributes:
        model: finished, in evaluation mode.
        run: that trained it.
        test: the test split, with all that `prepare_data` did to the data.
        choices: with which the model was built, or None.
        folder: of this rank, or None.
    """

    model: nn.Module
    run: Run
    test: Split
    choices: dict[str, object] | None
    folder: Path | None


def train(task: Task, technique: Technique, settings: Settings, conditions: Conditions) -> Trained:
    """Do all of `execute` but the measuring.

    The test split is taken aside before the first slot runs and is not read here.
    """
    seed, device = conditions.seed, conditions.device
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise SettingsError(f"The seed was given as {seed!r}; expected a whole number, 0 or more.")
    folder = None if conditions.out is None else _own_folder(conditions.out, device)
    true_data = task.checked_data()
    # What a procedure can reach leads to sealed data only.
    visible = replace(task, load=true_data.sealed)
    checksum = true_data.checksum()
    identity = identity_of(task, technique, settings, seed, device, checksum)
    ledger = Ledger(device, seed, identity, folder, conditions.budget, conditions.progress)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mixed_seed(seed, device.rank))
        data = technique.prepare_data(true_data.sealed())
        if not isinstance(data, Data):
            raise TaskError(
                f"prepare_data of '{technique.brief}' returned {type(data).__name__}, expected the "
                "data."
            )
        run = Run(visible, technique, settings, data, ledger)
        model = technique.train(run)
        _expect_module(model, "The procedure", technique)
        choices = ledger.choices_of(model)
        model = technique.finish_model(model, data)
        _expect_module(model, "finish_model", technique)
        model = model.eval()
    if not isinstance(true_data.test, Split) or not isinstance(data.test, SealedSplit):
        raise TaskError(
            f"Task '{task.name}' or technique '{technique.spec}' changed the test split itself. "
            "Let prepare_data use data.map or data.map_splits, which treat the sealed split too."
        )
    return Trained(model, run, data.test.opened(true_data.test), choices, folder)


def _expect_module(model: object, what: str, technique: Technique) -> None:
    if not isinstance(model, nn.Module):
        raise TaskError(
            f"{what} of '{technique.brief}' returned {type(model).__name__}, expected the model."
        )


def _features(data: Data) -> dict[str, str]:
    """Return the names of a vector's entries for the packed file, if it has some."""
    names = getattr(data, "feature_names", ())
    return {"features": json.dumps(names)} if names else {}


def _measured(result: Result, trained: Trained) -> Result:
    run, task, data = trained.run, trained.run.task, trained.run.data
    example = data.valid.raw_example(64)
    subject = Subject(
        predict=lambda model, split: predict(model, split, task, run.device.torch),
        valid=data.valid,
        test=trained.test,
        metric=task.score,
        metric_name=task.metric_name,
        example=example,
        labels=data.class_names,
        input_range=data.input_range,
        info={
            "task": task.name,
            "spec": run.technique.brief,
            "seed": result.seed,
            "made_by": made_by(),
            **_features(data),
        },
        combine=task.combined_output,
    )
    measured = measure(result.model, subject, run.meter.charge())
    return replace(
        result,
        scorecard=measured.scorecard,
        packed=measured.packed,
        test_correct=measured.test_correct,
    )


def _own_folder(folder: Path, device: Device) -> Path:
    """Make, tidy and return the folder of this rank; each rank checkpoints its own part."""
    own = folder if device.world == 1 or device.writes else folder / f"rank-{device.rank}"
    require_writable(own)
    remove_leftovers(own)
    return own


def identity_of(
    task: Task,
    technique: Technique,
    settings: Settings,
    seed: int,
    device: Device,
    checksum: str,
) -> str:
    """Return 16 hex digits that change whenever the result of a run could: data, code, options.

    Args:
        task: its name, build, loss, metric and augmentation count.
        technique: its spec and the code of its slots count.
        settings: of the run.
        seed: of the run.
        device: its kind, rank and world count.
        checksum: of the task's data.
    """
    slots = (technique.prepare_data, technique.prepare_model, technique.train)
    return run_identity(
        spec=technique.spec,
        task=task.name,
        data_checksum=checksum,
        settings=settings.as_dict(),
        seed=seed,
        device=f"{device.name} {device.rank}/{device.world}",
        functions=(
            *slots,
            *technique.hooks,
            technique.finish_model,
            task.build,
            task.loss,
            task.metric,
            task.load().augment,
        ),
    )
