import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from whit.core.data import Batch
from whit.core.execution import Conditions, train
from whit.core.technique import Technique
from whit.errors import NotApplicable, SpecError
from whit.methods.together.mutual_learning import mutual_learning
from whit.parts.group import Group
from whit.procedures.mutual_learning import MutualLearning, best_on_validation
from whit.tasks.toys import toy_classification, toy_regression


def trained(epochs=3, **options):
    task = toy_classification()
    return train(task, mutual_learning(**options), task.settings.changed(epochs=epochs),
                 Conditions(seed=1))  # fmt: skip


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 4)
    )


def test_weight_zero_trains_the_members_apart_bit_for_bit():
    """Two members by SGD at twice the rate, halved by the mean over members, are two networks."""
    x, y = torch.randn(32, 8), torch.randint(0, 4, (32,))

    def steps(model, rate, loss):
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        for _ in range(5):
            optimizer.zero_grad()
            loss(model.eval()).backward()
            optimizer.step()

    apart = [network(1), network(2)]
    group = Group([copy.deepcopy(m) for m in apart])
    for member in apart:
        steps(member, 0.25, lambda m: functional.cross_entropy(m(x), y))
    hook = MutualLearning(group, weight=0.0)

    def together(model):
        z = model(x)
        loss = torch.stack([functional.cross_entropy(each, y) for each in z]).mean()
        return hook.loss(loss, z, Batch((x,), y, torch.arange(32)))

    steps(group, 0.5, together)
    for member, twin in zip(apart, group.members, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(
            member.parameters(), twin.parameters(), strict=True))  # fmt: skip


def test_with_own_samples_the_peers_are_asked_about_them():
    group = Group([network(k) for k in range(3)], own_inputs=True).train()
    x = torch.randn(3, 16, 8)
    buffers = [b.clone() for b in group.buffers()]
    hook = MutualLearning(group)
    answers = {shift: hook._answers(Batch((x,), x, x), shift) for shift in (1, 2)}
    assert all(m.training for m in group.modules()), "the modes are as before"
    assert all(torch.equal(a, b) for a, b in zip(buffers, group.buffers(), strict=True))
    group.eval()
    for shift, answer in answers.items():
        assert not answer.requires_grad
        for k in range(3):
            assert torch.equal(answer[k], group.members[(k + shift) % 3](x[k]))


def test_own_samples_that_are_the_same_give_the_same_loss():
    x, y = torch.randn(16, 8), torch.randint(0, 4, (16,))
    members = [nn.Linear(8, 4) for _ in range(3)]
    shared, own = Group(members), Group(members, own_inputs=True)
    thrice = x.expand(3, -1, -1).contiguous()
    zero = torch.zeros(())
    a = MutualLearning(shared).loss(zero, shared(x), Batch((x,), y, y))
    b = MutualLearning(own).loss(zero, own(thrice), Batch((thrice,), y, y))
    assert a > 0 and torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("own_order", [False, True])
def test_members_come_nearer_to_one_another(own_order):
    def spread(weight):
        found = []

        def watched(run):
            true_fit = run.fit

            def fit(group, **rest):
                true_fit(group, **rest)
                inputs = run.data.valid.batch(torch.arange(len(run.data.valid))).inputs
                p = torch.stack([m.eval()(*inputs) for m in group.members]).detach().softmax(-1)
                found.append(float((p[0] - p[1]).abs().mean()))
                return group

            run.fit = fit
            return mutual_learning(weight=weight, own_order=own_order).train(run)

        task = toy_classification()
        technique = Technique(train=watched)
        train(task, technique, task.settings.changed(epochs=6), Conditions(seed=1))
        return found[0]

    assert spread(20.0) < 0.7 * spread(0.0)


def test_a_member_under_sgd_is_a_network_alone():
    """Same start, same samples: with weight=0 member 0 is the plain network, bit for bit."""
    built = []
    task = toy_classification()

    def build(data, **choices):
        built.append(task.build(data, **choices))
        return built[-1]

    settings = task.settings.changed(epochs=2, optimizer="sgd", learning_rate=0.05)
    watched = replace(task, build=build)
    for technique in (Technique(), mutual_learning(weight=0.0)):
        train(watched, technique, settings, Conditions(seed=1))
    alone, member, other = built
    for p, q, r in zip(alone.parameters(), member.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q) and not torch.equal(p, r)


@pytest.mark.parametrize("own_order", [False, True])
@pytest.mark.parametrize("way", ["batched", "threads"])
def test_members_that_run_another_way_learn_the_same(way, own_order):
    loop = trained(members=3, own_order=own_order)
    other = trained(members=3, own_order=own_order, way=way)
    assert loop.run.meter.charge().train_macs == other.run.meter.charge().train_macs
    for p, q in zip(loop.model.parameters(), other.model.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-3, atol=1e-4)


def test_own_order_is_charged_for_the_peers_answers():
    task = toy_classification()
    alone = train(task, Technique(), task.settings.changed(epochs=1), Conditions())
    macs = alone.run.meter.charge().train_macs
    assert trained(epochs=1, members=2).run.meter.charge().train_macs == 2 * macs
    own = trained(epochs=1, members=2, own_order=True).run.meter.charge().train_macs
    assert own == 2 * macs + 2 * macs // 3, "forward calls without gradient cost a third"


def test_the_best_on_validation_is_kept_and_all_are_noted():
    found = trained(members=3)
    (note,) = found.run.notes.values()
    values = [row[1] for row in note["rows"]]
    kept = [row[2] for row in note["rows"]]
    assert len(values) == 3 and kept.index(True) == values.index(max(values))
    assert found.run.evaluate(found.model) == max(values)
    assert found.choices == {}


def test_the_first_of_equals_is_kept():
    notes = {}
    run = SimpleNamespace(
        evaluate={"a": 0.5, "b": 0.7, "c": 0.7}.get,
        task=SimpleNamespace(metric_name="accuracy"),
        note=notes.__setitem__,
    )
    assert best_on_validation(run, ["a", "b", "c"], "title") == "b"


@pytest.mark.parametrize(
    "options",
    [{"members": 1}, {"members": 2.0}, {"members": True}, {"weight": -1}, {"temperature": 0},
     {"own_order": "no"}, {"way": "fast"}],
    ids=str,
)  # fmt: skip
def test_bad_options_are_refused(options):
    with pytest.raises(SpecError, match=next(iter(options))):
        mutual_learning(**options)


def test_the_hook_refuses_what_is_no_group_of_several():
    for model in (nn.Linear(2, 2), Group([nn.Linear(2, 2)])):
        with pytest.raises(SpecError, match="two members or more"):
            MutualLearning(model)


def test_tasks_without_class_scores_are_refused():
    task = toy_regression()
    with pytest.raises(NotApplicable, match="class scores"):
        train(task, mutual_learning(), task.settings, Conditions())


def test_a_measured_way_is_noted():
    made = trained(members=2, way="auto")
    note = made.run.notes["How the members ran"]
    assert [row[0] for row in note["rows"]][:1] == ["one_by_one"]
    assert sum(row[2] for row in note["rows"]) == 1
    assert "How the members ran" not in trained(members=2).run.notes
