from collections.abc import Callable

import pytest
import torch

from whit.core.data import GraphData, SequenceData, VectorData
from whit.core.fit import Surroundings, fit, predict
from whit.core.task import Task
from whit.measure.meter import Meter
from whit.tasks import toys

CPU = torch.device("cpu")
# What a constant answer would reach, and what the control must.
TOYS = [
    (toys.toy_classification, VectorData, 0.3, 0.8),
    (toys.toy_regression, VectorData, 0.0, 0.8),
    (toys.toy_tagging, SequenceData, 0.5, 0.9),
    (toys.toy_frames, SequenceData, 0.0, 0.5),
    (toys.toy_nodes, GraphData, 0.4, 0.65),
]


@pytest.mark.parametrize(("make", "kind", "chance", "goal"), TOYS)
def test_toys_are_learnable(
    make: Callable[..., Task], kind: type, chance: float, goal: float
) -> None:
    task = make()
    data = task.load().sealed()
    assert isinstance(data, kind)
    torch.manual_seed(0)
    model = task.build(data)
    around = Surroundings(task, CPU, Meter())
    fit(model, data.train, task.settings, (), around)
    output = predict(model, data.valid, task, CPU)
    assert output.dim() == 1 + task.output_axes
    assert task.metric(output, data.valid.target) >= goal > chance
    if data.class_names:
        share = data.valid.target.flatten().bincount().max() / data.valid.target.numel()
        assert share <= chance + 0.05


@pytest.mark.parametrize("make", [toy[0] for toy in TOYS])
def test_toys_take_a_width_and_say_their_name(make: Callable[..., Task]) -> None:
    task = make(width=0.5)
    assert task.name == f"{make.__name__}(width=0.5)"
    assert make().name == make.__name__
    count = [
        sum(p.numel() for p in task.build_model(task.load(), choices).parameters())
        for choices in ({}, {"width": 1.0})
    ]
    assert count[0] < count[1]


def test_the_blob_moves_at_a_constant_speed() -> None:
    data = toys.toy_frames().load()
    frames = torch.cat([data.train.inputs[0], data.train.target], 1)
    rows = (frames.sum(3) * torch.arange(8.0)).sum(2) / frames.sum((2, 3))
    speed = rows.diff(dim=1)
    assert (speed - speed.mean(1, keepdim=True)).abs().median() < 0.05


def test_a_tag_compares_a_token_with_the_one_before() -> None:
    data = toys.toy_tagging().load()
    tokens, tags = data.train.inputs[0][0].tolist(), data.train.target[0].tolist()
    for before, here, tag in zip([0, *tokens], tokens, tags, strict=False):
        assert tag == (0 if here < before else 1 if here == before else 2)
