"""What one run does cannot reach the test split, the next run, or another run's checkpoint."""

import dataclasses

import pytest
import torch

from whit.core.device import Device
from whit.core.execution import Conditions, execute, identity_of, train
from whit.core.hook import Hook
from whit.core.task import Task
from whit.core.technique import Technique
from whit.errors import SettingsError, SpecError, TaskError, TestDataSealed
from whit.tasks.toys import toy_classification, toy_regression

TASK = toy_classification()
QUICK = TASK.settings.changed(epochs=2)


def weights(trained):
    return torch.cat([p.detach().flatten() for p in trained.model.parameters()])


def test_the_task_of_a_run_loads_sealed_data():
    def procedure(run):
        return run.task.load().test.target

    with pytest.raises(TestDataSealed):
        execute(TASK, Technique(train=procedure), QUICK)


def test_changes_in_place_do_not_reach_the_next_run():
    before = weights(train(TASK, Technique(), QUICK, Conditions()))

    def spoil(data):
        data.train.inputs[0].sub_(100)
        return data.map(lambda x: x.div_(2))

    train(TASK, Technique(prepare_data=spoil, spec="spoil()"), QUICK, Conditions())
    assert torch.equal(weights(train(TASK, Technique(), QUICK, Conditions())), before)


def identity(task=TASK, technique=None):
    return identity_of(task, technique or Technique(), QUICK, 0, Device(), "0")


def wider(data, *, width=1.0):
    return TASK.build(data, width=2.0)


def test_the_identity_sees_what_names_do_not_say():
    assert identity() == identity()
    assert identity(dataclasses.replace(TASK, build=wider)) != identity()
    assert identity(dataclasses.replace(TASK, metric=lambda o, t: 0.0)) != identity()
    first = Technique(finish_model=lambda model, data: model)
    second = Technique(finish_model=lambda model, data: model.eval())
    assert len({identity(), identity(technique=first), identity(technique=second)}) == 3


def test_the_identity_sees_the_values_that_a_closure_holds():
    def scaled(factor):
        return Technique(finish_model=lambda model, data: model if factor else model)

    assert identity(technique=scaled(1)) == identity(technique=scaled(1))
    assert identity(technique=scaled(1)) != identity(technique=scaled(2))


def test_a_checkpoint_that_could_not_be_read_is_an_error_at_once(tmp_path):
    class Opaque(Hook):
        def state_dict(self):
            return {"self": object()}

    broken = Technique(hooks=(lambda model, plan: Opaque(),))
    with pytest.raises((SpecError, AttributeError)):
        execute(TASK, broken, QUICK, out=tmp_path)


def test_batch_norm_with_one_sample_is_refused_in_words():
    with pytest.raises(SettingsError, match="batch norm"):
        execute(TASK, None, QUICK.changed(batch_size=1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: None, "returned NoneType"),
        (lambda d: bad_target(d, lambda t: t + 9), "class numbers 9 to 12"),
        (lambda d: bad_target(d, lambda t: t.float()), "dtype torch.float32"),
        (lambda d: d.map(lambda x: x * float("nan")), "NaN"),
    ],
)
def test_what_is_often_wrong_in_a_task_is_said_in_words(change, words):
    broken = Task("mine", lambda: change(TASK.load()), TASK.build)
    with pytest.raises(TaskError, match=words):
        execute(broken, None, QUICK)


def bad_target(data, change):
    train = dataclasses.replace(data.train, target=change(data.train.target))
    return dataclasses.replace(data, train=train)


def test_a_build_without_the_data_is_refused_in_words():
    with pytest.raises(TaskError, match=r"build\(data\)"):
        execute(Task("mine", TASK.load, lambda: None), None, QUICK)


def test_a_metric_that_gives_no_number_is_refused_in_words():
    broken = dataclasses.replace(TASK, metric=lambda output, target: None)
    with pytest.raises(TaskError, match="expected one number"):
        execute(broken, None, QUICK)


def test_regression_has_no_test_correct():
    assert execute(toy_regression(), None, QUICK).test_correct is None
