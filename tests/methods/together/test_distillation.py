import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from whit.core.data import Batch, Split
from whit.core.execution import Conditions, train
from whit.core.fit import predict
from whit.errors import NotApplicable, SpecError
from whit.methods.together.distillation import distillation
from whit.parts.losses import distillation_loss
from whit.procedures.teachers import Distillation, teacher_scores
from whit.tasks.toys import toy_classification, toy_frames, toy_regression, toy_tagging


def network(seed, hidden=16):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(8, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(hidden, 4),
    )


def batch():
    return toy_classification().load().train.batch(torch.arange(32))


@pytest.mark.parametrize("weight", [0.25, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_loss_is_the_weighted_mean_of_both_terms(weight, temperature):
    torch.manual_seed(0)
    output, teacher = torch.randn(32, 4), torch.randn(32, 4)
    label_loss = functional.cross_entropy(output, batch().target)
    mixed = Distillation(lambda b: teacher, temperature, weight).loss(label_loss, output, batch())
    soft = temperature**2 * functional.kl_div(
        (output / temperature).log_softmax(1), (teacher / temperature).softmax(1),
        reduction="batchmean",
    )  # fmt: skip
    assert torch.allclose(mixed, (1 - weight) * label_loss + weight * soft)


def test_each_member_of_a_group_learns_from_the_teacher():
    teacher, output = torch.randn(32, 4), torch.randn(3, 32, 4)
    made = Distillation(lambda b: teacher, 2.0, 1.0).loss(torch.zeros(()), output, batch())
    each = torch.stack([distillation_loss(o, teacher, 2.0) for o in output])
    assert torch.allclose(made, each.mean())


def manual_training(hook, steps=8):
    model, data = network(1), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    torch.manual_seed(7)
    model.train()
    for _ in range(steps):
        output = model(*data.inputs)
        loss = functional.cross_entropy(output, data.target)
        if hook is not None:
            loss = hook.loss(loss, output, data)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.state_dict()


def test_weight_zero_is_plain_training_bit_for_bit():
    plain = manual_training(None)
    with_hook = manual_training(Distillation(teacher_scores(network(2)), weight=0.0))
    distilled = manual_training(Distillation(teacher_scores(network(2)), weight=0.5))
    assert all(torch.equal(plain[k], with_hook[k]) for k in plain)
    assert not all(torch.equal(plain[k], distilled[k]) for k in plain)


def test_the_teacher_does_not_move():
    teacher = network(3)
    before = copy.deepcopy(teacher.state_dict())
    manual_training(Distillation(teacher_scores(teacher)))
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert not any(m.training for m in teacher.modules())
    assert not teacher_scores(teacher)(batch()).requires_grad


def test_cached_scores_equal_live_scores():
    task = toy_classification()
    data, teacher = task.load(), network(4)
    live = teacher_scores(teacher)
    cached = predict(teacher, data.train, task, torch.device("cpu"))
    index = torch.randperm(len(data.train))[:50]
    taken = data.train.batch(index)
    assert torch.allclose(cached[taken.index], live(taken), atol=1e-5)


def spied(task, technique, settings):
    """Train, and return the run with the models that `fit` was given, in order."""
    from dataclasses import replace

    fits = []

    def procedure(run):
        true_fit = run._ledger.next_fit

        def counted(task):
            fits.append(task)
            return true_fit(task)

        run._ledger.next_fit = counted
        return technique.train(run)

    trained = train(task, replace(technique, train=procedure), settings, Conditions())
    return trained, len(fits)


def test_the_teacher_is_charged():
    task = toy_classification()
    settings = task.settings.changed(epochs=2)
    alone = train(task, type(distillation())(), settings, Conditions())
    both, fits = spied(task, distillation(), settings)
    student = alone.run.meter.charge().train_macs
    samples = len(task.load().train)
    macs = 8 * 32 + 32 * 32 + 32 * 16 + 16 * 4
    assert fits == 2
    assert both.run.meter.charge().train_macs == 2 * student + samples * macs, (
        "two trainings and one forward of the teacher over the training samples"
    )


def test_widths_reach_student_and_teacher():
    task = toy_classification()
    settings = task.settings.changed(epochs=1)
    small = distillation(student_width=0.5, teacher_width=2.0)
    trained = train(task, small, settings, Conditions())
    assert trained.model.linear1.out_features == 16
    assert trained.choices == {"width": 0.5}
    plain = train(task, distillation(student_width=0.5), settings, Conditions())
    assert trained.run.meter.charge().train_macs > plain.run.meter.charge().train_macs


def test_augmented_data_are_answered_live():
    from dataclasses import replace

    task = toy_classification()
    data = replace(task.load(), augment=lambda x, g: x + 0.1 * torch.randn(x.shape, generator=g))
    other = replace(task, load=lambda: data)
    settings = task.settings.changed(epochs=2)
    live = train(other, distillation(), settings, Conditions())
    cached = train(task, distillation(), settings, Conditions())
    assert live.run.evaluate(live.model) > 0.3
    assert live.run.meter.charge().train_macs > cached.run.meter.charge().train_macs, (
        "a forward of the teacher in each epoch"
    )


@pytest.mark.parametrize("toy", [toy_regression, toy_tagging, toy_frames])
def test_tasks_without_class_scores_are_refused(toy):
    with pytest.raises(NotApplicable, match="class scores"):
        train(toy(), distillation(), toy().settings, Conditions())


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0}, {"temperature": -1.0}, {"weight": 0}, {"weight": 1.1}, {"weight": -0.1},
     {"temperature": "hot"}, {"weight": "much"}],
    ids=str,
)  # fmt: skip
def test_bad_options_are_refused(options):
    with pytest.raises(SpecError, match=next(iter(options))):
        distillation(**options)


def test_a_small_student_gains_where_labels_are_few():
    """On samples of which most have a wrong label, the soft answers are worth more than these."""
    task = toy_classification()
    settings = task.settings
    data = task.load()
    teacher = train(task, type(distillation())(), settings, Conditions()).model
    scores = predict(teacher, data.train, task, torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    noisy = torch.where(
        torch.rand(len(data.train), generator=generator) < 0.7,
        torch.randint(0, 4, (len(data.train),), generator=generator),
        data.train.target,
    )
    split = Split(data.train.inputs, noisy)
    gains = []
    for seed in range(2):

        def procedure(run, weight):
            hook = Distillation(lambda b: scores[b.index], weight=weight)
            return run.fit(run.build(width=0.5), data=split, hooks=(lambda m, p: hook,))

        values = []
        for weight in (0.0, 0.9):
            technique = type(distillation())(train=lambda run, w=weight: procedure(run, w))
            trained = train(task, technique, settings, Conditions(seed=seed))
            values.append(trained.run.evaluate(trained.model))
        gains.append(values[1] - values[0])
    assert min(gains) > 0


def test_batch_is_what_the_teacher_is_asked_about():
    asked = []
    data = batch()

    def teacher(given: Batch):
        asked.append(given)
        return torch.zeros(32, 4)

    Distillation(teacher).loss(torch.zeros(()), torch.zeros(32, 4), data)
    assert asked == [data]
