import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from whit.core.data import Batch, ImageData, Split
from whit.core.execution import Conditions, execute, train
from whit.core.hook import Plan
from whit.core.settings import Settings
from whit.core.task import Task
from whit.errors import NotApplicable, SpecError
from whit.methods.together.distillation import distillation
from whit.procedures.feature_teachers import FeatureTeacher, choose_pairs
from whit.procedures.watched_layers import WatchedTeacher
from whit.tasks.models import conv4
from whit.tasks.toys import toy_classification


def images(samples, seed):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 3, (samples,), generator=generator)
    x = torch.randn(samples, 1, 8, 8, generator=generator)
    x[torch.arange(samples), 0, 2 * target, 2] += 4.0
    return Split((x,), target)


def load():
    return ImageData(images(96, 0), images(48, 1), images(48, 2), class_names=("a", "b", "c"))


def task():
    return Task("small_images", load, partial(conv4, width=0.1),
                settings=Settings(epochs=2, batch_size=16))  # fmt: skip


def network(seed, width=4, size=3):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.5),
        nn.MaxPool2d(2), nn.Conv2d(width, width, size, padding=size // 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(width * 16, 3),
    )  # fmt: skip


def batch():
    return load().train.batch(torch.arange(16))


def plan(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return Plan(10, 10, optimizer, torch.device("cpu"), torch.Generator().manual_seed(0))


def hook(student, teacher, kind, pairs, **rest):
    given = plan(student)
    watched = WatchedTeacher(teacher, [other for _, other in pairs])
    return FeatureTeacher(student, given, watched, pairs, kind, 2.0, batch(), **rest), given


@pytest.mark.parametrize("kind", ["hints", "attention"])
def test_the_term_is_added_and_pulls_the_layers_before_it(kind):
    student, teacher = network(0), network(1, width=6)
    made, _ = hook(student, teacher, kind, [("0", "0"), ("5", "5")])
    output = student(*batch().inputs)
    label = functional.cross_entropy(output, batch().target)
    found = made.loss(label, output, batch())
    assert found > label
    (found - label).backward()
    assert student[0].weight.grad.abs().max() > 0
    assert student[8].weight.grad is None or student[8].weight.grad.abs().max() < 1e-6
    made.close()


def test_a_student_that_is_its_teacher_has_equal_attention():
    teacher = network(0).eval()
    student = copy.deepcopy(teacher)
    made, _ = hook(student, teacher, "attention", [("0", "0"), ("5", "5")], alone=True)
    output = student(*batch().inputs)
    assert made.loss(torch.ones(()), output, batch()) == 0


def test_the_first_stage_leaves_the_layers_behind_the_hint_alone():
    student, teacher = network(0), network(1, width=6)
    made, given = hook(student, teacher, "hints", [("0", "0")], alone=True)
    before = copy.deepcopy(student.state_dict())
    losses = []
    for _ in range(20):
        output = student(*batch().inputs)
        loss = made.loss(functional.cross_entropy(output, batch().target), output, batch())
        given.optimizer.zero_grad()
        loss.backward()
        given.optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    moved = {k for k, v in student.named_parameters() if not torch.equal(v, before[k])}
    assert moved == {"0.weight", "0.bias"}


@pytest.mark.parametrize("kind", ["hints", "attention"])
def test_the_teacher_does_not_move_and_nothing_stays_on_the_student(kind):
    student, teacher = network(0), network(1)
    teacher.train()
    before = copy.deepcopy(teacher.state_dict())
    made, given = hook(student, teacher, kind, [("0", "0")])
    for _ in range(3):
        output = student(*batch().inputs)
        made.loss(output.sum(), output, batch()).backward()
        given.optimizer.step()
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())
    assert not any(m.training for m in teacher.modules())
    assert not made.teacher(batch()).requires_grad
    made.close()
    assert not any(m._forward_hooks for m in student.modules())
    assert set(student.state_dict()) == set(network(0).state_dict())


def test_the_teacher_is_asked_once_a_batch():
    teacher, asked = network(1), []
    teacher.register_forward_hook(lambda m, i, o: asked.append(1))
    watched = WatchedTeacher(teacher, ["0"])
    first, second = batch(), batch()
    assert watched(first) is watched(first)
    watched.features(first)
    assert len(asked) == 1
    watched(second)
    assert len(asked) == 2


def test_the_regressor_is_saved_and_restored():
    made, _ = hook(network(0), network(1, width=6), "hints", [("0", "0")])
    state = copy.deepcopy(made.state_dict())
    other, _ = hook(network(0), network(1, width=6), "hints", [("0", "0")])
    with torch.no_grad():
        other.regressors[0].weight.zero_()
    other.load_state_dict(state)
    assert torch.equal(other.regressors[0].weight, made.regressors[0].weight)
    assert other.regressors[0].weight.shape == (6, 4, 1, 1)


def test_layers_are_chosen_in_the_middle_and_by_size():
    student, teacher = network(0), network(1, width=6)
    assert choose_pairs(student, teacher, "hints", batch()) == (("0", "0"),)
    both = choose_pairs(student, teacher, "attention", batch())
    assert both == (("0", "0"), ("5", "5"))


def test_where_no_layers_go_together_the_message_lists_them():
    data = toy_classification().load().train.batch(torch.arange(4))
    mlp = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    assert choose_pairs(mlp, mlp, "hints", data) == (("0", "0"),)
    with pytest.raises(NotApplicable, match=r"Student: '0' \[6\]\. Teacher: '0' \[6\]"):
        choose_pairs(mlp, mlp, "attention", data)
    with pytest.raises(NotApplicable, match="no hidden"):
        choose_pairs(nn.Sequential(nn.Linear(8, 4)), mlp, "hints", data)


@pytest.mark.parametrize(
    "kind, pair, reason",
    [("hints", ("0", "5"), "same height and width"), ("attention", ("8", "8"), "layers of images"),
     ("hints", ("conv9", "0"), "'conv9'"), ("hints", ("0", "5x"), "'5x'")],
)  # fmt: skip
def test_pairs_that_do_not_fit_are_refused(kind, pair, reason):
    student = network(0)
    with pytest.raises(SpecError, match=reason):
        hook(student, network(1), kind, [pair])
    assert not any(m._forward_hooks for m in student.modules())


@pytest.mark.parametrize(
    "options",
    [{"features": "hints"}, {"features": "hints", "hint_epochs": 1}, {"features": "attention"},
     {"features": "attention", "weight": 0, "layers": (("conv2", "conv2"),)}],
    ids=str,
)  # fmt: skip
def test_by_name_it_trains_an_ordinary_student(options):
    settings = task().settings
    technique = distillation(teacher_width=0.2, **options)
    found = train(task(), technique, settings, Conditions(seed=1))
    plain = train(task(), distillation(teacher_width=0.2), settings, Conditions(seed=1))
    assert found.model.state_dict().keys() == plain.model.state_dict().keys()
    assert not torch.equal(found.model.head.weight, plain.model.head.weight)
    again = train(task(), technique, settings, Conditions(seed=1))
    assert torch.equal(found.model.head.weight, again.model.head.weight)
    assert found.run.fits == 2 + bool(options.get("hint_epochs"))
    assert not any(m._forward_hooks for m in found.model.modules())


class Killed(Exception):
    pass


@pytest.mark.parametrize("stage_epochs", [0, 2])
def test_a_killed_run_with_hints_resumes_to_the_same_weights(tmp_path, stage_epochs):
    technique = distillation(features="hints", hint_epochs=stage_epochs)
    settings = task().settings
    whole = train(task(), technique, settings, Conditions(seed=1))
    killed = set()

    def kill(progress):
        if progress.epoch == 1 and progress.fit not in killed:
            killed.add(progress.fit)
            raise Killed

    resumed = None
    while resumed is None:
        try:
            resumed = train(task(), technique, settings,
                            Conditions(seed=1, out=tmp_path, progress=kill))  # fmt: skip
        except Killed:
            continue
    assert len(killed) == 2 + bool(stage_epochs)
    left, right = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize(
    "options",
    [{"features": "all"}, {"feature_weight": 1.0}, {"feature_weight": 0, "features": "hints"},
     {"layers": ("conv1",), "features": "hints"}, {"layers": (("conv1", "conv1"),)},
     {"hint_epochs": 1}, {"hint_epochs": -1, "features": "hints"}],
    ids=str,
)  # fmt: skip
def test_bad_options_are_refused(options):
    with pytest.raises(SpecError, match=next(iter(options))):
        distillation(**options)


def test_the_batch_that_was_asked_is_not_kept():
    watched = WatchedTeacher(network(1), ["0"])
    asked: Batch = batch()
    watched(asked)
    watched.close()
    assert watched._asked is None and watched._scores is None and not watched.watch.outputs


def test_the_executed_row_charges_the_live_teacher():
    settings = task().settings.changed(epochs=1)
    live = execute(task(), distillation(features="attention"), settings).scorecard
    cached = execute(task(), distillation(), settings).scorecard
    assert live.train_macs > cached.train_macs
