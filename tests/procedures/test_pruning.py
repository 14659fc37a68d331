import copy
from functools import partial

import pytest
import torch
from torch import nn

from whit.errors import NoEffect, SpecError
from whit.parts.masks import add_masks, find_masks, realised_sparsity
from whit.parts.schedules import gradual_sparsity, one_cycle_sparsity, one_shot_sparsity
from whit.procedures.pruning import PruningRule, ScheduledPruning

STEPS = 20
OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True),
    "sgd_decay": partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.1),
    "adam": partial(torch.optim.Adam, lr=0.02),
    "adamw_decay": partial(torch.optim.AdamW, lr=0.02, weight_decay=0.5),
}


def network(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(45, 11), nn.ReLU(),
            nn.Linear(11, 3),
        )  # fmt: skip
    return model


def masked(seed=0):
    model = network(seed)
    add_masks(model)
    return model


X = torch.randn(16, 1, 5, 5, generator=torch.Generator().manual_seed(5))
Y = torch.randint(0, 3, (16,), generator=torch.Generator().manual_seed(6))


def step(model, optimizer):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(X), Y).backward()
    optimizer.step()


def masks_of(model):
    return {path: mask.mask.clone() for path, (_, mask) in find_masks(model).items()}


def assert_pruned_are_zero(model, masks):
    for path, (layer, _) in find_masks(model).items():
        assert (layer.weight[masks[path] == 0] == 0).all()


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_step_has_the_exact_sparsity_nested_masks_and_true_zeros(optimizer, scope):
    model = masked()
    made = OPTIMIZERS[optimizer](model.parameters())
    rule = PruningRule(0.9, one_cycle_sparsity, scope=scope)
    pruning = ScheduledPruning(model, STEPS, rule)
    before = masks_of(model)
    for number in range(1, STEPS + 1):
        assert_pruned_are_zero(model, before)
        step(model, made)
        assert_pruned_are_zero(model, before)
        pruning.after_step()
        target = 0.9 * one_cycle_sparsity(number / STEPS)
        assert pruning.target_sparsity() == target
        now = masks_of(model)
        if scope == "global":
            total = sum(m.numel() for m in now.values())
            zeros = round(target * total)
            assert sum(int((m == 0).sum()) for m in now.values()) == zeros
            assert realised_sparsity(model) == zeros / total
        else:
            for mask in now.values():
                assert int((mask == 0).sum()) == round(target * mask.numel())
        for path in now:
            assert (now[path] <= before[path]).all(), "masks are nested"
        before = now
    assert pruning.target_sparsity() == 0.9


def test_the_lowest_magnitudes_are_pruned():
    model = masked()
    weights = torch.cat(
        [layer.weight.detach().abs().flatten() for layer, _ in find_masks(model).values()]
    )
    ScheduledPruning(model, 4, PruningRule(0.5, lambda t: 1.0))
    kept = torch.cat([m.flatten() for m in masks_of(model).values()]) > 0
    assert weights[kept].min() >= weights[~kept].max()


def per_layer(scope, scale):
    model = network()
    with torch.no_grad():
        model[3].weight.mul_(scale)
    add_masks(model)
    ScheduledPruning(model, 4, PruningRule(0.4, lambda t: 1.0, scope=scope))
    return masks_of(model)


def test_global_spares_a_layer_that_is_scaled_up_and_layer_does_not_notice():
    pooled = per_layer("global", 100.0)
    shares = {path: float((m == 0).float().mean()) for path, m in pooled.items()}
    total = sum(m.numel() for m in pooled.values())
    others = pooled["0"].numel() + pooled["5"].numel()
    assert pooled["0"].sum() == 1 and pooled["5"].sum() == 1, "all others go first, but min_keep"
    assert shares["3"] == pytest.approx((round(0.4 * total) - others) / 495, abs=0.01)
    for path, mask in per_layer("layer", 100.0).items():
        assert torch.equal(mask, per_layer("layer", 1.0)[path])
        assert int((mask == 0).sum()) == round(0.4 * mask.numel())


def test_global_and_layer_coincide_for_one_layer():
    found = []
    for scope in ("global", "layer"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(13, 7))
        add_masks(model)
        ScheduledPruning(model, 4, PruningRule(0.6, lambda t: 1.0, scope=scope))
        found.append(masks_of(model)["0"])
    assert torch.equal(*found)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_filters_are_pruned_whole_and_never_more_than_asked(scope):
    model = masked()
    rule = PruningRule(0.6, gradual_sparsity, granularity="filter", scope=scope)
    pruning = ScheduledPruning(model, 10, rule)
    made = torch.optim.SGD(model.parameters(), lr=0.1)
    before = masks_of(model)
    for _ in range(10):
        step(model, made)
        pruning.after_step()
        now = masks_of(model)
        for path, mask in now.items():
            rows = mask.flatten(1)
            assert (rows.amax(1) == rows.amin(1)).all(), "a filter is all or nothing"
            assert (mask <= before[path]).all()
        assert realised_sparsity(model) <= pruning.target_sparsity() + 1e-12
        before = now
    largest = 45 if scope == "global" else 11 + 45 + 9
    total = 45 + 495 + 33
    assert realised_sparsity(model) > 0.6 - largest / total


@pytest.mark.parametrize("min_keep", [1, 3])
def test_no_layer_is_cut_off(min_keep):
    model = masked()
    ScheduledPruning(model, 2, PruningRule(0.999, lambda t: 1.0, min_keep=min_keep))
    assert [int(m.sum()) for m in masks_of(model).values()] == [min_keep] * 3


def test_masks_move_every_few_steps_and_at_the_last():
    model = masked()
    pruning = ScheduledPruning(model, 10, PruningRule(0.5, lambda t: max(t, 1e-6), every=4))
    seen = []
    for _ in range(10):
        pruning.after_step()
        seen.append(round(realised_sparsity(model), 2))
    assert seen == [0, 0, 0, 0.2, 0.2, 0.2, 0.2, 0.4, 0.4, 0.5]


def test_one_shot_does_nothing_before_its_time():
    model = masked()
    pruning = ScheduledPruning(model, 4, PruningRule(0.5, one_shot_sparsity))
    assert realised_sparsity(model) == 0
    pruning.after_step()
    assert realised_sparsity(model) == 0
    pruning.after_step()
    assert realised_sparsity(model) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("criterion", ["magnitude", "movement", "movement_magnitude", "random"])
def test_a_resumed_hook_gives_the_same_masks(criterion):
    rule = PruningRule(0.9, one_cycle_sparsity, criterion)

    def started():
        model = masked()
        generator = torch.Generator().manual_seed(3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        return model, optimizer, generator, ScheduledPruning(model, STEPS, rule, generator)

    def go(parts, steps):
        for _ in range(steps):
            step(parts[0], parts[1])
            parts[3].after_step()

    whole = started()
    go(whole, STEPS)
    first = started()
    go(first, 8)
    saved = copy.deepcopy(
        [first[0].state_dict(), first[1].state_dict(), first[2].get_state(), first[3].state_dict()]
    )
    second = started()
    second[0].load_state_dict(saved[0])
    second[1].load_state_dict(saved[1])
    second[2].set_state(saved[2])
    second[3].load_state_dict(saved[3])
    go(second, STEPS - 8)
    for path, mask in masks_of(whole[0]).items():
        assert torch.equal(mask, masks_of(second[0])[path]), path


def test_movement_is_measured_from_where_pruning_started():
    model = nn.Sequential(nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[9.0, 8.0, 0.1, 0.2]]))
    add_masks(model)
    pruning = ScheduledPruning(model, 2, PruningRule(0.5, one_shot_sparsity, "movement"))
    with torch.no_grad():
        model[0].parametrizations.weight.original += torch.tensor([[0.1, 0.2, 3.0, 4.0]])
    pruning.after_step()
    assert masks_of(model)["0"].tolist() == [[0, 0, 1, 1]]


def test_more_steps_than_planned_are_refused():
    pruning = ScheduledPruning(masked(), 1, PruningRule(0.5, one_cycle_sparsity))
    pruning.after_step()
    with pytest.raises(SpecError, match="planned for 1"):
        pruning.after_step()


def test_a_model_without_masks_is_refused():
    with pytest.raises(NoEffect, match="mask"):
        ScheduledPruning(network(), 1, PruningRule(0.5, one_cycle_sparsity))
    with pytest.raises(SpecError, match="total_steps"):
        ScheduledPruning(masked(), 0, PruningRule(0.5, one_cycle_sparsity))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sparsity": 90}, "fraction"),
        ({"sparsity": 0.0}, "fraction"),
        ({"sparsity": 1.0}, "fraction"),
        ({"sparsity": True}, "fraction"),
        ({"sparsity": "0.9"}, "fraction"),
        ({"criterion": "magnitud"}, "'magnitude'"),
        ({"granularity": "filters"}, "'filter'"),
        ({"scope": "globl"}, "'global'"),
        ({"every": 0}, "every"),
        ({"every": 1.5}, "every"),
    ],
    ids=str,
)
def test_bad_rules_are_refused(options, words):
    rule = {"sparsity": 0.5, "schedule": one_cycle_sparsity, **options}
    with pytest.raises(SpecError, match=words):
        PruningRule(**rule)


def test_a_negative_min_keep_is_refused():
    with pytest.raises(SpecError, match="min_keep"):
        PruningRule(0.5, one_cycle_sparsity, min_keep=-1)
