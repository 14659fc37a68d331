"""The fast engine inside a run: whatever lies in front or between, its loss is the true one."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

import whit
from whit.core.execution import Conditions, train
from whit.errors import NotApplicable
from whit.parts.levels import eight_bits


class Functional(nn.Module):
    """A network whose activation is a function that works in place."""

    def __init__(self, act):
        super().__init__()
        self.act = act
        self.first, self.second = nn.Linear(64, 8), nn.Linear(8, 10)

    def forward(self, x):
        return self.second(self.act(self.first(x.flatten(1))))


class Own(nn.Module):
    """An activation of the user's own that works in place."""

    def forward(self, x):
        return x.relu_()


def chain(*front, act=nn.ReLU):
    return nn.Sequential(*front, nn.Flatten(), nn.Linear(64, 8), act(), nn.Linear(8, 10))


MODELS = {
    "plain": chain,
    "in_place": lambda: chain(act=lambda: nn.ReLU(inplace=True)),
    "own_in_place": lambda: chain(act=Own),
    "functional": lambda: Functional(lambda x: functional.relu(x, inplace=True)),
    "positional": lambda: Functional(lambda x: functional.relu(x, True)),
    "method": lambda: Functional(lambda x: x.relu_()),
    "dropout_in_front": lambda: chain(nn.Dropout(0.6)),
    "in_place_in_front": lambda: chain(nn.Hardtanh(0.0, 9.0, inplace=True)),
    "dropout_between": lambda: chain(act=lambda: nn.Sequential(nn.Tanh(), nn.Dropout(0.5))),
    "learned_between": lambda: chain(act=nn.PReLU),
}


def task_of(make, samples=150):
    task = whit.task("digits(model='mlp2')")
    data = task.checked_data()
    part = torch.arange(samples)
    small = replace(data, train=data.train.subset(part), valid=data.valid.subset(part[:50]))
    return replace(task, load=lambda: small, build=lambda data: make())


def trained(make, text, epochs=2, seed=0):
    task = task_of(make)
    settings = task.settings.changed(epochs=epochs)
    return train(task, whit.spec(text), settings, Conditions(seed=seed)), task


def fresh_loss(run, task):
    split = run.run.data.train
    batch = split.batch(torch.arange(len(split)))
    with torch.no_grad():
        output = run.model.eval()(batch.inputs[0].float().clone())
    return float(task.loss(output, batch.target))


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_of_a_fixed_sample_sweep_is_that_of_the_written_model(name):
    text = "conntra(start='from_model', scorer='neighbourhood', sweeps=2)"
    run, task = trained(MODELS[name], text)
    losses = run.run.history[-1]["loss"]
    assert losses[-1] == pytest.approx(fresh_loss(run, task), rel=1e-5)
    assert all(b <= a * (1 + 1e-6) for a, b in zip(losses, losses[1:], strict=False))


@pytest.mark.parametrize("name", ["dropout_in_front", "functional"])
def test_the_loss_of_batches_that_are_all_samples_is_true_too(name):
    # Fewer samples than a block: a batch is all of them.
    run, task = trained(MODELS[name], "conntra(scorer='neighbourhood')")
    assert run.run.history[-1]["loss"][-1] == pytest.approx(fresh_loss(run, task), rel=1e-5)


def test_a_fresh_batch_norm_in_front_goes_to_the_exact_engine():
    def make():
        return chain(nn.Flatten(), nn.BatchNorm1d(64))

    with pytest.raises(NotApplicable, match="batch norm lies before the first layer"):
        trained(make, "conntra(scorer='neighbourhood')")
    run, task = trained(make, "conntra(sweeps=1)")
    assert run.run.history[-1]["loss"][-1] == pytest.approx(fresh_loss(run, task), rel=1e-4)
    # From a model its stored statistics are used.
    text = "conntra(start='from_model', scorer='neighbourhood', sweeps=1)"
    run, task = trained(make, text)
    assert run.run.history[-1]["loss"][-1] == pytest.approx(fresh_loss(run, task), rel=1e-5)


def scale_of(layer):
    return float(layer.weight.detach().abs().max())


def test_scales_that_were_given_are_kept_and_free_ones_have_eight_bits():
    given, _ = trained(chain, "conntra(scorer='neighbourhood', scales=0.25)")
    assert [scale_of(m) for m in given.model if isinstance(m, nn.Linear)] == [0.25, 0.25]
    for text in (
        "conntra(scorer='neighbourhood')",
        "conntra(start='from_model', scorer='neighbourhood', sweeps=2)",
    ):
        free, _ = trained(chain, text)
        scale = free.model[-1].weight.detach().abs().max()
        assert torch.equal(scale, eight_bits(scale))
    start = eight_bits(torch.tensor(4 / 8**0.5))
    free, _ = trained(chain, "conntra(scorer='neighbourhood')")
    assert scale_of(free.model[-1]) != float(start)


def test_a_refinement_that_ends_by_itself_is_certified():
    def tiny():
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Tanh(), nn.Linear(3, 10))

    text = "conntra(start='from_model', scorer='neighbourhood', sweeps=60)"
    run, task = trained(tiny, text, epochs=3)
    history = run.run.history[-1]
    assert len(history["loss"]) < 60
    assert history["figures"][-1]["one_optimal"] == 1.0
    model = run.model.double()
    split = run.run.data.train
    inputs = split.batch(torch.arange(len(split))).inputs[0].double()

    def loss():
        with torch.no_grad():
            return float(functional.cross_entropy(model(inputs), split.target))

    end = loss()
    assert history["loss"][-1] == pytest.approx(end, rel=1e-6)
    for layer in (model[1], model[3]):
        values = layer.weight.detach().unique()
        for tensor in (layer.weight.data.view(-1), layer.bias.data):
            for place in range(len(tensor)):
                before = float(tensor[place])
                for value in values.tolist():
                    tensor[place] = value
                    assert loss() >= end - 1e-7
                tensor[place] = before
