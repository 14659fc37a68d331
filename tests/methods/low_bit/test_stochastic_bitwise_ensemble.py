import statistics
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from whit.core.execution import Conditions, execute, train
from whit.errors import NoEffect, NotApplicable, SpecError
from whit.methods.low_bit.stochastic_bitwise_ensemble import (
    coin,
    draw_members,
    stochastic_bitwise_ensemble,
    stochastic_weights,
)
from whit.parts.combine_members import Combine
from whit.parts.levels import check_values, find_levels, leveled_layers
from whit.spec_strings import spec
from whit.tasks.digits import digits
from whit.tasks.toys import toy_classification, toy_regression


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)
    )


def test_weights_are_drawn_while_training_and_nearest_in_evaluation():
    model = stochastic_weights(mlp(), scale="layer")
    first, second = model.train()[0].weight.detach(), model[0].weight.detach()
    assert not torch.equal(first, second)
    assert len(first.abs().unique()) == 1
    model.eval()
    assert torch.equal(model[0].weight, model[0].weight)
    fixed = stochastic_weights(mlp(), rounding="nearest").train()
    assert torch.equal(fixed[0].weight, fixed[0].weight)


@pytest.mark.parametrize(("values", "largest"), [("binary", 1), ("powers_of_two", 4)])
def test_the_mean_of_the_training_draws_is_the_latent_weight(values, largest):
    model = stochastic_weights(mlp(), values, scale="none").train()
    latent = model[0].parametrizations.weight.original.detach()
    assert 0.6 * largest < float(latent.abs().max()) <= largest, "spread over the values"
    mean = sum(model[0].weight.detach() for _ in range(3000)) / 3000
    assert torch.allclose(mean, latent, atol=4 * largest / 3000**0.5)


@pytest.mark.parametrize("values", ["binary", "ternary"])
def test_the_mean_at_the_default_scale_is_the_latent_weight_up_to_the_largest_value(values):
    model = stochastic_weights(mlp(), values)
    nearest = model.eval()[0].weight.detach()
    largest = nearest.abs().max()
    latent = model[0].parametrizations.weight.original.detach()
    assert float((latent.abs() > largest).float().mean()) > 0.1, (
        "some are beyond it, as the card says"
    )
    model.train()
    mean = sum(model[0].weight.detach() for _ in range(3000)) / 3000
    assert torch.allclose(mean, latent.clamp(-largest, largest), atol=4 * largest / 3000**0.5)


# Powers of two up to 4 are whole numbers, which the packed file keeps in four bits.
@pytest.mark.parametrize(("values", "bits"), [("powers_of_two", 4), (4, 2)])
def test_members_take_the_whole_set_without_a_scale(values, bits):
    task = toy_classification()
    technique = stochastic_bitwise_ensemble(members=3, values=values, scale="none")
    result = execute(task, technique, task.settings.changed(epochs=2))
    group = result.model[0]
    weights = [m.weight for member in group.members for m in member if isinstance(m, nn.Linear)]
    found = set(torch.cat([w.flatten() for w in weights]).tolist())
    assert found == set(check_values(values)), "latent weights reach beyond 1"
    for layer in result.packed.layers:
        assert bits <= layer.bits <= bits + 32 * 32 / layer.weights, layer


@pytest.mark.parametrize(("register", "members"), [(4, 15), (8, 40), (16, 8)])
def test_members_drawn_by_a_register_differ(register, members):
    share = torch.full((64,), 0.5)
    for seed in range(60 if register < 16 else 10):
        drawn = {
            tuple(coin(seed, member, register=register).upper(share).tolist())
            for member in range(members)
        }
        assert len(drawn) == members


def test_more_members_than_states_are_refused():
    model = stochastic_weights(mlp())
    with pytest.raises(SpecError, match="15 states .* at most 15 members"):
        draw_members(model, 16, register=4)
    with pytest.raises(SpecError, match="at most 30 members"):
        stochastic_bitwise_ensemble(members=31, register=4, antithetic=True)
    assert len(draw_members(model, 30, register=4, antithetic=True)) == 30
    with pytest.raises(SpecError, match="at most 15"):
        coin(0, 15, register=4)


def test_bad_coins_are_refused():
    with pytest.raises(SpecError, match="seed was given -1"):
        coin(-1, 0)
    with pytest.raises(SpecError, match="member was given -1"):
        coin(0, -1)
    with pytest.raises(SpecError, match="antithetic"):
        coin(0, 0, antithetic="x")


def test_members_by_seed():
    model = stochastic_weights(mlp())
    five, three = draw_members(model, 5, seed=4), draw_members(model, 3, seed=4)
    for left, right in zip(five.members, three.members, strict=False):
        assert torch.equal(left[0].weight, right[0].weight), "more members continue them"
    other = draw_members(model, 3, seed=5)
    assert not torch.equal(other.members[0][0].weight, three.members[0][0].weight)
    weights = {tuple(m[0].weight.flatten().tolist()) for m in five.members}
    assert len(weights) == 5, "members differ"
    assert leveled_layers(model), "the trained network stays as it is"


@pytest.mark.parametrize("register", [None, 8, 16])
def test_antithetic_pairs_have_less_variance(register):
    model = stochastic_weights(mlp(), scale="none")
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
    target = x @ model[0].parametrizations.weight.original.detach().T

    def error(antithetic):
        errors = []
        for seed in range(30):
            group = draw_members(model, 2, seed=seed, register=register, antithetic=antithetic)
            mean = torch.stack([m[0](x).detach() for m in group.members]).mean(0)
            errors.append(float((mean - target).square().mean()))
        return statistics.mean(errors)

    assert error(True) < 0.9 * error(False)


def test_a_group_is_the_mean_of_its_members():
    task = toy_classification()
    technique = stochastic_bitwise_ensemble(members=3)
    trained = train(task, technique, task.settings.changed(epochs=2), Conditions())
    group, combine = trained.model
    assert len(group) == 3 and isinstance(combine, Combine)
    x = task.load().valid.inputs[0]
    with torch.no_grad():
        expected = torch.stack([member(x) for member in group.members]).mean(0)
        assert torch.equal(trained.model(x), expected)
    for member in group.members:
        for layer in member:
            if isinstance(layer, nn.Linear):
                assert len(layer.weight.abs().unique()) == 1


def test_one_member_is_one_drawn_network():
    model = stochastic_weights(mlp())
    x = torch.randn(5, 8)
    from whit.parts.level_draws import draw_network

    group = draw_members(model, 1, seed=2)
    assert torch.equal(Combine()(group(x)), draw_network(model, coin(2, 0))(x))


@pytest.mark.parametrize(
    ("options", "bits"),
    [({}, 1), ({"values": "ternary"}, 2), ({"values": 4, "scale": "none"}, 2)],
    ids=str,
)
def test_the_file_holds_all_members_in_their_bits(options, bits, tmp_path):
    from whit.result_folder import load_result

    task = toy_classification()
    result = execute(
        task,
        stochastic_bitwise_ensemble(members=3, **options),
        task.settings.changed(epochs=2),
        out=tmp_path,
    )
    plain = execute(task, spec("plain()"), task.settings.changed(epochs=1))
    assert result.scorecard.macs == 3 * plain.scorecard.macs, "cost counts every member"
    assert len(result.packed.layers) == 3 * len(plain.packed.layers)
    for layer in result.packed.layers:
        overhead = 32 * 32 / layer.weights  # a scale a row at most, and padding of rows
        assert layer.bits <= bits + overhead
    x = task.load().valid.inputs[0]
    with torch.no_grad():
        expected = result.model(x).numpy()
    found = result.packed.program(x.numpy())
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    loaded = load_result(tmp_path)
    assert torch.equal(loaded.model(x), result.model(x))


def test_votes_cannot_be_packed_and_say_so():
    task = toy_classification()
    technique = stochastic_bitwise_ensemble(members=2, output="vote")
    result = execute(task, technique, task.settings.changed(epochs=1))
    assert result.packed is None and "stored_bytes" in result.scorecard.reasons
    softmax = stochastic_bitwise_ensemble(members=2, output="softmax")
    assert execute(task, softmax, task.settings.changed(epochs=1)).packed is not None


def latent_of(task, technique, settings, seed=0):
    whole = replace(technique, finish_model=lambda model, data: model)
    return train(task, whole, settings, Conditions(seed=seed))


def test_more_members_are_better_and_beat_one():
    task = digits()
    trained = latent_of(task, stochastic_bitwise_ensemble(), task.settings.changed(epochs=12))

    def scores(members):
        return [
            trained.run.evaluate(
                nn.Sequential(draw_members(trained.model, members, seed=seed), Combine())
            )
            for seed in range(6)
        ]

    one, eight = scores(1), scores(8)
    assert statistics.mean(eight) > statistics.mean(one) + 3 * statistics.stdev(one) / 6**0.5
    assert statistics.stdev(eight) < statistics.stdev(one)
    assert statistics.mean(eight) > 0.9


def test_reestimated_norms_are_charged():
    task = toy_classification()
    quick = task.settings.changed(epochs=1)
    usual = train(task, stochastic_bitwise_ensemble(members=2), quick, Conditions())
    again = train(task, stochastic_bitwise_ensemble(members=2, reestimate=256), quick, Conditions())
    one = usual.run.meter.charge().train_macs
    macs = again.run.meter.charge().train_macs - one
    assert macs == 2 * 256 * one // (3 * 384 // 64 * 64)
    # No more than there are: 257 samples leave one alone, which makes no batch.
    for asked, used in ((257, 256), (10**6, len(task.load().train))):
        more = train(
            task, stochastic_bitwise_ensemble(members=2, reestimate=asked), quick, Conditions()
        )
        charged = more.run.meter.charge().train_macs - one
        assert charged == macs * used // 256
    left, right = (t.model[0].members[0] for t in (usual, again))
    assert torch.equal(left.linear1.weight, right.linear1.weight)
    assert not torch.equal(left.norm1.running_mean, right.norm1.running_mean)


def test_first_and_last_layers():
    task = toy_classification()
    data = task.load()
    technique = stochastic_bitwise_ensemble(first="real", last="real")
    model = technique.prepare_model(task.build(data), data)
    layers = [m for m in model if isinstance(m, nn.Linear)]
    assert [find_levels(layer) is None for layer in layers] == [True, False, False, True]
    two = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with pytest.raises(NoEffect, match="leave no layer"):
        technique.prepare_model(two, data)


def test_sums():
    task = toy_classification()
    quick = task.settings.changed(epochs=2)
    technique = stochastic_bitwise_ensemble(members=2) + spec("binarized_network(weights=False)")
    result = execute(task, technique, quick)
    assert "w1a1" in result.scorecard.macs_by_width
    pruned = stochastic_bitwise_ensemble(members=2) + spec("one_cycle_pruning(sparsity=0.2)")
    model = train(task, pruned, quick, Conditions()).model
    first, second = (m.linear2.weight for m in model[0].members)
    assert torch.equal(first == 0, second == 0) and not torch.equal(first, second)
    with pytest.raises(SpecError, match="first in the sum"):
        train(
            task, spec("one_cycle_pruning() + stochastic_bitwise_ensemble()"), quick, Conditions()
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"members": 0}, "members"),
        ({"values": [1, -1]}, "ascending"),
        ({"scale": "row"}, "scale"),
        ({"rounding": "stochstic"}, "'stochastic'"),
        ({"output": "mean"}, "softmax"),
        ({"first": "binary"}, "first"),
        ({"register": 5}, "4, 8, 16"),
        ({"reestimate": -1}, "reestimate"),
        ({"draw": -1}, "draw"),
        ({"antithetic": "x"}, "antithetic"),
        ({"register": True}, "register"),
    ],
    ids=str,
)
def test_bad_options_are_refused_at_the_call(options, words):
    with pytest.raises(SpecError, match=words):
        stochastic_bitwise_ensemble(**options)


def test_votes_need_classes():
    task = toy_regression()
    with pytest.raises(NotApplicable, match="needs classes"):
        train(task, stochastic_bitwise_ensemble(output="vote"), task.settings, Conditions())
