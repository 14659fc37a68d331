"""Five toy tasks, one for each kind of data; each is made here and learnt in well under a second.

They serve tests and conformance checks, not comparisons. All data come from fixed seeds.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from whit.core.data import GraphData, SequenceData, Split, VectorData
from whit.core.settings import Settings
from whit.core.task import Task, r_squared
from whit.tasks.models import call_text, mlp4, width_builder
from whit.tasks.toy_models import frame_model, neighbour_tagger, node_model

SIZES = (384, 128, 128)


def toy_classification(*, width: float = 1.0) -> Task:
    """Classify points in eight dimensions by which of four pairs of clouds they lie in.

    Args:
        width: multiplies the hidden sizes of the control model, > 0.
    """
    return Task(
        name=call_text(toy_classification, width=width),
        load=_clouds,
        build=width_builder(mlp4, width),
        settings=Settings(epochs=12, batch_size=64, learning_rate=1e-2),
    )


def toy_regression(*, width: float = 1.0) -> Task:
    """Predict a smooth function of six numbers.

    Args:
        width: multiplies the hidden sizes of the control model, > 0.
    """
    return Task(
        name=call_text(toy_regression, width=width),
        load=_surface,
        build=width_builder(mlp4, width),
        loss=functional.mse_loss,
        metric=r_squared,
        settings=Settings(epochs=20, batch_size=64, learning_rate=1e-2),
    )


def toy_tagging(*, width: float = 1.0) -> Task:
    """Say of each token whether it is smaller than, equal to or larger than the one before it.

    Args:
        width: multiplies the hidden size of the control model, > 0.
    """
    return Task(
        name=call_text(toy_tagging, width=width),
        load=_tokens,
        build=width_builder(neighbour_tagger, width),
        loss=tagging_loss,
        settings=Settings(epochs=15, batch_size=64, learning_rate=1e-2),
        output_axes=2,
    )


def toy_frames(*, width: float = 1.0) -> Task:
    """Predict the next 8 x 8 frame of a blob that moves at a constant speed, from four frames.

    Args:
        width: multiplies the channels of the control model, > 0.
    """
    return Task(
        name=call_text(toy_frames, width=width),
        load=_frames,
        build=width_builder(frame_model, width),
        loss=functional.mse_loss,
        metric=r_squared,
        settings=Settings(epochs=12, batch_size=64, learning_rate=2e-2),
        output_axes=3,
    )


def toy_nodes(*, width: float = 1.0) -> Task:
    """Classify the nodes of a graph of three communities with noisy features.

    Args:
        width: multiplies the hidden size of the control model, > 0.
    """
    return Task(
        name=call_text(toy_nodes, width=width),
        load=_communities,
        build=width_builder(node_model, width),
        settings=Settings(epochs=20, batch_size=60, learning_rate=1e-2),
    )


def tagging_loss(output: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy over all positions.

    Shapes: output [batch, time, classes], target int64 [batch, time] -> scalar.
    """
    return functional.cross_entropy(output.flatten(0, -2), target.flatten())


def _split(inputs: Tensor, target: Tensor) -> tuple[Split, Split, Split]:
    whole = Split((inputs,), target)
    train, valid, test = torch.split(torch.arange(len(target)), list(SIZES))
    return whole.subset(train), whole.subset(valid), whole.subset(test)


@cache
def _clouds() -> VectorData:
    generator = torch.Generator().manual_seed(1)
    samples = sum(SIZES)
    centres = torch.randn(8, 8, generator=generator) * 1.5
    cloud = torch.randint(0, 8, (samples,), generator=generator)
    inputs = centres[cloud] + torch.randn(samples, 8, generator=generator)
    train, valid, test = _split(inputs, cloud % 4)
    return VectorData(train, valid, test, class_names=tuple("abcd"))


@cache
def _surface() -> VectorData:
    generator = torch.Generator().manual_seed(2)
    inputs = torch.rand(sum(SIZES), 6, generator=generator) * 2 - 1
    a, b, c, d = inputs[:, :4].unbind(1)
    noise = 0.05 * torch.randn(len(inputs), generator=generator)
    target = (torch.sin(2 * a) + b * c + d.square() + noise).unsqueeze(1)
    train, valid, test = _split(inputs, target)
    return VectorData(train, valid, test, output_size=1)


@cache
def _tokens() -> SequenceData:
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(0, 8, (sum(SIZES), 12), generator=generator)
    before = torch.cat([torch.zeros_like(tokens[:, :1]), tokens[:, :-1]], 1)
    tags = 1 + (tokens > before).long() - (tokens < before).long()
    train, valid, test = _split(tokens, tags)
    return SequenceData(train, valid, test, class_names=("smaller", "equal", "larger"))


@cache
def _frames() -> SequenceData:
    generator = torch.Generator().manual_seed(4)
    samples, times = sum(SIZES), torch.arange(5.0).view(1, 5, 1)
    speed = torch.rand(samples, 1, 2, generator=generator) * 1.6 - 0.8
    start = 3.5 - 2 * speed + torch.rand(samples, 1, 2, generator=generator) * 2 - 1
    place = start + speed * times
    pixels = torch.arange(8.0)
    rows = torch.exp(-(pixels - place[..., :1]).square())
    columns = torch.exp(-(pixels - place[..., 1:]).square())
    frames = rows.unsqueeze(3) * columns.unsqueeze(2)
    train, valid, test = _split(frames[:, :4], frames[:, 4:])
    return SequenceData(train, valid, test, output_size=1)


@cache
def _communities() -> GraphData:
    generator = torch.Generator().manual_seed(5)
    nodes, classes = 240, 3
    target = torch.arange(nodes) % classes
    features = functional.one_hot(target, classes).float()
    features = features + 1.2 * torch.randn(nodes, classes, generator=generator)
    chance = torch.where(target.unsqueeze(0) == target.unsqueeze(1), 0.08, 0.01)
    upper = (torch.rand(nodes, nodes, generator=generator) < chance).triu(1)
    edges = (upper | upper.T).nonzero().T.contiguous()
    order = torch.randperm(nodes, generator=generator)
    whole = Split((torch.arange(nodes),), target, (features, edges))
    train, valid, test = map(whole.subset, (order[:120], order[120:180], order[180:]))
    return GraphData(train, valid, test, class_names=("first", "second", "third"))
