import pytest
import torch

from whit.core.execution import Conditions, train
from whit.core.technique import Technique
from whit.errors import NotApplicable, SpecError
from whit.methods.low_bit.ternary_network import ternary_network, ternary_teacher
from whit.procedures.ternary_conversion import Conversion
from whit.tasks.toys import toy_classification, toy_nodes


class Killed(Exception):
    pass


@pytest.mark.parametrize("weights", ["real", "ternary"])
def test_a_run_killed_after_every_round_ends_with_the_same_weights(weights, tmp_path):
    task = toy_classification(width=3.0)  # 96 neurons: two rounds in the first two layers
    settings = task.settings.changed(epochs=3)
    technique = ternary_network(weights=weights)
    expected = train(task, technique, settings, Conditions(seed=4))
    killed, seen = set(), []

    def kill(progress):
        seen.append((progress.fit, progress.epoch))
        if seen[-1] not in killed:
            killed.add(seen[-1])
            raise Killed

    resumed = None
    while resumed is None:
        try:
            resumed = train(
                task, technique, settings, Conditions(seed=4, out=tmp_path, progress=kill)
            )
        except Killed:
            continue
    state, other = expected.model.state_dict(), resumed.model.state_dict()
    assert state.keys() == other.keys()
    assert all(torch.equal(state[key], other[key]) for key in state)
    rounds = {(1, 1), (1, 2), (3, 1), (3, 2), (5, 1)}
    assert rounds <= killed if weights == "real" else (1, 1) in killed
    charges = [t.run.meter.charge().train_macs for t in (expected, resumed)]
    assert charges[0] == charges[1], "what is observed again after a kill is not charged again"
    curves = [[r["valid"] for r in t.run.history] for t in (expected, resumed)]
    assert curves[0] == curves[1]


def test_a_conversion_is_charged_and_shown():
    task = toy_classification()
    settings = task.settings.changed(epochs=2)
    teacher = Technique(prepare_model=lambda model, data: ternary_teacher(model))
    one = train(task, teacher, settings, Conditions()).run.meter.charge().train_macs
    shown = []
    trained = train(task, ternary_network(retrain=0), settings, Conditions(progress=shown.append))
    assert trained.run.meter.charge().train_macs > 1.5 * one
    fits = [r["fit"] for r in trained.run.history]
    assert fits == [0, 1, 2, 3, 4], "teacher, three hidden layers, last layer"
    assert all(0 <= p.loss <= 1 and p.valid is not None for p in shown if p.fit >= 1)


def test_other_tasks_and_options():
    with pytest.raises(NotApplicable):
        train(toy_nodes(), ternary_network(), toy_nodes().settings, Conditions())
    with pytest.raises(SpecError, match="samples"):
        Conversion(samples=True)
    with pytest.raises(SpecError, match="'real'"):
        Conversion(last="rael")
