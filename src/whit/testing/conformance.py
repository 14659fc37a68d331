"""What every technique must do, checked on a toy task in a few seconds.

    from whit.testing import check_technique
    check_technique(my_technique)

A technique that does not fit a toy's kind of data raises `NotApplicable` with the reason; it
must fit one.
"""

from __future__ import annotations

import copy
import inspect
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from whit.core.data import Split
from whit.core.execution import Conditions, Trained, execute, train
from whit.core.fit import Progress, predict
from whit.core.task import Task
from whit.core.technique import PLAIN, Technique, is_technique, keep
from whit.errors import NoEffect, NotApplicable, SpecError, WhitError
from whit.result_folder import load_result
from whit.spec_strings import spec
from whit.tasks import toys
from whit.testing.cards import check_card

TOYS = (
    toys.toy_classification,
    toys.toy_regression,
    toys.toy_tagging,
    toys.toy_frames,
    toys.toy_nodes,
)
PARTNERS = ("binarized_network()", "one_cycle_pruning()")


class ConformanceError(WhitError):
    """A technique does not do what every technique must."""


@dataclass
class Conformance:
    """What `check_technique` found.

    Attributes:
        passed: names of the checks that passed, in order.
        reasons: what was refused, with the technique's own reason: toy tasks and partners of a sum.
    """

    passed: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)


def check_technique(make: Callable[..., Technique], *, card: bool = True) -> Conformance:
    """Run the battery on a technique with its default options.

    Args:
        make: a function decorated with `@whit.technique`.
        card: also check the card beside the file that defines it.

    Raises:
        ConformanceError: the first check that fails, in words.
    """
    if not is_technique(make):
        raise ConformanceError(
            f"{make!r} is not a technique; decorate the function with @whit.technique."
        )
    case = _Case(make())
    checks = [
        case.spec_parses_back,
        case.plain_adds_nothing,
        case.defaults_run,
        case.output_shape_is_kept,
        case.same_seed_gives_the_same,
        case.test_labels_change_nothing,
        case.training_is_charged,
        case.model_copies,
        case.killed_run_resumes,
        case.scorecard_is_complete,
        case.no_effect_is_an_error,
        case.something_changes,
        case.sums_work_or_refuse,
    ]
    for check in checks:
        check()
        case.found.passed.append(check.__name__)
    if card:
        source = inspect.getsourcefile(inspect.unwrap(make))
        assert source is not None
        check_card(Path(source).with_suffix(".md"))
        case.found.passed.append("card_runs")
    return case.found


class _Killed(Exception):
    """Stands for a kill in the middle of training."""


class _Case:
    def __init__(self, technique: Technique) -> None:
        self.technique = technique
        self.found = Conformance()
        self.task: Task
        self.reference: Trained

    def trained(self, task: Task, technique: Technique | None = None, **rest: object) -> Trained:
        conditions = replace(Conditions(seed=3), **rest)  # type: ignore[arg-type]
        quick = task.settings.changed(epochs=3)
        return train(task, technique or self.technique, quick, conditions)

    def expect(self, holds: bool, message: str) -> None:
        if not holds:
            raise ConformanceError(f"'{self.technique.spec}': {message}")

    def spec_parses_back(self) -> None:
        again = spec(self.technique.spec)
        self.expect(again.spec == self.technique.spec, f"its spec parses back as '{again.spec}'.")

    def plain_adds_nothing(self) -> None:
        total = self.technique + Technique()
        self.expect(total == self.technique, "a + plain() is not a.")
        self.expect(Technique() + self.technique == self.technique, "plain() + a is not a.")

    def defaults_run(self) -> None:
        runs = []
        for toy in TOYS:
            try:
                runs.append((toy(), self.trained(toy())))
            except NotApplicable as reason:
                self.expect(bool(str(reason)), f"refuses {toy.__name__} without a reason.")
                self.found.reasons[toy.__name__] = str(reason)
        self.expect(bool(runs), f"fits none of the toy tasks: {self.found.reasons}")
        self.task, self.reference = runs[0]

    def something_changes(self) -> None:
        if self.technique.brief == PLAIN:
            return
        plain = self.trained(self.task, Technique())
        self.expect(
            not same_state(plain.model, self.reference.model),
            "trains the same weights as plain(): it changes nothing. Raise whit.errors.NoEffect.",
        )

    def output_shape_is_kept(self) -> None:
        plain = self.trained(self.task, Technique())
        mine, control = self.outputs(self.reference), self.outputs(plain)
        self.expect(
            mine.shape == control.shape,
            f"gives outputs of shape {list(mine.shape)}, the control {list(control.shape)}.",
        )

    def outputs(self, trained: Trained) -> Tensor:
        run = trained.run
        return predict(trained.model, run.data.valid, run.task, run.device.torch)

    def same_seed_gives_the_same(self) -> None:
        again = self.trained(self.task)
        self.expect(
            same_state(again.model, self.reference.model), "the same seed gives other weights."
        )

    def test_labels_change_nothing(self) -> None:
        data = self.task.load()
        assert isinstance(data.test, Split)
        order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(9))
        test = data.test
        for what, changed in (
            ("labels", replace(test, target=test.target[order])),
            ("inputs", replace(test, inputs=tuple(t[order.flip(0)] * 0 for t in test.inputs))),
        ):
            other = replace(self.task, load=partial(replace, data, test=changed))
            self.expect(
                same_state(self.trained(other).model, self.reference.model),
                f"other test {what} change the weights: the test split leaks into training.",
            )

    def training_is_charged(self) -> None:
        charge = self.reference.run.meter.charge()
        self.expect(
            charge.train_macs > 0 and charge.train_seconds > 0,
            "trained without charging the meter; enter run.meter.training(model) in an own loop.",
        )

    def model_copies(self) -> None:
        before = self.outputs(self.reference)
        twin = replace(self.reference, model=copy.deepcopy(self.reference.model))
        self.expect(torch.equal(self.outputs(twin), before), "a deep copy answers differently.")
        state = {k: v.clone() for k, v in self.reference.model.state_dict().items()}
        twin.model.load_state_dict(state)
        self.expect(torch.equal(self.outputs(twin), before), "its state dict does not restore it.")

    def killed_run_resumes(self) -> None:
        killed: set[int] = set()

        def kill(progress: Progress) -> None:
            if progress.epoch == 2 and progress.fit not in killed:
                killed.add(progress.fit)
                raise _Killed

        with tempfile.TemporaryDirectory() as folder:
            resumed = None
            while resumed is None:  # each call of fit is killed once, in its second epoch
                try:
                    resumed = self.trained(self.task, out=Path(folder), progress=kill)
                except _Killed:
                    continue
        fits = self.reference.run.fits
        self.expect(bool(killed) or fits == 0, "was never in its second epoch of three.")
        self.expect(
            same_state(resumed.model, self.reference.model),
            "a killed and resumed run ends with other weights; a hook's state_dict must hold all "
            "that changes.",
        )

    def scorecard_is_complete(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            quick = self.task.settings.changed(epochs=3)
            result = execute(self.task, self.technique, quick, seed=3, out=folder)
            assert result.scorecard is not None
            row = result.scorecard.as_dict()
            empty = [k for k, v in row.items() if v is None and k not in row["reasons"]]
            self.expect(not empty, f"leaves {empty} empty without a reason.")
            loaded = load_result(folder) if result.choices is not None else result
        self.expect(
            same_state(loaded.model, result.model), "a saved and loaded result has other weights."
        )

    def no_effect_is_an_error(self) -> None:
        if self.technique.prepare_model is keep:
            return
        try:
            self.technique.prepare_model(nn.Sequential(nn.Flatten()), self.reference.run.data)
        except WhitError:
            return
        raise ConformanceError(
            f"'{self.technique.spec}': prepare_model accepts a model with nothing to change; raise "
            "whit.errors.NoEffect."
        )

    def sums_work_or_refuse(self) -> None:
        for partner in PARTNERS:
            for left, right in ((self.technique, spec(partner)), (spec(partner), self.technique)):
                try:
                    total = left + right
                    self.trained(self.task, total)
                except (NotApplicable, NoEffect, SpecError) as reason:
                    self.expect(len(str(reason)) > 20, f"refuses '{partner}' without a reason.")
                    self.found.reasons[f"{left.spec} + {right.spec}"] = str(reason)


def same_state(a: nn.Module, b: nn.Module) -> bool:
    """Say whether two models have the same tensors, bit for bit."""
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)
