from dataclasses import replace

import pytest
import torch
from torch import nn

from whit.core.data import ImageData, Split
from whit.core.execution import Conditions, train
from whit.core.task import Task
from whit.core.technique import Technique
from whit.errors import NotApplicable, SpecError
from whit.methods.together.filter_grafting import filter_grafting
from whit.parts.filter_statistics import filter_entropy
from whit.tasks.models import control_builder
from whit.tasks.toys import toy_classification, toy_nodes, toy_regression

QUICK = toy_classification().settings.changed(epochs=2)


def stripes(samples, seed):
    """Pictures whose bright row or column is what is learnt."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.8 * torch.randn(samples, 1, 8, 8, generator=generator)
    target = torch.randint(0, 4, (samples,), generator=generator)
    for number, label in enumerate(target.tolist()):
        place = 2 + 3 * (label % 2)
        if label < 2:
            x[number, 0, place] += 1.0
        else:
            x[number, 0, :, place] += 1.0
    return Split((x,), target)


def image_task(model="conv4", width=0.25):
    data = ImageData(
        stripes(256, 0), stripes(128, 1), stripes(64, 2), class_names=("a", "b", "c", "d")
    )
    settings = QUICK.changed(batch_size=64)
    return Task(
        name="stripes",
        load=lambda: data,
        build=control_builder(model, width),
        settings=settings,
    )


def trained(task=None, settings=None, seed=0, **options):
    task = task or toy_classification()
    quick = settings or task.settings.changed(epochs=2)
    return train(task, filter_grafting(**options), quick, Conditions(seed=seed))


@pytest.mark.parametrize(
    "options",
    [{}, {"members": 3, "a": 0}, {"level": "filter"}, {"source": "noise", "own_order": False},
     {"source": "internal", "different_rates": False}, {"recalibrate": True}],
    ids=str,
)  # fmt: skip
def test_convolutions_learn(options):
    # A member's own rate may be a quarter: six epochs, 24 steps, are too few for three members.
    made = trained(image_task(), image_task().settings.changed(epochs=12), **options)
    assert made.run.evaluate(made.model) > 0.6
    assert isinstance(made.model, nn.Sequential) and made.choices == {}
    assert float(made.model.norm1.running_var.min()) > 0


def test_the_notes_compare_the_kept_network_with_its_start():
    starts = []
    task = image_task("resnet8", width=0.25)

    def build(data, **choices):
        starts.append(task.build(data, **choices))
        starts[-1].start = filter_entropy(starts[-1])
        return starts[-1]

    made = trained(replace(task, build=build), members=3)
    best = next(n for n in starts if n is made.model)
    notes = made.run.notes
    lines = notes["Filter grafting: entropy"]
    assert dict(zip(lines["x"], lines["series"]["before"], strict=True)) == best.start
    assert dict(zip(lines["x"], lines["series"]["after"], strict=True)) == filter_entropy(best)
    assert "block2.shortcut.conv" in lines["x"]
    rows = notes["Filter grafting: layers"]["rows"]
    assert [row[1] for row in rows][:2] == [4, 4] and all(row[2] <= row[1] for row in rows)
    invalid = notes["Filter grafting: invalid filters"]
    assert invalid["x"] == lines["x"] == [row[0] for row in rows]
    assert invalid["series"]["before"] == [row[2] for row in rows]
    assert invalid["series"]["after"] == [row[3] for row in rows]
    kept = [row for row in notes["Filter grafting: networks"]["rows"] if row[3]]
    (row,) = kept
    assert row[2] == max(r[2] for r in notes["Filter grafting: networks"]["rows"])
    assert row[2] == made.run.evaluate(made.model)


@pytest.mark.parametrize("recalibrate", [False, True])
def test_recalibrated_statistics_are_those_of_the_training_samples(recalibrate):
    made = trained(image_task(), recalibrate=recalibrate)
    x = made.run.data.train.inputs[0]
    with torch.no_grad():
        for name, layer in made.model.named_children():
            if name == "norm1":
                break
            x = layer(x)
    matches = torch.allclose(made.model.norm1.running_mean, x.mean((0, 2, 3)), atol=1e-4)
    assert matches is recalibrate


class Branching(nn.Module):
    """Decides by values, which torch.fx cannot follow."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 4)

    def forward(self, x):
        x = self.norm(self.conv(x)).relu().mean((2, 3))
        return self.head(x if x.sum() > 0 else -x)


def test_a_network_that_cannot_be_followed_is_grafted_and_the_note_says_so():
    task = replace(image_task(), build=lambda data: Branching())
    text = trained(task).run.notes["Filter grafting: networks"]["caption"]
    assert "could not be followed" in text and "control flow" in text
    followed = trained(image_task()).run.notes["Filter grafting: networks"]["caption"]
    assert "could not be followed" not in followed


def test_two_networks_are_equal_at_the_end_and_the_first_is_kept():
    made = trained(members=2)
    (first, second) = made.run.notes["Filter grafting: networks"]["rows"]
    assert first[2] == second[2] and first[3] and not second[3]


def test_networks_apart_are_not_equal_with_other_sources():
    made = trained(source="noise", settings=toy_classification().settings.changed(epochs=1))
    before = [row[1] for row in made.run.notes["Filter grafting: networks"]["rows"]]
    assert len(set(before)) == 2


def test_filters_that_are_invalid_at_the_end_are_shown():
    """Filters of the first convolution are made weak by hand: the notes count them."""
    task = image_task()

    def build(data, **choices):
        model = task.build(data, **choices)
        with torch.no_grad():
            model.conv1.weight[:3] = 1e-5
        return model

    settings = task.settings.changed(epochs=1, learning_rate=1e-9)
    made = trained(replace(task, build=build), settings)
    series = made.run.notes["Filter grafting: invalid filters"]["series"]
    assert series == {"before": [3, 0], "after": [3, 0]}
    mended = trained(replace(task, build=build), settings, source="internal")
    series = mended.run.notes["Filter grafting: invalid filters"]["series"]
    assert series == {"before": [3, 0], "after": [0, 0]}


def test_members_under_sgd_move_as_far_as_a_network_alone():
    """No filter is invalid here, so the internal source changes nothing."""
    built = []
    task = toy_classification()

    def build(data, **choices):
        built.append(task.build(data, **choices))
        return built[-1]

    settings = QUICK.changed(optimizer="sgd", learning_rate=0.05)
    grafting = filter_grafting(source="internal", own_order=False, different_rates=False)
    for technique in (Technique(), grafting):
        train(replace(task, build=build), technique, settings, Conditions())
    alone, member, other = built
    for p, q, r in zip(alone.parameters(), member.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q) and not torch.equal(p, r)


def test_batched_members_learn_the_same():
    loop = trained(members=3)
    batched = trained(members=3, way="batched")
    assert loop.run.meter.charge().train_macs == batched.run.meter.charge().train_macs
    for p, q in zip(loop.model.parameters(), batched.model.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-3, atol=1e-4)


def test_training_costs_as_many_networks():
    single = train(toy_classification(), Technique(), QUICK, Conditions())
    for members in (2, 4):
        made = trained(members=members, settings=QUICK)
        assert made.run.meter.charge().train_macs == members * single.run.meter.charge().train_macs


@pytest.mark.parametrize("own_order", [True, False])
def test_a_teacher_is_trained_charged_and_heard(own_order):
    made = trained(teacher_width=2.0, own_order=own_order)
    alone = trained(own_order=own_order)
    assert made.run.fits == 2
    assert made.run.meter.charge().train_macs > alone.run.meter.charge().train_macs
    states = [m.model.state_dict()["linear1.weight"] for m in (made, alone)]
    assert not torch.equal(*states)


def test_refusals():
    for members in (1, 9, 2.0, True, "two"):
        with pytest.raises(SpecError, match="members was given"):
            filter_grafting(members=members)
    for options in ({"a": -1}, {"c": 0}, {"level": "x"}, {"source": "x"}, {"own_order": "yes"},
                    {"temperature": 0}, {"weight": 0}, {"weight": 2}, {"temperature": 2.0},
                    {"way": "fast"}):  # fmt: skip
        with pytest.raises(SpecError, match=next(iter(options))):
            filter_grafting(**options)
    with pytest.raises(NotApplicable, match="own_order=False"):
        trained(toy_nodes())
    with pytest.raises(NotApplicable, match="teacher_width"):
        trained(toy_regression(), teacher_width=2.0)
    with pytest.raises(NotApplicable, match="level='layer'"):
        trained(image_task("resnet8"), level="filter")


def test_a_graph_is_learnt_with_a_common_order():
    made = trained(toy_nodes(), own_order=False)
    assert len(made.run.notes["Filter grafting: layers"]["rows"]) > 0
