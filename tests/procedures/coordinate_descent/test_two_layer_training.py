import pytest
import torch
from two_layer_cases import every_change, fresh_loss, inputs_of, network_of, target_of

from whit.errors import SpecError
from whit.procedures.coordinate_descent import two_layer_training
from whit.procedures.coordinate_descent.batches import Batches
from whit.procedures.coordinate_descent.group_descent import NOISE, GroupDescent, GroupOptions
from whit.procedures.coordinate_descent.two_layer_training import (
    descend_to_optimum,
    train_on_batches,
)
from whit.tasks.digits import load

OPTIONS = GroupOptions(group=2)


def batches_of(kind="few", samples=40, block=10, criterion="cross_entropy", augment=None, reuse=2):
    inputs, target = inputs_of(kind, samples).float(), target_of(criterion, samples)
    target = target.t() if criterion == "mse" else target
    return Batches(
        inputs, target, lambda x: x, bias=True, block=block, seed=3, augment=augment, reuse=reuse
    )


def test_each_pass_sees_every_sample_once():
    batches = batches_of()
    blocks = [batches.next(10)[0] for _ in range(8)]
    for passed in (blocks[:4], blocks[4:]):
        columns = torch.cat([inputs.columns[:-1] for inputs, _ in passed], 1).t()
        assert torch.equal(columns.unique(dim=0), batches.inputs.unique(dim=0))


def test_a_batch_moves_on_by_one_block():
    batches = batches_of()
    one = batches.next(20)
    two = batches.next(20)
    three = batches.next(20)
    assert batches.taken == 3
    assert [len(one), len(two), len(three)] == [1, 2, 2]
    assert two[0][0] is one[0][0] and three[0][0] is two[1][0]
    assert len(batches.next(5)) == 1
    assert len(batches.next(30)) == 3
    assert batches.taken == 6


def test_blocks_are_not_used_more_often_than_allowed():
    for reuse in (1, 2, 3):
        batches = batches_of(reuse=reuse)
        seen = {}
        for _ in range(20):
            for inputs, _ in batches.next(40):
                seen[id(inputs)] = seen.get(id(inputs), []) + [inputs]
        assert max(map(len, seen.values())) <= reuse + (reuse == 3)


def test_a_batch_is_one_pass_at_most():
    batches = batches_of(reuse=1)
    assert len(batches.next(1000)) == 4
    assert batches.taken == 4


def test_blocks_depend_on_their_number_only():
    def noise(x, generator):
        return (x + torch.randint(0, 2, x.shape, generator=generator) * 0.5).clamp(-0.5, 1.0)

    straight, later = batches_of(augment=noise), batches_of(augment=noise)
    for _ in range(5):
        expected = straight.next(20)
    later.taken = 4
    found = later.next(20)
    for (one, y), (other, z) in zip(found, expected, strict=True):
        assert torch.equal(one.columns, other.columns) and torch.equal(y, z)


def test_all_samples_come_as_they_are():
    batches = batches_of(criterion="mse", augment=lambda x, g: x * 0)
    blocks = batches.all(torch.float64)
    columns = torch.cat([inputs.columns[:-1] for inputs, _ in blocks], 1).t()
    assert torch.equal(columns, batches.inputs.double())
    target = torch.cat([y for _, y in blocks], 1).t()
    assert torch.equal(target, batches.target.double())


def test_training_by_rounds_repeats_and_reports():
    ends = []
    for _ in range(2):
        reports = []
        descent = GroupDescent(network_of(dtype=torch.float32), OPTIONS, seed=1)
        batches = batches_of()
        train_on_batches(descent, batches, sizes=(10, 20), rounds=6, on_round=reports.append)
        ends.append(descent.network.first.index.clone())
        assert [r.round for r in reports] == [1, 2, 3, 4, 5, 6]
        assert [r.samples for r in reports] == [10, 10, 10, 20, 20, 20]
        assert reports[-1].accepted == descent.tally.accepted > 0
    assert torch.equal(*ends)


def test_a_stopped_training_goes_on_to_the_same_weights():
    whole = GroupDescent(network_of(dtype=torch.float32), OPTIONS, seed=1)
    batches = batches_of()
    states = []
    train_on_batches(
        whole,
        batches,
        sizes=(10, 20),
        rounds=6,
        on_round=lambda r: states.append(whole.state_dict()),
    )
    for done in (1, 4):
        other = GroupDescent(network_of(dtype=torch.float32, seed=5), OPTIONS, seed=9)
        other.load_state_dict(states[done - 1])
        rest = batches_of()
        rest.taken = done
        train_on_batches(other, rest, sizes=(10, 20), rounds=6)
        assert torch.equal(whole.network.first.index, other.network.first.index)
        assert torch.equal(whole.network.second.scale, other.network.second.scale)


def test_training_stops_when_the_time_is_over():
    ticks = iter(range(100))
    descent = GroupDescent(network_of(dtype=torch.float32), OPTIONS)
    batches = batches_of()
    train_on_batches(descent, batches, sizes=(10,), seconds=5.0, clock=lambda: float(next(ticks)))
    assert batches.taken == 4


def test_a_resumed_training_by_time_goes_on_with_the_batches_that_were_due():
    def samples(spent):
        ticks, reports = iter(range(100)), []
        descent = GroupDescent(network_of(dtype=torch.float32), OPTIONS)
        train_on_batches(
            descent,
            batches_of(reuse=1),
            sizes=(10, 20, 40),
            seconds=9.0,
            spent=spent,
            clock=lambda: float(next(ticks)),
            on_round=reports.append,
        )
        return [r.samples for r in reports], [r.seconds for r in reports]

    assert samples(0.0)[0][0] == 10
    sizes, seconds = samples(6.0)
    assert set(sizes) == {40}
    assert min(seconds) > 6.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Neither seconds nor rounds"),
        ({"seconds": 0.0}, "seconds"),
        ({"rounds": 0}, "rounds"),
        ({"rounds": 2, "sizes": ()}, "sizes"),
    ],
)
def test_a_training_without_an_end_is_refused(options, message):
    descent = GroupDescent(network_of(dtype=torch.float32), OPTIONS)
    with pytest.raises(SpecError, match=message):
        train_on_batches(descent, batches_of(), **options)


@pytest.mark.parametrize("kind", ["binary", "many"])
@pytest.mark.parametrize("criterion", ["cross_entropy", "mse"])
def test_a_certified_optimum_has_no_better_neighbour(kind, criterion):
    batches = batches_of(kind, criterion=criterion)
    network = network_of(torch.tanh, criterion=criterion, dtype=torch.float32)
    descent = GroupDescent(network, OPTIONS, seed=2)
    inputs = batches.inputs.double()
    target = target_of(criterion)
    if criterion == "mse":
        target = target.double()
    before = fresh_loss(network, inputs, target)
    certificate = descend_to_optimum(descent, batches.all(torch.float64))
    after = fresh_loss(network, inputs, target)
    assert certificate.loss == pytest.approx(after, rel=1e-9)
    assert after < before
    changes = [every_change(network, w, inputs, target) for w in (network.first, network.second)]
    assert min(float(c.min()) for c in changes) >= -1e-11
    assert certificate.candidates == sum(int(c.isfinite().sum()) for c in changes)
    assert certificate.best_change == pytest.approx(
        min(float(c.min()) for c in changes), rel=1e-6, abs=1e-12
    )


def test_a_move_below_the_noise_of_the_sweeps_ends_them(monkeypatch):
    gain = 1.5 * NOISE[torch.float64]  # none that a sweep makes at a loss of 1 or more
    monkeypatch.setattr(two_layer_training, "best_change", lambda network: (-gain, 1))
    sweeps = []

    def few(descent):
        sweeps.append(descent.tally.accepted)
        assert len(sweeps) < 50, "it goes on for ever"

    descent = GroupDescent(network_of(dtype=torch.float32), OPTIONS)
    blocks = batches_of().all(torch.float64)
    certificate = descend_to_optimum(descent, blocks, tolerance=0.0, on_sweep=few)
    assert certificate.best_change == -gain and certificate.tolerance >= gain


def test_no_certificate_when_the_time_is_over():
    ticks = iter(range(100))
    descent = GroupDescent(network_of(dtype=torch.float32), OPTIONS)
    blocks = batches_of().all(torch.float64)
    clock = lambda: float(next(ticks))  # noqa: E731
    assert descend_to_optimum(descent, blocks, seconds=2.0, clock=clock) is None


def test_digits_are_learnt_from_random_values():
    data = load()
    train, valid = data.train, data.valid
    batches = Batches(
        train.inputs[0], train.target, lambda x: x.flatten(1) / 16, bias=True, block=500
    )
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    from whit.procedures.coordinate_descent.network import DiscreteNetwork
    from whit.procedures.coordinate_descent.two_layer import TwoLayer

    network = DiscreteNetwork.from_model(model)
    two_layer = TwoLayer.from_network(network)
    descent = GroupDescent(two_layer, GroupOptions(least_gain=1.0))
    train_on_batches(descent, batches, sizes=(500, 1000), rounds=60)
    two_layer.write_to(network)
    with torch.no_grad():
        right = model(valid.inputs[0].float().flatten(1) / 16).argmax(1) == valid.target
    assert float(right.float().mean()) > 0.9
