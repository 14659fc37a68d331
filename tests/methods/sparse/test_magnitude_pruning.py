import pytest
import torch
from torch import nn

from whit.core.execution import Conditions, train
from whit.errors import NoEffect, SpecError
from whit.methods.sparse.magnitude_pruning import magnitude_pruning, pruning_schedule
from whit.tasks.toys import toy_classification, toy_frames

GRID = [i / 20 for i in range(21)]


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("one_shot", lambda t: float(t >= 0.5)),
        ("gradual", lambda t: 0.0 if t < 0.2 else 1 - (1 - (t - 0.2) / 0.8) ** 3),
    ],
)
def test_schedules_at_their_usual_start(name, formula):
    schedule = pruning_schedule(name)
    assert [schedule(t) for t in GRID] == pytest.approx([formula(t) for t in GRID])
    assert schedule(1.0) == 1.0


def test_start_and_steps_are_passed_on():
    schedule = pruning_schedule("iterative", start=0.5, steps=2)
    assert [schedule(t) for t in (0.5, 0.6, 0.75, 0.8, 1.0)] == [0, 0.5, 0.5, 1, 1]
    assert pruning_schedule("one_shot", start=0.0)(0.0) == 1


@pytest.mark.parametrize("schedule", ["one_shot", "iterative", "gradual"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_result_has_the_asked_number_of_zeros(schedule, scope):
    task = toy_classification()
    technique = magnitude_pruning(sparsity=0.6, schedule=schedule, scope=scope)
    model = train(task, technique, task.settings.changed(epochs=1), Conditions()).model
    weights = [m.weight for m in model if isinstance(m, nn.Linear)]
    if scope == "layer":
        assert [int((w == 0).sum()) for w in weights] == [round(0.6 * w.numel()) for w in weights]
    total = sum(w.numel() for w in weights)
    assert sum(int((w == 0).sum()) for w in weights) == pytest.approx(0.6 * total, abs=2)


def test_filters_of_all_layers_but_the_last_are_pruned_whole():
    task = toy_frames()
    technique = magnitude_pruning(sparsity=0.5, granularity="filter", scope="layer")
    model = train(task, technique, task.settings.changed(epochs=1), Conditions()).model
    for layer in (model.conv1, model.conv2):
        rows = layer.weight.flatten(1)
        empty = (rows == 0).all(1)
        assert int(empty.sum()) == 8
        assert (rows[~empty] != 0).all()
    assert (model.head.weight != 0).all()


def test_filters_of_a_single_layer_are_its_classes():
    with pytest.raises(NoEffect):
        magnitude_pruning(granularity="filter").prepare_model(nn.Sequential(nn.Linear(3, 3)), None)


def test_it_differs_from_pruning_at_random():
    task = toy_classification()
    settings = task.settings.changed(epochs=6)
    scores = []
    for criterion in ("magnitude", "random"):
        technique = magnitude_pruning(sparsity=0.7, schedule="one_shot", start=0.9,
                                      criterion=criterion)  # fmt: skip
        trained = train(task, technique, settings, Conditions())
        scores.append(trained.run.evaluate(trained.model))
    assert scores[0] > scores[1] + 0.2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"schedule": "one-shot"}, "'one_shot'"),
        ({"granularity": "row"}, "granularity"),
        ({"sparsity": 2}, "fraction"),
        ({"start": 1.0}, "start"),
        ({"start": "late"}, "start"),
        ({"steps": 0}, "steps"),
    ],
    ids=str,
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(SpecError, match=words):
        magnitude_pruning(**options)


def test_baked_weights_are_plain_tensors():
    task = toy_classification()
    model = train(task, magnitude_pruning(), task.settings.changed(epochs=1), Conditions()).model
    assert all(isinstance(p, nn.Parameter) for p in model.parameters())
    assert not any("parametrizations" in key for key in model.state_dict())
    assert model(torch.zeros(2, 8)).shape == (2, 4)
