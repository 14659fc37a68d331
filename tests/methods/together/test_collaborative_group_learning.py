from dataclasses import replace

import pytest
import torch
from torch import nn

from whit.core.execution import Conditions, execute, train
from whit.errors import NotApplicable, SpecError
from whit.methods.together.collaborative_group_learning import collaborative_group_learning
from whit.parts.modular_network import ModularNetwork
from whit.tasks.toys import toy_classification, toy_nodes, toy_regression


def trained(seed=1, epochs=3, **options):
    task = toy_classification()
    technique = collaborative_group_learning(**options)
    return train(task, technique, task.settings.changed(epochs=epochs), Conditions(seed=seed))


def inputs(found):
    data = found.run.data.valid
    return data.batch(torch.arange(len(data))).inputs


def test_the_best_student_is_kept_as_an_ordinary_chain():
    found = trained()
    assert type(found.model) is nn.Sequential and found.choices == {}
    values = [row[1] for row in found.run.notes["Students"]["rows"]]
    assert found.run.evaluate(found.model) == max(values)
    assert [n for n, _ in found.model.named_children()] == [
        n for n, _ in found.run.build().named_children()
    ]


def test_the_routes_are_noted_and_use_every_module():
    found = trained(students=4, modules=2, stages=3)
    note = found.run.notes["Routes"]
    routes = [tuple(row[1:]) for row in note["rows"]]
    assert len(routes) == 4 == len(set(routes)) and {len(r) for r in routes} == {3}
    assert all({route[stage] for route in routes} == {0, 1} for stage in range(3))
    assert "parameters" in note["caption"]


def test_the_ensemble_averages_the_probabilities_of_all_students():
    found = trained(keep="ensemble")
    network, _ = found.model
    assert isinstance(network, ModularNetwork) and len(network) == 4
    expected = torch.stack([s(*inputs(found)) for s in network.students]).softmax(-1).mean(0)
    assert torch.allclose(found.model(*inputs(found)), expected)


@pytest.mark.parametrize("keep", ["best", "ensemble"])
def test_what_is_kept_can_be_packed(keep):
    task = toy_classification()
    technique = collaborative_group_learning(keep=keep)
    row = execute(task, technique, task.settings.changed(epochs=1)).scorecard.as_dict()
    assert row["stored_bytes"] > 0 and row["packed_agreement"] == 1.0, row["reasons"]


def test_training_together_costs_less_than_apart():
    task = toy_classification()
    alone = train(task, type(collaborative_group_learning())(), task.settings.changed(epochs=1),
                  Conditions())  # fmt: skip
    macs = alone.run.meter.charge().train_macs
    together = trained(epochs=1, modules=1).run.meter.charge().train_macs
    assert macs < together < 2 * macs, "one body with four heads"


@pytest.mark.parametrize(
    "options",
    [{"norms": "student"}, {"active": 2}, {"group": 1}, {"share": 1.0}, {"modules": 4},
     {"stages": 1}, {"weight": 0}],
    ids=str,
)  # fmt: skip
def test_options_change_the_training(options):
    plain, other = trained(epochs=2, keep="ensemble"), trained(epochs=2, keep="ensemble", **options)
    assert not torch.equal(plain.model(*inputs(plain)), other.model(*inputs(other)))


def test_students_learn():
    values = [row[1] for row in trained(epochs=8).run.notes["Students"]["rows"]]
    assert min(values) > 0.5, "chance is a quarter"


def other_model(build):
    task = toy_classification()
    return replace(task, build=build)


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize(
    "task, reason",
    [(toy_regression(), "class scores"), (toy_nodes(), "one input"),
     (other_model(lambda data: Own()), "is a Own"),
     (other_model(lambda data: nn.Sequential(nn.Linear(8, 4))), "two or more")],
    ids=["regression", "graph", "no chain", "no body"],
)  # fmt: skip
def test_what_it_cannot_learn_is_refused_in_words(task, reason):
    with pytest.raises(NotApplicable, match=reason):
        train(task, collaborative_group_learning(), task.settings, Conditions())


@pytest.mark.parametrize(
    "options",
    [{"students": 1}, {"modules": 5}, {"modules": 0}, {"stages": 0}, {"share": 0},
     {"share": 1.2}, {"weight": -1}, {"temperature": 0}, {"group": 0}, {"ramp": -1},
     {"active": 1}, {"norms": "none"}, {"keep": "all"}],
    ids=str,
)  # fmt: skip
def test_bad_options_are_refused(options):
    with pytest.raises(SpecError, match=next(iter(options))):
        collaborative_group_learning(**options)


def test_a_class_that_a_student_would_not_see_is_refused():
    with pytest.raises(SpecError, match="no sample of class"):
        trained(share=0.001)
