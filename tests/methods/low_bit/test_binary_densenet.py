from dataclasses import replace

import pytest
import torch
from torch import nn

from whit.core.data import ImageData, Split
from whit.core.execution import Conditions, execute, train
from whit.core.task import Task
from whit.errors import NotApplicable, SpecError
from whit.methods.low_bit.binarized_network import binarized_network
from whit.methods.low_bit.binary_densenet import (
    VARIANTS,
    binary_densenet,
    small_architecture,
)
from whit.methods.low_bit.weight_sharing import weight_sharing
from whit.methods.sparse.one_cycle_pruning import one_cycle_pruning
from whit.parts.binary_layers import binary_layers
from whit.parts.dense_network import BinaryDenseNet
from whit.parts.level_counts import level_summary
from whit.parts.masks import latent_weight
from whit.parts.normalise import Normalise
from whit.spec_strings import task as named_task
from whit.tasks.models import conv4
from whit.tasks.toys import toy_classification, toy_frames

TINY = {"layers": [1, 1], "growth": 4, "filters": 4}


def images(size=(6, 6), count=96, classes=2):
    """Raw bytes with a bright corner or none."""
    generator = torch.Generator().manual_seed(0)

    def split(samples):
        x = torch.randint(0, 80, (samples, 1, *size), generator=generator, dtype=torch.uint8)
        y = torch.randint(0, classes, (samples,), generator=generator)
        x[y == 1, :, :2, :2] += 120
        return Split((x,), y)

    return ImageData(split(count), split(48), split(48), tuple("ab"), input_range=(0.0, 255.0))


def image_task(size=(6, 6)):
    def build(data, width=1.0):
        return conv4(data, width)

    data = images(size)
    return Task("images", lambda: data, build)


def prepared(options, task):
    data = task.load()
    return binary_densenet(**options).prepare_model(task.build(data), data)


def test_the_small_members_for_digits_and_photographs():
    model = prepared({}, named_task("digits"))
    assert isinstance(model, BinaryDenseNet)
    assert len(binary_layers(model)) == sum(small_architecture(64).layers) == 4
    assert small_architecture(32 * 32).layers == small_architecture(28 * 28).layers == (3, 3, 3)
    assert isinstance(model.steps.normalise, Normalise), "it takes raw values"
    assert model(torch.zeros(3, *named_task("digits").load().input_shape)).shape == (3, 10)


def test_options_reach_the_network():
    options = {"variant": "28", "layers": [2, 1], "growth": 6, "filters": 5, "window": 0.9}
    model = prepared({**options, "padding": "minus_one", "scale": "channel"}, image_task((8, 8)))
    layers = binary_layers(model)
    assert [tuple(latent_weight(layer).shape[:2]) for layer in layers] == [(6, 5), (6, 11), (6, 32)]
    assert model.steps.block1_layer1.new.sign.window == 0.9
    assert model.steps.block1_layer1.new.pad.value == -1.0
    model = prepared({"variant": "45", "reduction": 6.0}, image_task((60, 60)))
    assert model.steps.transition1.conv.out_channels == 64  # 32 round(floor(448 / 6) / 32)
    assert VARIANTS["45"].after_transition(448, 0) == 160


def test_latent_weights_stay_within_the_clip():
    task = image_task()
    settings = task.settings.changed(epochs=2, batch_size=32, learning_rate=3.0)
    seen = []

    technique = binary_densenet(**TINY, clip=1.3)
    hook = technique.hooks[0]

    def watched(model, plan):
        made = hook(model, plan)
        after = made.after_step

        def noting():
            largest = [float(latent_weight(m).detach().abs().max()) for m in binary_layers(model)]
            after()
            left = [float(latent_weight(m).detach().abs().max()) for m in binary_layers(model)]
            seen.append((max(largest), max(left)))

        made.after_step = noting
        return made

    train(task, replace(technique, hooks=(watched,)), settings, Conditions())
    assert max(before for before, _ in seen) > 1.3, "the example would leave the interval"
    assert max(after for _, after in seen) <= 1.3 + 1e-6


def test_it_learns_packs_and_shows_one_bit():
    task = image_task()
    settings = task.settings.changed(epochs=6, batch_size=16, learning_rate=1e-2)
    result = execute(task, binary_densenet(**TINY), settings, seed=1)
    assert result.scorecard.as_dict()["valid_accuracy"] > 0.8
    rows = {row.path: row for row in level_summary(result.model)}
    binary = {path: row.bits for path, row in rows.items() if path.endswith("new.conv")}
    assert binary == {"steps.block1_layer1.new.conv": 1, "steps.block2_layer1.new.conv": 1}
    assert rows["steps.head"].bits > 1 and rows["steps.stem"].bits > 1
    formats = {layer.module: layer.format for layer in result.packed.layers}
    assert {formats[path] for path in binary} == {"bits"}


def test_frames_are_predicted_at_full_size():
    task = toy_frames()
    model = prepared(TINY, task)
    assert model(torch.zeros(2, 4, 8, 8)).shape == (2, 1, 8, 8)
    assert isinstance(model.steps.head, nn.Conv2d)


def test_tasks_without_images_are_refused_with_the_reason():
    with pytest.raises(NotApplicable, match=r"\[channels, height, width\].*\[8\]"):
        prepared({}, toy_classification())
    task = image_task()
    wrong = Task("wrong", task.load, lambda data: nn.Sequential(nn.Flatten()))
    with pytest.raises(NotApplicable, match=r"gives \[36\]"):
        prepared({}, wrong)
    with pytest.raises(NotApplicable, match="nothing is left"):
        prepared({"layers": [1, 1, 1, 1]}, image_task((6, 6)))


@pytest.mark.parametrize("before", [binarized_network(), one_cycle_pruning()], ids=["bnn", "prune"])
def test_it_comes_first_in_a_sum(before):
    task = image_task()
    with pytest.raises(SpecError, match="Write it first"):
        train(task, before + binary_densenet(), task.settings, Conditions())


def test_pruning_after_it_gives_ternary_layers():
    task = image_task()
    technique = binary_densenet(**TINY) + one_cycle_pruning(sparsity=0.5)
    settings = task.settings.changed(epochs=2, batch_size=32)
    model = train(task, technique, settings, Conditions()).model
    assert set(model.steps.block2_layer1.new.conv.weight.unique().tolist()) <= {-1.0, 0.0, 1.0}


def test_what_acts_after_training_acts_on_its_network_in_either_order():
    task, dense = image_task(), binary_densenet(**TINY)
    settings = task.settings.changed(epochs=1, batch_size=32)
    for technique in (weight_sharing(bits=2) + dense, dense + weight_sharing(bits=2)):
        model = train(task, technique, settings, Conditions()).model
        assert isinstance(model, BinaryDenseNet)
        assert model.steps.stem.weight.unique().numel() <= 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"variant": "36"}, "'37'"),
        ({"layers": 4}, "layers"),
        ({"layers": []}, "layers"),
        ({"layers": [2, 0]}, "layers"),
        ({"growth": 0}, "growth was given 0; expected a whole number"),
        ({"bottleneck": True}, "bottleneck was given True"),
        ({"reduction": 0.5}, r"reduction was given 0\.5"),
        ({"reduction": True}, "reduction was given True"),
        ({"layers": [3], "reduction": 2}, "no effect with one block"),
        ({"clip": 0}, "clip"),
        ({"window": -1.0}, "window"),
        ({"gradient": "relu"}, "approxsign"),
        ({"padding": "ones"}, "plus_one"),
        ({"scale": "all"}, "channel"),
        ({"transitions": "float"}, "real"),
        ({"bottleneck": -1}, "bottleneck"),
    ],
    ids=str,
)
def test_bad_options_are_refused_at_the_call(options, words):
    with pytest.raises(SpecError, match=words):
        binary_densenet(**options)
