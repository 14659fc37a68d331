import pytest
import torch

from whit.core.execution import Conditions, train
from whit.core.technique import Technique
from whit.errors import SpecError, WhitError
from whit.packing import pack
from whit.procedures.reflection.author_style import author_style, label_clusters
from whit.tasks.toys import toy_classification


def grown(clusters=2, epochs=1, seed=3):
    def procedure(run):
        return author_style(run, run.fit(run.build()), clusters, seed)

    task = toy_classification()
    settings = task.settings.changed(epochs=epochs)
    return train(task, Technique(train=procedure), settings, Conditions(seed=seed))


def test_clusters_of_labels_are_intervals_of_class_numbers():
    labels = torch.tensor([0, 9, 1, 8, 0, 9, 1])
    assert label_clusters(labels, 2).tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert label_clusters(labels, 4).unique().tolist() == [0, 1, 2, 3]


def test_more_clusters_than_classes_are_refused():
    with pytest.raises(SpecError, match="5 clusters were asked of the labels of 3 wrong samples"):
        label_clusters(torch.tensor([0, 1, 1]), 5)
    with pytest.raises(SpecError, match="of 0 wrong samples"):
        label_clusters(torch.zeros(0, dtype=torch.int64), 1)


def test_the_tree_names_one_member_that_answers():
    found = grown()
    model, data = found.model, found.run.data
    x = data.train.batch(torch.arange(len(data.train))).inputs[0]
    chosen = model.route(x)
    assert len(model.members) == 3 and set(chosen.tolist()) == {0, 1, 2}, "it has learned by heart"
    with torch.no_grad():
        for k, member in enumerate(model.members):
            assert torch.equal(model(x)[chosen == k], member(x)[chosen == k])
        # On the samples of its training the tree is exact: member 0 where that is right.
        first = model.members[0](x).argmax(-1) == data.train.target
    assert torch.equal(chosen == 0, first)


def test_specialists_learn_their_cluster_alone():
    found = grown()
    model, data = found.model, found.run.data
    x, target = data.train.batch(torch.arange(len(data.train))).inputs[0], data.train.target
    chosen = model.route(x)
    assert int(target[chosen == 1].max()) < int(target[chosen == 2].min())
    assert [record["epochs"] for record in found.run.history] == [1, 1, 1]


def test_the_same_seed_gives_the_same_group_and_its_passes_are_charged():
    one, two = grown(), grown()
    x = one.run.data.valid.inputs[0].float()
    assert torch.equal(one.model(x), two.model(x))
    plain = train(
        toy_classification(),
        Technique(),
        toy_classification().settings.changed(epochs=1),
        Conditions(seed=3),
    )
    # The first network is asked once about all samples: a third of an epoch of training.
    epoch = plain.run.meter.charge().train_macs
    assert one.run.meter.charge().train_macs > 1.3 * epoch


def test_it_is_not_packable():
    found = grown()
    with pytest.raises(WhitError):
        pack(found.model, *found.run.data.valid.raw_example(8))
