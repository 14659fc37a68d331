import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from whit.core.data import Batch
from whit.core.hook import Plan
from whit.errors import SpecError
from whit.parts.losses import distillation_loss, group_imitation_loss
from whit.parts.modular_network import ModularNetwork
from whit.procedures.group_imitation import (
    GroupImitation,
    Imitation,
    draw_groups,
    stratified_subsets,
)

STUDENTS, SAMPLES = 4, 24


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def networks():
    torch.manual_seed(0)
    return [nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)) for _ in range(STUDENTS)]


def hook(network, seen=None, steps=100, **options):
    plan = Plan(steps, steps, None, torch.device("cpu"), generator(3))
    if seen is None:
        seen = torch.ones(len(network), SAMPLES, dtype=torch.bool)
    return GroupImitation(network, plan, functional.cross_entropy, seen, Imitation(**options))


def samples():
    torch.manual_seed(1)
    x, y = torch.randn(SAMPLES, 5), torch.randint(0, 3, (SAMPLES,))
    return Batch((x,), y, torch.arange(SAMPLES))


def loss_of(made, batch, output):
    return made.loss(torch.full((), float("nan")), output, batch)


def test_without_imitation_disjoint_students_are_independent_bit_for_bit():
    """The mean over four students is undone by a rate four times as high, exactly."""
    batch = samples()
    apart = networks()
    network = ModularNetwork(copy.deepcopy(apart))
    made = hook(network, weight=0.0)

    def trained(model, rate, loss):
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
        for _ in range(6):
            optimizer.zero_grad()
            loss(model).backward()
            optimizer.step()
            made.after_step()

    for model in apart:
        trained(model, 0.125, lambda m: functional.cross_entropy(m(batch.inputs[0]), batch.target))
    trained(network, 0.5, lambda m: loss_of(made, batch, m(batch.inputs[0])))
    for left, right in zip(apart, network.students, strict=True):
        pairs = zip(left.parameters(), right.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_labels_outside_a_students_samples_do_not_count():
    batch, network = samples(), ModularNetwork(networks())
    seen = stratified_subsets(batch.target, 0.5, STUDENTS, generator())
    made = hook(network, seen, weight=0.0)
    output = network(batch.inputs[0])
    outside = ~seen.any(0)
    assert outside.any()
    other = torch.where(outside, (batch.target + 1) % 3, batch.target)
    before = loss_of(made, batch, output)
    assert torch.equal(before, loss_of(made, Batch(batch.inputs, other, batch.index), output))
    inside = torch.where(seen[0], (batch.target + 1) % 3, batch.target)
    assert before != loss_of(made, Batch(batch.inputs, inside, batch.index), output)
    expected = sum(
        functional.cross_entropy(output[k][seen[k]], batch.target[seen[k]]) for k in range(STUDENTS)
    )
    assert torch.allclose(before, expected / STUDENTS)


def test_the_mask_follows_the_samples_numbers():
    batch, network = samples(), ModularNetwork(networks())
    seen = stratified_subsets(batch.target, 0.5, STUDENTS, generator())
    made = hook(network, seen, weight=0.0)
    order = torch.randperm(SAMPLES, generator=generator(5))
    shuffled = Batch((batch.inputs[0][order],), batch.target[order], order)
    a = loss_of(made, batch, network(batch.inputs[0]))
    b = loss_of(made, shuffled, network(shuffled.inputs[0]))
    assert torch.allclose(a, b)


def test_a_batch_without_a_students_samples_has_no_label_loss():
    batch, network = samples(), ModularNetwork(networks())
    made = hook(network, torch.zeros(STUDENTS, SAMPLES, dtype=torch.bool), weight=0.0)
    assert loss_of(made, batch, network(batch.inputs[0])) == 0


def test_all_others_are_imitated_where_the_group_is_large_enough():
    batch, network = samples(), ModularNetwork(networks())
    output = network(batch.inputs[0])
    shares = (1 - torch.eye(STUDENTS)) / (STUDENTS - 1)
    made = hook(network, group=STUDENTS - 1, ramp=0)
    label = loss_of(hook(network, weight=0.0), batch, output)
    found = loss_of(made, batch, output)
    assert torch.allclose(found, label + group_imitation_loss(output, shares, 3.0))
    assert torch.equal(found, loss_of(hook(network, group=99, ramp=0), batch, output))


def test_imitation_is_over_all_samples_of_the_batch():
    batch, network = samples(), ModularNetwork(networks()[:2])
    output = network(batch.inputs[0])
    made = hook(network, torch.zeros(2, SAMPLES, dtype=torch.bool), ramp=0)
    expected = distillation_loss(output, output.flip(0), 3.0)
    assert torch.allclose(loss_of(made, batch, output), expected)


def test_the_imitation_grows_over_the_ramp():
    batch, network = samples(), ModularNetwork(networks())
    output = network(batch.inputs[0]).detach()
    label = loss_of(hook(network, weight=0.0), batch, output)
    made = hook(network, group=3, ramp=0.2, steps=100)
    terms = []
    for _ in range(25):
        terms.append(float(loss_of(made, batch, output) - label))
        made.after_step()
    assert terms[0] == 0
    assert terms[10] == pytest.approx(terms[20] / 2, rel=1e-4)
    assert terms[20] == pytest.approx(terms[24])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_groups_are_of_their_size_and_never_hold_the_imitator(size):
    draws = torch.stack([draw_groups(4, size, generator(seed)) for seed in range(600)])
    assert torch.allclose(draws.sum(-1), torch.ones(600, 4))
    assert draws.diagonal(dim1=1, dim2=2).abs().max() == 0
    assert ((draws > 0).sum(-1) == size).all()
    counts = (draws > 0).sum(0)[~torch.eye(4, dtype=torch.bool)].double()
    expected = 600 * size / 3
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 30, "12 counts; a uniform choice exceeds 30 once in several hundred draws"


def test_subsets_are_exact_stratified_and_overlap_by_chance():
    target = torch.arange(3).repeat_interleave(torch.tensor([333, 500, 167]))
    seen = stratified_subsets(target, 0.8, 2, generator())
    assert seen.sum(1).tolist() == [800, 800]
    for label, size in enumerate((333, 500, 167)):
        assert abs(int(seen[0][target == label].sum()) - 0.8 * size) <= 1
    assert abs(int((seen[0] & seen[1]).sum()) - 640) < 40
    assert torch.equal(seen, stratified_subsets(target, 0.8, 2, generator()))
    assert stratified_subsets(target, 1.0, 2, generator()).all()


def test_a_class_that_would_be_missing_is_refused():
    with pytest.raises(SpecError, match="no sample of class 1"):
        stratified_subsets(torch.tensor([0] * 50 + [1]), 0.3, 2, generator())


def test_active_students_change_and_a_saved_step_goes_on():
    network = ModularNetwork(networks())
    made = hook(network, active=2)
    chosen = []
    for _ in range(20):
        chosen.append(network.active)
        made.after_step()
    assert {len(c) for c in chosen} == {2} and len(set(chosen)) > 3
    state, now = made.state_dict(), network.active
    made.close()
    assert network.active is None
    other = hook(network, active=2)
    other.load_state_dict(state)
    assert network.active == now and other.step == 20


def test_only_active_students_learn():
    batch, network = samples(), ModularNetwork(networks())
    made = hook(network, active=2, ramp=0)
    network.train()
    loss_of(made, batch, network(batch.inputs[0])).backward()
    for k, student in enumerate(network.students):
        assert (student[0].weight.grad is not None) == (k in network.active)


@pytest.mark.parametrize(
    "options",
    [{"weight": -1}, {"temperature": 0}, {"ramp": 2}, {"group": 0}, {"active": 1}, {"group": 1.5}],
    ids=str,
)  # fmt: skip
def test_bad_numbers_are_refused(options):
    with pytest.raises(SpecError, match=next(iter(options))):
        Imitation(**options)


def test_a_mask_of_another_number_of_students_is_refused():
    network = ModularNetwork(networks())
    with pytest.raises(SpecError, match="one row"):
        hook(network, torch.ones(3, SAMPLES, dtype=torch.bool))
