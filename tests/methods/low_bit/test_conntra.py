"""CoNNTrA as a function and as a technique: what it trains, refines, refuses and reports."""

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

import whit
from whit.core.execution import Conditions, train
from whit.errors import NotApplicable, SpecError
from whit.methods.low_bit.conntra import conntra_fit
from whit.procedures.coordinate_descent.batches import Batches
from whit.procedures.coordinate_descent.options import SweepOptions


def trained(task, technique, epochs=3, seed=0, **conditions):
    task = whit.task(task) if isinstance(task, str) else task
    settings = task.settings.changed(epochs=epochs)
    return train(task, whit.spec(technique), settings, Conditions(seed=seed, **conditions))


def levels_of(model):
    """Return the most different values in one output channel, by layer."""
    return {
        path: max(len(row.unique()) for row in module.weight.detach().flatten(1))
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


def few_digits(samples=150):
    """Return a task of a few digits and a network of one hidden layer."""
    task = whit.task("digits(model='mlp2', width=0.5)")
    data = task.checked_data()
    part = torch.arange(samples)
    small = replace(data, train=data.train.subset(part), valid=data.valid.subset(part[:100]))
    return replace(task, load=lambda: small)


def test_a_network_is_trained_in_place_and_its_history_is_returned():
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(90) % 3
    inputs = 2 * torch.randn(3, 4, generator=generator)[target]
    inputs = inputs + torch.randn(90, 4, generator=generator)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
    history = conntra_fit(model, inputs, target, options=SweepOptions(sweeps=8), seed=1)
    losses = [row.loss for row in history]
    assert losses == sorted(losses, reverse=True)
    assert levels_of(model) == {"0": 3, "3": 3}
    with torch.no_grad():
        error = (model.eval()(inputs).argmax(1) != target).double().mean()
    # The stored statistics of the batch norm are those of the samples: nothing changes afterwards.
    assert float(error) == pytest.approx(history[-1].train_error, abs=0.02)
    assert history[-1].train_error < 0.1


def test_training_from_random_values_learns():
    run = trained("iris(model='mlp2')", "conntra()", epochs=12)
    assert run.run.evaluate(run.model) >= 0.9
    assert set(levels_of(run.model).values()) == {3}
    assert run.run.history[0]["loss"][0] > run.run.history[0]["loss"][-1]
    charge = run.run.meter.charge()
    assert charge.train_macs > 100_000


def test_a_trained_network_is_refined_and_its_loss_never_rises():
    text = "binarized_network() + conntra(start='from_model', sweeps=4)"
    refined = trained("toy_classification(width=0.4)", text, epochs=6)
    assert set(levels_of(refined.model).values()) == {2}
    first, second = refined.run.history
    losses = second["loss"]
    assert losses == sorted(losses, reverse=True)
    # The refiner starts at the loss of the binary network itself: it changes no value before.
    plain = trained("toy_classification(width=0.4)", "binarized_network()", epochs=6)
    with torch.no_grad():
        split = plain.run.data.train
        batch = split.batch(torch.arange(len(split)))
        start = nn.functional.cross_entropy(plain.model(*batch.inputs), batch.target)
    assert losses[0] < float(start)
    assert first["epochs"] == 6


def test_a_binary_network_of_padded_convolutions_is_refined():
    text = "binarized_network() + conntra(start='from_model', sweeps=1)"
    refined = trained("digits(model='conv4', width=0.1)", text, epochs=1)
    losses = refined.run.history[1]["loss"]
    assert losses == sorted(losses, reverse=True)
    assert 2 in levels_of(refined.model).values()


def test_the_share_of_errors_is_a_criterion():
    run = trained("iris(model='mlp2')", "conntra(criterion='zero_one', sweeps=3)", epochs=1)
    assert run.run.evaluate(run.model) >= 0.8
    for options in ("guided=4", "rule='gradient'"):
        with pytest.raises(SpecError, match="'zero_one' has none"):
            whit.spec(f"conntra(criterion='zero_one', {options})")


def test_rounding_a_float_network_alone_is_worse_than_refining_it():
    rounded = trained(
        "toy_classification(width=0.3)", "conntra(start='from_model', sweeps=1)", epochs=10
    )
    refined = trained(
        "toy_classification(width=0.3)", "conntra(start='from_model', sweeps=6)", epochs=10
    )
    assert refined.run.history[1]["loss"][-1] < rounded.run.history[1]["loss"][-1]
    assert set(levels_of(refined.model).values()) == {3}


def test_numbers_are_predicted_too():
    run = trained("toy_regression(width=0.5)", "conntra(values=5)", epochs=4)
    assert run.run.evaluate(run.model) > 0.5
    assert max(levels_of(run.model).values()) == 5


def test_the_fast_engine_is_taken_when_asked_and_resumes(tmp_path, monkeypatch):
    made = []
    init = Batches.__init__

    def watched(self, *args, **named):
        made.append(named["augment"])
        init(self, *args, **named)

    monkeypatch.setattr(Batches, "__init__", watched)
    text = "conntra(scorer='neighbourhood')"
    whole = trained(few_digits(), text, epochs=4)
    assert made
    assert levels_of(whole.model) == {"linear1": 3, "head": 3} or set(
        levels_of(whole.model).values()
    ) == {3}
    assert len(whole.run.history[0]["loss"]) == 4
    assert whole.run.meter.charge().train_macs > 0

    def kill(progress):
        if progress.epoch == 2 and not killed:
            killed.append(True)
            raise KeyboardInterrupt

    killed: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        trained(few_digits(), text, epochs=4, out=tmp_path, progress=kill)
    again = trained(few_digits(), text, epochs=4, out=tmp_path, progress=kill)
    for a, b in zip(
        whole.model.state_dict().values(), again.model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)


def test_the_fast_engine_refines_without_raising_the_loss():
    text = "conntra(start='from_model', scorer='neighbourhood', sweeps=5)"
    run = trained(few_digits(), text, epochs=4)
    losses = run.run.history[1]["loss"]
    assert losses == sorted(losses, reverse=True)


def test_few_samples_and_other_options_take_the_exact_engine(monkeypatch):
    def never(*rest, **named):
        raise AssertionError("the fast engine was taken")

    monkeypatch.setattr(Batches, "__init__", never)
    assert trained(few_digits(), "conntra()", epochs=1).run.history
    assert trained(few_digits(), "conntra(nonzero_cost=0.1)", epochs=1).run.history


def test_the_packed_file_holds_two_bits_a_ternary_weight():
    task = few_digits()
    settings = task.settings.changed(epochs=2)
    result = whit.execute(task, whit.spec("conntra()"), settings)
    weights = sum(m.weight.numel() for m in result.model.modules() if isinstance(m, nn.Linear))
    assert result.packed is not None
    assert result.scorecard.as_dict()["stored_bytes"] < weights / 4 + 1500


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("conntra(values=[])", "no value"),
        ("conntra(values=[1])", "one value"),
        ("conntra(values=[1, 0])", "ascending"),
        ("conntra(values=[0, 0, 1])", "twice"),
        ("conntra(values=[0, 1e400])", "finite"),
        ("conntra(values={'head': 'turnary'})", "no set of values"),
        ("conntra(start='warm')", "start was given"),
        ("conntra(scorer='fast')", "scorer was given"),
        ("conntra(sweeps=0)", "sweeps was given"),
        ("conntra(sweeps=True)", "sweeps was given True"),
        ("conntra(values='own')", "needs start='from_model'"),
        ("conntra(values={'head': 'own'})", "needs start='from_model'"),
        ("conntra(scales=-1)", "above 0"),
        ("conntra(scales={'head': 0})", "above 0"),
        ("conntra(scales='channel')", "from a model"),
        ("conntra(biases='foo')", "biases was given"),
        ("conntra(rule='worst')", "rule was given"),
        ("conntra(start='from_model', restarts=3)", "has one"),
        ("conntra() + conntra()", "replace the training procedure"),
        (
            "conntra() + binarized_network()",
            "no gradient steps.*work() + conntra(start='from_model')",
        ),
        (
            "binarized_network() + conntra()",
            "no gradient steps.*work() + conntra(start='from_model')",
        ),
        ("finite_set_weights() + conntra()", "no gradient steps"),
        ("conntra() + one_cycle_pruning()", "no gradient steps"),
        ("conntra() + ternary_network()", "'ternary_network() + conntra(start='from_model')'"),
        (
            "conntra(start='from_model') + ternary_network()",
            "the other way round: 'ternary_network() + conntra(start='from_model')'",
        ),
        ("conntra(start='from_model') + weight_sharing()", "the other way round"),
        ("conntra() + precision_batching()", "the second would undo"),
        (
            "stochastic_bitwise_ensemble() + conntra(start='from_model')",
            "nothing is left from which",
        ),
        (
            "conntra(start='from_model') + stochastic_bitwise_ensemble()",
            "nothing is left from which",
        ),
        ("conntra() + stochastic_bitwise_ensemble()", "nothing is left from which"),
        ("stochastic_bitwise_ensemble() + weight_sharing()", "nothing is left from which"),
        ("conntra(scales=0)", "scales was given 0; expected a number above 0"),
    ],
)
def test_options_and_sums_that_make_no_sense_are_refused(text, words):
    pattern = ".*".join(map(re.escape, words.split(".*")))
    with pytest.raises(SpecError, match=pattern):
        whit.spec(text)


@pytest.mark.parametrize(
    ("task", "text", "words"),
    [
        ("toy_tagging", "conntra()", "one output vector a sample"),
        ("toy_nodes", "conntra()", "one input"),
        ("toy_classification", "conntra(scorer='neighbourhood')", "scorer='exact'"),
        ("iris(model='mlp2')", "conntra(scorer='neighbourhood', pairs=2)", "single moves only"),
        (
            "iris(model='mlp2')",
            "conntra(scorer='neighbourhood', criterion='zero_one', keep='best_valid')",
            "keeps the last state; .* always lowers the task's loss. Use scorer='exact'",
        ),
        (
            "iris(model='mlp2')",
            "conntra(scorer='neighbourhood', criterion='mse')",
            "criterion='mse', but it always lowers the task's loss. Leave criterion out",
        ),
        (
            "iris(model='mlp2')",
            "conntra(scorer='neighbourhood', guided=2)",
            "guided=2, but it scores all moves of a unit",
        ),
        ("toy_classification", "conntra(start='from_model', values='own')", "holds"),
        ("toy_regression", "conntra(criterion='cross_entropy')", "needs outputs"),
    ],
)
def test_what_cannot_be_treated_says_why(task, text, words):
    with pytest.raises(NotApplicable, match=words):
        trained(task, text, epochs=1)


def test_a_random_start_before_a_refiner_is_refined():
    run = trained("iris(model='mlp2')", "conntra(sweeps=1) + conntra(start='from_model')", epochs=3)
    first, second = run.run.history
    assert second["loss"][-1] <= first["loss"][-1]


def test_shared_weights_keep_their_sixteen_values():
    text = "weight_sharing() + conntra(start='from_model', sweeps=1)"
    run = trained("toy_classification(width=0.3)", text, epochs=4)
    found = levels_of(run.model)
    assert 3 < max(found.values()) <= 16


@pytest.mark.parametrize("bits", [2, 4, 7])
def test_bit_layers_stay_bit_layers_of_as_many_bits(bits):
    text = f"precision_batching(bits={bits}) + conntra(start='from_model', sweeps=1)"
    task = whit.task("toy_classification(width=0.3)")
    settings = task.settings.changed(epochs=3)
    result = whit.execute(task, whit.spec(text), settings)
    assert result.history[1]["loss"][-1] < result.history[0]["loss"][-1]
    assert result.packed is not None
    lines = [line for line in str(result.packed.report()).splitlines() if "planes" in line]
    assert lines and all(f"({bits + 1} bits)" in line for line in lines)


def test_values_that_are_too_many_to_keep_are_refused():
    with pytest.raises(NotApplicable, match="more than the 256 .* fewer bits"):
        trained(
            "toy_classification",
            "precision_batching(bits=11) + conntra(start='from_model')",
            epochs=1,
        )
    text = "precision_batching(bits=11) + conntra(start='from_model', values='ternary', sweeps=1)"
    run = trained("toy_classification(width=0.3)", text, epochs=1)
    assert max(levels_of(run.model).values()) == 3


@pytest.mark.parametrize("before", ["weight_sharing(bits=6)", "finite_set_weights(values=15)"])
def test_many_values_chosen_before_are_kept(before):
    task = "toy_classification(width=0.3)"
    chosen = trained(task, before, epochs=3).model
    run = trained(task, f"{before} + conntra(start='from_model', sweeps=1)", epochs=3)
    assert run.run.history[-1]["loss"][-1] < run.run.history[0]["loss"][-1]
    for path, module in run.model.named_modules():
        if before.startswith("weight") and isinstance(module, nn.Linear):
            known = set(chosen.get_submodule(path).weight.flatten().tolist())
            assert set(module.weight.flatten().tolist()) <= known
    assert max(levels_of(run.model).values()) > 8


def test_the_few_weights_that_pruning_left_are_no_set_of_values():
    task = whit.task("toy_classification")
    technique = whit.spec("one_cycle_pruning() + conntra(start='from_model', sweeps=2)")
    result = whit.execute(task, technique, task.settings.changed(epochs=3))
    assert set(levels_of(result.model).values()) == {3}
    assert result.packed is not None
    lines = [line for line in str(result.packed.report()).splitlines() if "(linear)" in line]
    assert lines and not any("float32" in line or "codebook" in line for line in lines)


@pytest.mark.parametrize(
    "before",
    [
        "insta_bnn()",
        "insta_bnn(plus=True, prelu=True)",
        "binarized_network(scale='real_to_binary')",
    ],
)
def test_thresholds_and_gates_that_follow_the_sample_stay_real(before):
    task = "digits(model='conv4', width=0.1)"
    run = trained(task, f"{before} + conntra(start='from_model', sweeps=1)", epochs=1)
    plain = trained(task, before, epochs=1)
    weights = plain.model.state_dict()
    kept = [n for n in weights if ".term." in n or ".gate." in n or ".before." in n]
    assert kept
    for name, value in run.model.state_dict().items():
        if name in kept:
            assert torch.equal(value, weights[name])
    assert run.run.history[1]["loss"][-1] < run.run.history[0]["loss"][-1]


def test_hooks_act_on_either_side_while_the_network_trains():
    text = ("conntra(start='from_model', sweeps=1)", "one_cycle_pruning()")
    ends = []
    for terms in (text, text[::-1]):
        run = trained("toy_classification(width=0.3)", " + ".join(terms), epochs=4)
        ends.append(run.model.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
