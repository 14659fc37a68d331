import copy
import os

import numpy as np
import pytest
import torch
from torch import nn

from whit.core.execution import Conditions, execute, train
from whit.core.technique import Technique
from whit.errors import NotApplicable, SpecError
from whit.methods.low_bit.ternary_network import (
    Conversion,
    has_ternary_weights,
    round_all,
    ternarise,
    ternary_network,
    ternary_teacher,
)
from whit.packing import pack
from whit.parts.firing_blocks import blocks
from whit.parts.levels import Levels, add_levels
from whit.parts.normalise import Normalise
from whit.parts.ternary_thresholds import TernaryThresholds
from whit.runtime import load, native
from whit.spec_strings import spec
from whit.tasks.digits import digits
from whit.tasks.toys import toy_classification, toy_frames

INTEGERS = {"uint8", "int8", "int16", "int32", "sign"}


def mlp(inputs=16, hidden=24, classes=3):
    return nn.Sequential(
        Normalise(8.0, 8.0), nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden),
        nn.ReLU(), nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
        nn.Linear(hidden, classes),
    )  # fmt: skip


def convolutions():
    return nn.Sequential(
        Normalise(8.0, 8.0), nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.MaxPool2d(2),
        nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 3),
    )  # fmt: skip


def learn(model, x, y, steps=60):
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x.float()), y).backward()
        optimizer.step()
    return model.eval()


def accuracy(model, x, y):
    with torch.no_grad():
        return float((model.eval()(x.float()).argmax(1) == y).float().mean())


def samples(shape, seed=0, count=400):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 17, (count, *shape), generator=generator, dtype=torch.uint8)
    flat = x.flatten(1).float()
    half = flat.shape[1] // 2
    score = flat[:, :half].mean(1) - flat[:, half:].mean(1)
    return x, (score > -0.8).long() + (score > 0.8).long()


CASES = {"mlp": (mlp, (16,)), "convolutions": (convolutions, (1, 8, 8))}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("input", ["ternary", "binary", "integer"])
def test_the_student_packs_to_integers_bit_for_bit(name, input):
    build, shape = CASES[name]
    torch.manual_seed(1)
    x, y = samples(shape)
    model = learn(ternary_teacher(build(), input=input), x, y)
    with torch.no_grad():  # falling neurons
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.weight[::4] *= -1
    reports = ternarise(model, x.float(), y)
    assert [r.path for r in reports] == [b.matrix.path for b in blocks(model)]
    assert all(r.score <= r.bound + 1e-9 for r in reports)
    packed = pack(model, x[:8])
    weights = 0
    for layer in packed.layers:
        assert layer.bits <= 2 + 8 * 8 / layer.weights, layer
        weights += layer.weights
    domains = [packed.program.input.dtype, *(s.result.domain for s in packed.program.steps)]
    # With 8 bits the normalisation itself is one float step, and then integers all the way.
    begin = 2 if input == "integer" else 0
    assert set(domains[begin:-1]) <= INTEGERS and domains[0] == "uint8"
    with torch.no_grad():
        expected = model(x.float()).numpy()
    np.testing.assert_array_equal(packed.program(x.numpy()), expected)
    assert (expected == np.round(expected)).all(), "class scores are sums of whole numbers"


def test_native_and_reference_give_the_same(tmp_path):
    torch.manual_seed(2)
    x, y = samples((1, 8, 8))
    model = learn(ternary_teacher(convolutions()), x, y)
    ternarise(model, x.float(), y)
    pack(model, x[:8]).save(tmp_path / "student.whit")
    with torch.no_grad():
        expected = model(x.float()).numpy()
    backends = ["reference", "native"] if native.available() else ["reference"]
    assert native.available() or os.environ.get("WHIT_REQUIRE_NATIVE") != "1"
    for backend in backends:
        program = load(tmp_path / "student.whit", backend=backend)
        np.testing.assert_array_equal(program(x.numpy()), expected)


@pytest.mark.parametrize("name", CASES)
def test_the_student_is_near_its_teacher(name):
    build, shape = CASES[name]
    torch.manual_seed(3)
    x, y = samples(shape, count=600)
    train_x, train_y, x, y = x[:400], y[:400], x[400:], y[400:]
    student = learn(ternary_teacher(build()), train_x, train_y)
    retrained = copy.deepcopy(student)
    best = accuracy(student, x, y)
    ternarise(student, train_x.float(), train_y)
    ternarise(retrained, train_x.float(), train_y, retrain=lambda m: learn(m, train_x, train_y, 20))
    assert best > 0.5
    assert accuracy(student, x, y) > best - 0.12
    assert accuracy(retrained, x, y) > best - 0.08
    zeros = [float((b.layer.weight == 0).float().mean()) for b in blocks(student)]
    assert sum(zeros) / len(zeros) > 0.3


@pytest.mark.slow
def test_digits_students_are_far_above_rounded_teachers():
    task = digits(width=0.25)  # narrow, so that mistakes show
    settings = task.settings.changed(epochs=8)
    gains, losses, helped = [], [], []
    for seed in range(3):
        teacher = Technique(prepare_model=lambda model, data: ternary_teacher(model))
        trained = train(task, teacher, settings, Conditions(seed=seed))
        run, split = trained.run, trained.run.data.train
        rounded = run.evaluate(round_all(copy.deepcopy(trained.model)))
        student, alone = copy.deepcopy(trained.model), copy.deepcopy(trained.model)
        ternarise(alone, split.inputs[0].float(), split.target)
        plain = run.plain()
        torch.manual_seed(seed)  # of the firings while training on
        ternarise(
            student,
            split.inputs[0].float(),
            split.target,
            retrain=lambda model, plain=plain: plain.fit(model, epochs=6),
        )
        gains.append(run.evaluate(student) - rounded)
        losses.append(run.evaluate(trained.model) - run.evaluate(student))
        helped.append(run.evaluate(student) - run.evaluate(alone))
    assert sum(gains) / 3 > 0.07 and min(gains) > 0.04
    assert sum(losses) / 3 < 0.02
    assert sum(helped) / 3 > 0.01, "training between the layers helps"


def test_a_ternary_teacher_is_folded_exactly():
    torch.manual_seed(4)
    x, y = samples((16,))
    model = ternary_teacher(mlp(), weights="ternary")
    assert has_ternary_weights(model)
    learn(model, x, y)
    features = copy.deepcopy(model)[:-1]
    ternarise(model, x.float(), y)
    with torch.no_grad():
        assert torch.equal(model[:-1](x.float()), features.eval()(x.float()))
    assert set(model[-1].weight.unique().tolist()) <= {-1, 0, 1}
    again = round_all(copy.deepcopy(model))
    assert torch.equal(again(x.float()), model(x.float())), "what is ternary stays"


def test_a_real_last_layer_stays():
    torch.manual_seed(5)
    x, y = samples((16,))
    model = learn(ternary_teacher(mlp()), x, y)
    head = model[-1].weight.clone()
    reports = ternarise(model, x.float(), conversion=Conversion(last="real"))
    assert len(reports) == 2 and torch.equal(model[-1].weight, head)
    with pytest.raises(SpecError, match="labels is None"):
        ternarise(ternary_teacher(mlp()), x.float())


def test_digits_by_name():
    task = digits()
    trained = train(task, ternary_network(), task.settings.changed(epochs=8), Conditions())
    final = trained.run.evaluate(trained.model)
    teacher = max(trained.run.history[0]["valid"])
    assert final > teacher - 0.05 and final > 0.85
    linears = [m for m in trained.model if isinstance(m, nn.Linear)]
    assert all(set(m.weight.unique().tolist()) <= {-1, 0, 1} for m in linears)
    assert sum(isinstance(m, TernaryThresholds) for m in trained.model) == 3
    fits = [(r["epochs"], len(r["loss"])) for r in trained.run.history]
    assert fits[:3] == [(8, 8), (2, 2), (2, 2)], "teacher, 128 neurons, retraining"


@pytest.mark.parametrize("options", [{"weights": "ternary"}, {"retrain": 0}, {"input": "integer"}])
def test_options_run_and_save(options, tmp_path):
    from whit.result_folder import load_result

    task = toy_classification()
    result = execute(
        task, ternary_network(**options), task.settings.changed(epochs=3), seed=1, out=tmp_path
    )
    for layer in result.model:
        if isinstance(layer, nn.Linear):
            assert set(layer.weight.unique().tolist()) <= {-1, 0, 1}
    loaded = load_result(tmp_path)
    x = task.load().valid.inputs[0]
    assert torch.equal(loaded.model(x), result.model(x))
    assert result.scorecard.packed_agreement == 1.0


def test_a_real_last_layer_suits_other_tasks():
    task = toy_frames()
    technique = ternary_network(last="real", samples=200)
    trained = train(task, technique, task.settings.changed(epochs=2), Conditions())
    assert trained.model(torch.zeros(3, 4, 8, 8)).shape == (3, 1, 8, 8)
    with pytest.raises(NotApplicable, match="last='real'"):
        train(task, ternary_network(), task.settings, Conditions())


def test_the_sum_with_pruning_keeps_its_zeros():
    task = toy_classification()
    technique = ternary_network() + spec("one_cycle_pruning(sparsity=0.8)")
    trained = train(task, technique, task.settings.changed(epochs=3), Conditions())
    weights = [b.layer.weight for b in blocks(trained.model)]
    zeros = sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)
    assert zeros >= 0.79


def test_it_follows_another_procedure():
    task = toy_classification()
    technique = spec("distillation() + ternary_network()")
    trained = train(task, technique, task.settings.changed(epochs=3), Conditions())
    assert trained.run.fits == 2 + 2 * 3 + 1
    with pytest.raises(SpecError, match=r"distillation\(\) \+ ternary_network\(\)"):
        spec("ternary_network() + distillation()")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"squash": "tan"}, "'tanh'"),
        ({"weights": "trenary"}, "'ternary'"),
        ({"input": "bytes"}, "input"),
        ({"input": "integer", "threshold": 0.3}, "no meaning"),
        ({"threshold": 0}, "threshold"),
        ({"last": "rael"}, "'real'"),
        ({"retrain": -1}, "retrain"),
        ({"samples": 0}, "samples"),
        ({"samples": 50, "weights": "ternary"}, "samples has no meaning"),
        ({"retrain": 0, "weights": "ternary"}, "retrain has no meaning"),
        ({"candidates": 9, "weights": "ternary"}, "candidates has no meaning"),
        ({"candidates": -2}, "^candidates was given -2"),
    ],
    ids=str,
)
def test_bad_options_are_refused_at_the_call(options, words):
    with pytest.raises(SpecError, match=words):
        ternary_network(**options)


@pytest.mark.parametrize(
    ("inputs", "labels", "words"),
    [
        (torch.zeros(0, 16), torch.zeros(0).long(), "no sample"),
        (torch.full((4, 16), float("nan")), torch.zeros(4).long(), "NaN"),
        (torch.zeros(4, 16), torch.zeros(3).long(), r"expected torch.int64 \[4\]"),
        (torch.zeros(4, 16), torch.zeros(4), "expected torch.int64"),
        (torch.zeros(4, 16), torch.tensor([0, 1, 2, 3]), "from 0 to 3; the model has .* 0 to 2"),
        (torch.zeros(4, 16), torch.tensor([0, 1, 2, -1]), "from -1"),
    ],
)
def test_bad_samples_are_refused_before_anything_changes(inputs, labels, words):
    model = ternary_teacher(mlp())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(SpecError, match=words):
        ternarise(model, inputs, labels)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(("values", "exact"), [(5, False), ("ternary", True)])
def test_only_ternary_weights_are_folded(values, exact):
    torch.manual_seed(6)
    x, y = samples((16,))
    model = ternary_teacher(mlp())
    for module in list(model):
        if isinstance(module, nn.Linear):
            add_levels(module, Levels(values, "layer"))
    learn(model, x, y)
    assert has_ternary_weights(model) is exact
    reports = ternarise(model, x.float(), y)
    assert (reports[0].score == 1.0) is exact, "others are fitted"


def test_weights_of_five_values_are_fitted_in_a_sum():
    task = toy_classification()
    technique = ternary_network(retrain=0) + spec("finite_set_weights(values=5)")
    trained = train(task, technique, task.settings.changed(epochs=2), Conditions())
    assert trained.run.fits == 1 + 3 + 1, "three hidden layers and the last one"


def test_nothing_is_drawn_from_a_ternary_network():
    task = toy_classification()
    both = ("ternary_network()", "stochastic_bitwise_ensemble()")
    for first, second in (both, both[::-1]):
        with pytest.raises(SpecError, match="fixes the weights.*separate runs"):
            train(task, spec(f"{first} + {second}"), task.settings.changed(epochs=1), Conditions())


@pytest.mark.parametrize("name", ["weight", "running_var"])
def test_a_teacher_that_is_no_number_is_refused(name):
    model = ternary_teacher(mlp())
    with torch.no_grad():
        next(t for path, t in model.state_dict().items() if path.endswith(name)).view(-1)[0] = (
            torch.nan
        )
    x, y = torch.randn(20, 16), torch.randint(3, (20,))
    for convert in (lambda: ternarise(model, x, y), lambda: round_all(model)):
        with pytest.raises(SpecError, match="NaN or infinite"):
            convert()
