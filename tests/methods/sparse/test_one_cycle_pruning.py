import pytest
import torch
from torch import nn

from whit.core.execution import Conditions, train
from whit.core.fit import Progress
from whit.errors import NoEffect, SpecError
from whit.methods.sparse.one_cycle_pruning import OneCyclePruning, one_cycle_pruning
from whit.parts.masks import find_masks, realised_sparsity
from whit.parts.schedules import one_cycle_sparsity
from whit.parts.surgery import bake
from whit.tasks.toys import toy_classification


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 3)
    )


def weights_of(model):
    return [m.weight.detach() for m in model.modules() if isinstance(m, nn.Linear)]


def zeros(model):
    return sum(int((w == 0).sum()) for w in weights_of(model))


def test_own_loop_with_an_optimiser_made_before():
    model = network()
    total = sum(w.numel() for w in weights_of(model))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.01)
    pruning = OneCyclePruning(model, 30, sparsity=0.8, every=1)
    x, y = torch.randn(40, 6), torch.randint(0, 3, (40,))
    losses = []
    for number in range(1, 31):
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        pruning.after_step()
        losses.append(loss.item())
        assert zeros(model) == round(0.8 * one_cycle_sparsity(number / 30) * total)
    assert min(losses) < losses[0], "the latent weights are really trained"
    before = model(x)
    assert torch.equal(bake(model)(x), before)
    assert set(model.state_dict()) == set(network().state_dict())
    assert zeros(model) == round(0.8 * total)


def test_skipped_layers_stay_dense():
    model = network()
    OneCyclePruning(model, 10, sparsity=0.5, skip=["4"])
    assert list(find_masks(model)) == ["0", "2"]


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_result_has_the_asked_number_of_zeros(scope):
    task = toy_classification()
    technique = one_cycle_pruning(sparsity=0.7, scope=scope)
    model = train(task, technique, task.settings.changed(epochs=2), Conditions()).model
    weights = weights_of(model)
    if scope == "global":
        assert zeros(model) == round(0.7 * sum(w.numel() for w in weights))
    else:
        assert [int((w == 0).sum()) for w in weights] == [round(0.7 * w.numel()) for w in weights]
    assert not any("parametrizations" in key for key in model.state_dict())


def test_biases_and_norms_are_not_pruned():
    task = toy_classification()
    model = train(task, one_cycle_pruning(), task.settings.changed(epochs=1), Conditions()).model
    norms = [m for m in model if isinstance(m, nn.BatchNorm1d)]
    assert norms and all((m.weight != 0).all() for m in norms)


class Killed(Exception):
    pass


@pytest.mark.parametrize("criterion", ["magnitude", "movement", "random"])
def test_a_killed_run_resumes_to_the_same_zeros(criterion, tmp_path):
    task = toy_classification()
    settings = task.settings.changed(epochs=4)
    technique = one_cycle_pruning(criterion=criterion, every=3)

    def kill(progress: Progress):
        if progress.epoch == 2:
            raise Killed

    whole = train(task, technique, settings, Conditions())
    # Killed after its second epoch and before that was saved: the second epoch is done again.
    with pytest.raises(Killed):
        train(task, technique, settings, Conditions(out=tmp_path, progress=kill))
    seen = []
    again = Conditions(out=tmp_path, progress=lambda p: seen.append(p.epoch))
    resumed = train(task, technique, settings, again)
    assert seen == [2, 3, 4]
    for a, b in zip(weights_of(whole.model), weights_of(resumed.model), strict=True):
        assert torch.equal(a, b)


def test_options():
    assert one_cycle_pruning().spec == (
        "one_cycle_pruning(sparsity=0.9, alpha=14.0, beta=6.0, criterion='magnitude', "
        "scope='global', every=4)"
    )
    for bad in ({"alpha": 0}, {"beta": 14.0}, {"beta": -1}, {"sparsity": 90}, {"every": 0}):
        with pytest.raises(SpecError):
            one_cycle_pruning(**bad)


def test_alpha_and_beta_reach_the_schedule():
    model = network()
    technique = one_cycle_pruning(sparsity=0.5, alpha=1e6, beta=0.5e6, every=1)
    technique.prepare_model(model, None)
    hook = technique.hooks[0](model, _Plan())
    for expected in (0.0, 0.0, 0.0, 0.0):
        assert realised_sparsity(model) == expected
        hook.after_step()
    for _ in range(2):
        hook.after_step()
    assert realised_sparsity(model) == pytest.approx(0.5, abs=1e-3)


class _Plan:
    total_steps = 10
    generator = None


def test_nothing_to_prune_and_twice():
    with pytest.raises(NoEffect):
        OneCyclePruning(nn.Sequential(nn.ReLU()), 10)
    model = network()
    OneCyclePruning(model, 10)
    with pytest.raises(SpecError, match="earlier"):
        OneCyclePruning(model, 10)


def test_a_refused_option_leaves_the_model_as_it_was():
    model = network()
    with pytest.raises(SpecError):
        OneCyclePruning(model, 0)
    assert not find_masks(model)
