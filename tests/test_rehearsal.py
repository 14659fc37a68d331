from dataclasses import replace

import pytest
import torch
from torch import nn

from whit.core.data import SequenceData, Split, VectorData
from whit.core.execution import Conditions, train
from whit.core.settings import Settings
from whit.core.task import Task
from whit.core.technique import Technique
from whit.errors import NotApplicable, TaskError, TestDataSealed
from whit.rehearsal import SAMPLES, cut_split, rehearse
from whit.spec_strings import parse_entry, spec
from whit.tasks.toys import tagging_loss, toy_classification, toy_regression, toy_tagging


def vectors(count, seed, classes=4):
    generator = torch.Generator().manual_seed(seed)
    return Split((torch.randn(count, 8, generator=generator),), torch.arange(count) % classes)


def vector_task(build=lambda data, width=1.0: nn.Linear(data.input_shape[0], 4), **options):
    data = VectorData(
        vectors(96, 0), vectors(40, 1), vectors(40, 2), class_names=tuple("abcd"), **options
    )
    return Task("small", lambda: data, build, settings=Settings(epochs=6, batch_size=40))


def test_the_cut_keeps_the_first_samples_of_every_class_in_their_order():
    target = torch.tensor([2] * 50 + [0] * 3 + [1] * 40)
    kept = cut_split(Split((torch.arange(93),), target)).inputs[0].tolist()
    assert len(kept) == SAMPLES
    assert kept == sorted(kept)
    assert {50, 51, 52} <= set(kept)
    assert [n for n in kept if n < 50] == list(range(15))
    assert [n for n in kept if n >= 53] == list(range(53, 67))


def test_the_cut_keeps_one_sample_of_each_of_many_classes():
    target = torch.arange(100).repeat(3)
    kept = cut_split(Split((torch.arange(300),), target))
    assert kept.target.tolist() == list(range(100))


@pytest.mark.parametrize("target", [torch.rand(90, 1), torch.zeros(90, 5, dtype=torch.int64)])
def test_targets_that_are_no_classes_give_the_first_samples(target):
    kept = cut_split(Split((torch.arange(90),), target))
    assert kept.inputs[0].tolist() == list(range(SAMPLES))


def test_sizes_follow_from_the_whole_data():
    tokens = torch.zeros(200, 5, dtype=torch.int64)
    tokens[-1] = 31  # far behind what the cut keeps, which has one class only
    split = Split((tokens,), tokens % 3)
    data = SequenceData(split, split, split, class_names=tuple("abc"))

    def build(data):
        size = int(data.train.inputs[0].max()) + 1
        return nn.Sequential(nn.Embedding(size, 4), nn.Linear(4, 3))

    task = Task("tokens", lambda: data, build, loss=tagging_loss, output_axes=2)
    done = rehearse(task, data.sealed(), Technique(), task.settings)
    assert done.finished["0"].shapes["weight"] == (32, 4)
    assert len(done.trained.run.data.train) == SAMPLES


def test_masks_reach_their_final_sparsity():
    task = toy_classification()
    done = rehearse(task, task.load().sealed(), spec("magnitude_pruning(sparsity=0.8)"), Settings())
    model = done.trained.model
    weights = torch.cat([m.weight.flatten() for m in model.modules() if isinstance(m, nn.Linear)])
    assert float((weights == 0).double().mean()) == pytest.approx(0.8, abs=0.001)
    assert done.prepared["linear1"].quantisers == {"weight": ("Mask",)}
    assert done.finished["linear1"].quantisers == {}


@pytest.mark.parametrize(
    "text",
    [
        "plain()",
        "distillation(student_width=0.5)",
        "distillation() + binarized_network() @ epochs=9, batch_size=7",
    ],
)
@pytest.mark.parametrize("augment", [None, lambda inputs, generator: inputs + 0.1])
def test_the_estimated_training_cost_is_the_real_one(text, augment):
    # 96 samples in batches of 40: 16 are left out of each epoch, but not of the teacher's answers.
    task = vector_task(
        lambda data, width=1.0: nn.Sequential(
            nn.Linear(8, int(16 * width)), nn.ReLU(), nn.Linear(int(16 * width), 4)
        ),
        augment=augment,
    )
    entry = parse_entry(text)
    settings = task.settings.changed(**entry.settings_changes)
    estimated = rehearse(task, task.load().sealed(), entry.technique, settings).train_macs
    real = train(task, entry.technique, settings, Conditions()).run.meter.charge().train_macs
    assert estimated == real


def test_prepared_data_decide_the_model_and_the_given_data_stay():
    def halved(data):
        for split in (data.train, data.valid):
            split.inputs[0].mul_(0)  # a technique that writes into its data
        return data.map(lambda inputs: inputs[:, :4])

    task = vector_task()
    data = task.load().sealed()
    before = data.train.inputs[0].clone()
    done = rehearse(task, data, Technique(prepare_data=halved), task.settings)
    assert done.finished[""].shapes["weight"] == (4, 4)
    assert torch.equal(data.train.inputs[0], before)


def test_the_test_split_cannot_be_reached():
    def peek(model, data):
        data.test.target.sum()
        return model

    task = vector_task()
    with pytest.raises(TestDataSealed):
        rehearse(task, task.load(), Technique(finish_model=peek), task.settings)


def test_no_test_sample_is_in_a_rehearsal():
    task = vector_task()
    done = rehearse(task, task.load(), Technique(), task.settings)
    assert torch.equal(done.trained.test.inputs[0], done.trained.run.data.valid.inputs[0])


def test_refusals_come_through():
    task = toy_regression()
    with pytest.raises(NotApplicable, match="class scores"):
        rehearse(task, task.load().sealed(), spec("distillation()"), task.settings)
    with pytest.raises(TaskError, match="prepare_data"):
        rehearse(
            task, task.load().sealed(), Technique(prepare_data=lambda data: None), task.settings
        )


def test_a_high_rate_does_not_diverge_and_epochs_can_be_shared_out():
    seen = []

    def rounds(run):
        seen.append(run.settings)
        model = run.build()
        for _ in range(3):
            run.fit(model, epochs=run.settings.epochs // 3)
        return model

    task = toy_tagging()
    wild = replace(task.settings, learning_rate=1e6, optimizer="sgd")
    done = rehearse(task, task.load().sealed(), Technique(train=rounds), wild)
    assert done.trained.run.fits == 3
    assert all(torch.isfinite(p).all() for p in done.trained.model.parameters())
    assert seen[0].epochs >= 3
