import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import whit
from whit.core.execution import Conditions, execute, train
from whit.core.technique import Technique
from whit.errors import NotApplicable, SpecError
from whit.methods.together.cnng import cnng
from whit.parts.route import FeatureRule, GroupSumRule, Route
from whit.procedures.reflection import evolution
from whit.procedures.reflection.evolution import divide_samples
from whit.tasks.toys import toy_classification, toy_nodes, toy_regression

TWO_TASKS = Path(__file__).parents[3] / "benchmarks" / "two_tasks.py"


def trained(seed=1, epochs=3, task=None, **options):
    task = task or toy_classification()
    technique = cnng(**options)
    return train(task, technique, task.settings.changed(epochs=epochs), Conditions(seed=seed))


def inputs(found):
    data = found.run.data.valid
    return data.batch(torch.arange(len(data))).inputs


def test_a_route_over_the_first_network_and_its_specialists_is_returned():
    found = trained()
    assert isinstance(found.model, Route) and isinstance(found.model.rule, GroupSumRule)
    assert len(found.model.members) == 3 and found.run.fits == 3
    membership = found.model.rule.membership
    assert torch.equal(membership.sum(1), torch.ones(4)) and bool((membership.sum(0) > 0).all())
    assert found.model.strategies[0] == (0,)


def test_the_same_seed_gives_the_same_routes():
    one, two, other = trained(), trained(), trained(seed=2)
    assert torch.equal(one.model.route(*inputs(one)), two.model.route(*inputs(two)))
    assert torch.equal(one.model(*inputs(one)), two.model(*inputs(two)))
    assert not torch.equal(one.model(*inputs(one)), other.model(*inputs(other)))


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"gate": True}, {"situations": "kmeans"}], ids=str)
def test_the_choice_is_never_worse_than_the_first_network_on_its_own_samples(seed, options):
    *rows, total = trained(seed=seed, **options).run.notes["Situations"]["rows"]
    assert total[4] >= total[3] and total[3] <= total[5]
    assert sum(row[1] for row in rows) == pytest.approx(1)


def test_with_a_target_of_zero_the_first_network_is_left_alone():
    found = trained(target=0.0)
    assert torch.equal(found.model(*inputs(found)), found.model.members[0](*inputs(found)))
    assert not found.model.route(*inputs(found)).any()


def test_the_parts_are_disjoint_by_the_samples_themselves():
    data = toy_classification().load()
    parts = divide_samples(data.train, torch.Generator().manual_seed(0))
    hashes = [
        {row.numpy().tobytes() for row in part.inputs[0]}
        for part in (parts.fit, parts.reflect, parts.choose, data.valid, data.test)
    ]
    assert sum(map(len, hashes)) == len(set().union(*hashes))


def test_permuted_test_labels_change_no_weight_and_no_route():
    task = toy_classification()
    data = task.load()
    order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))
    other = replace(data, test=replace(data.test, target=data.test.target[order]))
    one, two = trained(), trained(task=replace(task, load=lambda: other))
    x = data.test.inputs[0].float()
    assert torch.equal(one.model(x), two.model(x))
    assert torch.equal(one.model.route(x), two.model.route(x))


def test_clusters_of_features_are_routed_by_a_head():
    found = trained(situations="kmeans")
    assert isinstance(found.model.rule, FeatureRule) and found.model.rule.situations == 3


def test_a_distilled_group_is_one_network_like_the_control():
    found = trained(distil=True)
    assert type(found.model) is type(found.run.build()) and found.run.fits == 4
    assert not torch.equal(found.model(*inputs(found)), trained().model(*inputs(found)))


def test_epochs_of_specialists_are_counted_and_charged():
    task = toy_classification()
    short = train(task, cnng(epochs=1), task.settings.changed(epochs=3), Conditions(seed=1))
    long = trained(epochs=3)
    assert [h["epochs"] for h in short.run.history] == [3, 1, 1]
    assert short.run.meter.charge().train_macs < long.run.meter.charge().train_macs


def test_the_caption_says_what_the_numbers_are():
    note = trained().run.notes["Situations"]
    assert "oracle" in note["columns"] and "optimistic" in note["caption"]
    assert "Prototypes" not in trained().run.notes, "points are no pictures"


@pytest.mark.parametrize("options", [{}, {"situations": "kmeans"}], ids=str)
def test_the_group_can_be_packed(options):
    task = toy_classification()
    settings = task.settings.changed(epochs=2)
    row = execute(task, cnng(**options), settings).scorecard.as_dict()
    assert row["stored_bytes"] > 0 and row["packed_agreement"] == 1.0, row["reasons"]


@pytest.mark.parametrize(
    "task, reason",
    [(toy_regression(), "class scores"), (toy_nodes(), "one whole")],
    ids=["regression", "graph"],
)
def test_what_it_cannot_learn_is_refused_in_words(task, reason):
    with pytest.raises(NotApplicable, match=reason):
        trained(task=task)


def test_a_class_with_too_few_samples_is_refused():
    task = toy_classification()
    data = task.load()
    rare = (data.train.target == 2).nonzero().flatten()[2:]
    keep = torch.ones(len(data.train), dtype=torch.bool)
    keep[rare] = False
    fewer = replace(data, train=data.train.subset(keep.nonzero().flatten()))
    with pytest.raises(SpecError, match="Class 2 has 2 samples"):
        trained(task=replace(task, load=lambda: fewer))


def test_more_groups_than_classes_are_refused():
    with pytest.raises(SpecError, match="4 classes"):
        trained(groups=5)


@pytest.mark.parametrize(
    "options",
    [{"groups": 0}, {"groups": 10}, {"groups": True}, {"situations": "labels"}, {"target": 1.5},
     {"eps": 0}, {"epochs": 0}, {"rate": 0}, {"gate": 1}, {"gate_hidden": -1},
     {"gate_hidden": 1.5}, {"grow": 1}, {"distil": "no"}],
    ids=str,
)  # fmt: skip
def test_bad_options_are_refused(options):
    with pytest.raises(SpecError, match=next(iter(options))):
        cnng(**options)


@pytest.mark.parametrize("most", [3, 11, True, 4.0], ids=str)
def test_growth_needs_room_and_an_end(most):
    with pytest.raises(SpecError, match="max_members was given .*from 4, one more than"):
        cnng(grow=True, max_members=most)
    assert isinstance(cnng(max_members=3), Technique), "unused without growth"


class Unreadable(torch.Tensor):
    """Labels that cannot be read while `read` is False."""

    readable = True

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if not cls.readable:
            raise AssertionError(f"{function} reads the labels of the test split")
        return super().__torch_function__(function, types, args, kwargs or {})


@pytest.mark.parametrize("options", [{"grow": True, "gate": True}, {"distil": True}], ids=str)
def test_nothing_reads_the_labels_of_the_test_split(options):
    task = toy_classification()
    data = task.load()
    guarded = data.test.target.clone().as_subclass(Unreadable)
    other = replace(data, test=replace(data.test, target=guarded))
    technique = cnng(**options)

    def watched(run):
        Unreadable.readable = False
        try:
            with pytest.raises(AssertionError, match="reads the labels"):
                guarded.sum()
            return technique.train(run)
        finally:
            Unreadable.readable = True

    found = train(
        replace(task, load=lambda: other),
        replace(technique, train=watched),
        task.settings.changed(epochs=1),
        Conditions(seed=1),
    )
    assert isinstance(found.test.target, Unreadable), "the guarded labels are those of the run"
    plain = train(task, technique, task.settings.changed(epochs=1), Conditions(seed=1))
    assert torch.equal(found.model(*inputs(found)), plain.model(*inputs(plain)))


def test_growth_trains_further_specialists_and_keeps_what_gains_enough():
    found = trained(epochs=1, grow=True, max_members=4)
    count = len(found.model.members)
    assert found.run.fits == 4 and count in (3, 4)
    assert len(found.model.strategies) == count


def test_a_gate_with_a_hidden_layer_that_is_better_becomes_the_rule(monkeypatch):
    # What is better is not left to luck: the strategies are said to be wrong everywhere.
    right = evolution.right_on_r2

    def gates_only(members, found, strategies):
        gated = isinstance(found.rule, FeatureRule)
        return right(members, found, strategies) if gated else -1

    monkeypatch.setattr(evolution, "right_on_r2", gates_only)
    found = trained(epochs=1, gate=True, gate_hidden=4)
    head = found.model.rule.head
    assert head[0].out_features == 4 and head[2].out_features == 3
    assert found.model.strategies == ((0,), (0,), (1,), (2,))
    assert "gate chooses" in found.run.notes["Situations"]["caption"]
    assert bool(found.model.route(*inputs(found)).any()), "the gate has a say"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, options, points",
    [("own_classes", {}, 10), ("shared_classes", {"situations": "kmeans"}, 10)],
)
def test_two_hidden_tasks_are_told_apart_and_learned(name, options, points):
    task = whit.task(f"{TWO_TASKS}:{name}")
    found = train(
        task, cnng(eps=0.02, epochs=8, rate=1.0, **options), task.settings, Conditions(seed=0)
    )
    valid = found.run.data.valid
    first, group = found.model.members[0], found.model
    gain = found.run.evaluate(group) - found.run.evaluate(first)
    assert 100 * gain >= points
    situations = group.route(*inputs(found))
    hidden = (valid.inputs[0][:, :4].mean(1) > 0).long()
    doubtful = situations > 0
    agreement = float((situations[doubtful] - 1 == hidden[doubtful]).double().mean())
    assert max(agreement, 1 - agreement) > 0.95
    # On its own situation a specialist beats the first network.
    for situation in (1, 2):
        here = valid.subset((situations == situation).nonzero().flatten())
        specialist = found.run.evaluate(group.members[situation], here)
        assert specialist > found.run.evaluate(first, here)


@pytest.mark.slow
def test_a_group_that_begins_with_too_few_situations_grows():
    task = whit.task(f"{TWO_TASKS}:shared_classes")
    options = {"groups": 1, "situations": "kmeans", "eps": 0.02, "rate": 1.0}
    reached = {
        grow: train(
            task, cnng(grow=grow, **options), task.settings.changed(epochs=4), Conditions(seed=0)
        )
        for grow in (False, True)
    }
    before, after = (found.run.evaluate(found.model) for found in reached.values())
    assert after >= before + 0.1
    assert len(reached[True].model.members) > len(reached[False].model.members) == 2


def test_specialists_that_know_no_better_are_left_out(monkeypatch):
    # Every specialist is a copy of the first network, so none beats it on R2.
    monkeypatch.setattr(
        evolution, "specialist", lambda members, *rest: copy.deepcopy(members.networks[0])
    )
    found = trained()
    x = inputs(found)
    assert len(found.model.members) == 3 and found.model.strategies == ((0,), (0,), (0,))
    assert torch.equal(found.model(*x), found.model.members[0](*x))


def test_the_group_is_an_ordinary_module():
    model = trained().model
    assert isinstance(model, nn.Module) and not model.training
