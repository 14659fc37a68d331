import copy

import pytest
import torch
from torch import nn

from whit.core.device import Device
from whit.core.execution import Conditions, train
from whit.core.hook import Hook
from whit.core.notes import Table
from whit.core.run import Ledger, Run, mixed_seed
from whit.core.technique import Technique
from whit.errors import TaskError, TestDataSealed
from whit.tasks.toys import toy_classification

TASK = toy_classification()
QUICK = TASK.settings.changed(epochs=1)


class Quiet(Hook):
    made = 0

    def __init__(self, model, plan):
        type(self).made += 1
        self.plan = plan


def run_with(technique=None):
    ledger = Ledger(Device(), 0, "identity")
    return Run(TASK, technique or Technique(), QUICK, TASK.load().sealed(), ledger)


def test_build_prepares_the_model_and_takes_choices():
    marked = Technique(prepare_model=lambda model, data: nn.Sequential(model, nn.Identity()))
    run = run_with(marked)
    model = run.build(width=0.5)
    assert isinstance(model[1], nn.Identity) and model[0].linear1.out_features == 16
    assert run._ledger.choices_of(model) == {"width": 0.5}
    own = nn.Linear(8, 4)
    assert run.build(own)[0] is own
    with pytest.raises(TaskError, match="'width'"):
        run.build(widht=2)


@pytest.mark.parametrize("split", ["test", "tset", ""])
def test_evaluating_on_the_test_split_is_refused(split):
    run = run_with()
    with pytest.raises(TestDataSealed, match="evaluate"):
        run.evaluate(run.build(), split)
    with pytest.raises(TestDataSealed):
        run.evaluate(run.build(), run.data.test)


def test_evaluate_gives_the_metric():
    run = run_with()
    model = run.build().eval()
    for name, split in (("valid", run.data.valid), ("train", run.data.train)):
        expected = (model(split.inputs[0]).argmax(1) == split.target).double().mean()
        assert run.evaluate(model, name) == pytest.approx(float(expected))
        assert run.evaluate(model, split) == run.evaluate(model, name)
    assert run.evaluate(model) == run.evaluate(model, "valid")


def test_fit_takes_other_data_settings_epochs_and_hooks():
    plans = []

    class Seen(Hook):
        def __init__(self, model, plan):
            plans.append((plan.total_steps, plan.steps_per_epoch))

    run = run_with(Technique(hooks=(Seen,)))
    model = run.build()
    assert run.fit(model) is model
    run.fit(model, epochs=3)
    run.fit(model, settings=QUICK.changed(batch_size=384))
    run.fit(model, data=run.data.valid, hooks=(Seen,))
    assert plans == [(6, 6), (18, 6), (1, 1), (2, 2), (2, 2)]


def test_plain_has_no_technique_and_the_same_meter():
    Quiet.made = 0
    run = run_with(Technique(prepare_model=lambda m, d: nn.Sequential(m), hooks=(Quiet,)))
    plain = run.plain()
    teacher = plain.fit(plain.build())
    assert Quiet.made == 0 and not isinstance(teacher[0], nn.Sequential)
    assert run.meter is plain.meter and run.meter.charge().train_macs > 0
    assert (plain.data, plain.budget, plain.device) == (run.data, run.budget, run.device)
    run.fit(run.build())
    assert Quiet.made == 1


def test_every_fit_has_its_own_order_of_samples():
    orders = []

    class Seen(Hook):
        def __init__(self, model, plan):
            orders.append([])

        def loss(self, loss, output, batch):
            orders[-1].append(batch.index)
            return loss

    run = run_with(Technique(hooks=(Seen,)))
    for _ in range(2):
        run.fit(run.build())
    assert not torch.equal(torch.cat(orders[0]), torch.cat(orders[1]))


def test_a_killed_procedure_of_two_fits_resumes_exactly(tmp_path):
    class Killed(Exception):
        pass

    def two(run):
        first = run.fit(run.build())
        second = run.build()
        with torch.no_grad():
            second.linear1.weight += first.linear1.weight
        return run.fit(second, hooks=(Quiet,))

    technique = Technique(train=two, spec="two()")
    settings = TASK.settings.changed(epochs=3)
    whole = train(TASK, technique, settings, Conditions())
    for fit, epoch in ((0, 2), (1, 2)):

        def kill(progress, fit=fit, epoch=epoch):
            if (progress.fit, progress.epoch) == (fit, epoch):
                raise Killed

        with pytest.raises(Killed):
            train(TASK, technique, settings, Conditions(out=tmp_path, progress=kill))
    resumed = train(TASK, technique, settings, Conditions(out=tmp_path))
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert whole.run.meter.charge().train_macs == resumed.run.meter.charge().train_macs
    curves = [
        [(h["fit"], h["epochs"], h["loss"], h["valid"]) for h in found.run.history]
        for found in (whole, resumed)
    ]
    assert curves[0] == curves[1] and [c[:2] for c in curves[0]] == [(0, 3), (1, 3)]
    assert all(len(h["seconds"]) == len(h["valid"]) == 3 for h in resumed.run.history)


def test_the_history_holds_each_call_of_fit():
    run = run_with()
    assert run.history == []
    model = run.fit(run.build(), epochs=2)
    run.fit(run.build(), data=run.data.valid)
    first, second = run.history
    assert (first["fit"], first["epochs"], second["fit"], second["epochs"]) == (0, 2, 1, 1)
    assert first["valid"][-1] == run.evaluate(model)
    assert len(first["loss"]) == 2 and len(second["loss"]) == 1


def test_choices_are_those_of_the_model_or_of_one_like_it():
    run = run_with()
    small, large = run.build(width=0.5), run.build(width=1.0)
    choices = run._ledger.choices_of
    assert choices(small) == {"width": 0.5} and choices(large) == {"width": 1.0}
    assert choices(copy.deepcopy(small)) == {"width": 0.5}, "a copy of the best epoch"
    assert choices(nn.Sequential(small)) is None
    run.build()  # the same shapes as width=1.0
    assert choices(large) == {"width": 1.0}
    assert choices(copy.deepcopy(large)) is None, "two choices give such a model"
    weight = small.linear1.weight
    small.linear1.weight = nn.Parameter(weight[:5])
    assert choices(small) == {"width": 0.5} and choices(copy.deepcopy(small)) is None


def test_what_a_run_sends_is_charged_to_it_alone():
    device = Device()
    device.exchanged_bytes = 50  # of an earlier run
    ledger = Ledger(device, 0, "identity")
    device.exchanged_bytes += 8
    assert ledger.meter.charge().exchanged_bytes == 8


def test_mixed_seeds():
    seeds = {mixed_seed(a, b) for a in range(30) for b in range(30)}
    assert len(seeds) == 900 and all(0 <= s < 2**48 for s in seeds)
    assert mixed_seed(1, 2) == mixed_seed(1, 2) != mixed_seed(2, 1)


def test_notes_are_kept_beside_the_scorecard():
    def train_and_note(run):
        run.note("share", Table(("x",), [(1,)]))
        run.note("share", Table(("x",), [(2,)]))
        return run.fit(run.build())

    trained = train(TASK, Technique(train=train_and_note), QUICK, Conditions())
    assert trained.run.notes == {
        "share": {"kind": "table", "columns": ["x"], "rows": [[2]], "caption": ""}
    }
