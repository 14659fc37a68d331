import time

import pytest
import torch
from torch import nn

from whit.measure.meter import Charge, Meter, forward_macs, undisturbed
from whit.methods.low_bit.binarized_network import binarize

MLP_MACS = 6 * 12 + 12 * 2


def mlp():
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 2))


def convolutions():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3, stride=2, groups=2),
        nn.Flatten(), nn.Linear(4, 5),
    )  # fmt: skip


# On 8 x 8: 64 positions of 3 x 9 x 8; on 4 x 4 without padding and with stride 2 one position of
# 4 x 9 x 4 (two groups); 4 x 5.
CONV_MACS = 64 * 27 * 8 + 36 * 4 + 4 * 5


def test_forward_macs_by_hand():
    assert forward_macs(mlp(), torch.zeros(7, 6)) == 7 * MLP_MACS
    assert forward_macs(convolutions(), torch.zeros(5, 3, 8, 8)) == 5 * CONV_MACS
    assert forward_macs(nn.ReLU(), torch.zeros(3)) == 0


def test_binary_weights_cost_the_same_macs():
    assert forward_macs(binarize(mlp()), torch.zeros(7, 6)) == 7 * MLP_MACS


def test_counting_leaves_no_trace():
    model = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 2))
    model[1].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    forward_macs(model, torch.randn(4, 6))
    assert [m.training for m in model.modules()] == [True, True, False]
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("make", "shape", "macs"), [(mlp, (6,), MLP_MACS), (convolutions, (3, 8, 8), CONV_MACS)]
)
def test_training_costs_three_forwards_and_watching_one(make, shape, macs):
    model, meter = make(), Meter()
    with meter.training(model):
        model(torch.zeros(7, *shape)).sum().backward()
        assert meter.charge().train_macs == 3 * 7 * macs
        with torch.no_grad():
            model(torch.zeros(2, *shape))
    assert meter.charge().train_macs == (3 * 7 + 2) * macs


def test_a_repeated_shape_is_charged_again():
    model, meter = mlp(), Meter()
    with meter.training(model):
        for _ in range(3):
            model(torch.zeros(4, 6))
        model(torch.zeros(5, 6))
    assert meter.charge().train_macs == 3 * 17 * MLP_MACS


def test_nothing_is_charged_outside():
    model, meter = mlp(), Meter()
    with meter.training(model):
        pass
    model(torch.zeros(4, 6))
    assert meter.charge().train_macs == 0
    assert not model._forward_pre_hooks


def test_nested_contexts_add_macs_and_count_seconds_once():
    student, teacher, meter = mlp(), convolutions(), Meter()
    start = time.perf_counter()
    with meter.training(student):
        with meter.training(teacher), torch.no_grad():
            teacher(torch.zeros(2, 3, 8, 8))
            time.sleep(0.05)
        student(torch.zeros(3, 6))
        time.sleep(0.05)
    passed = time.perf_counter() - start
    assert meter.charge().train_macs == 3 * 3 * MLP_MACS + 2 * CONV_MACS
    assert 0.1 <= meter.charge().train_seconds <= passed


def test_an_exception_ends_the_watch_and_keeps_the_charge():
    model, meter = mlp(), Meter()
    with pytest.raises(RuntimeError, match="stop"), meter.training(model):
        model(torch.zeros(4, 6))
        raise RuntimeError("stop")
    assert meter.charge().train_macs == 3 * 4 * MLP_MACS
    model(torch.zeros(4, 6))
    assert meter.charge().train_macs == 3 * 4 * MLP_MACS and not model._forward_pre_hooks
    seconds = meter.charge().train_seconds
    assert seconds > 0 and meter.charge().train_seconds == seconds, "the clock stands"


def test_measuring_while_training_counts_once_and_is_not_charged():
    """`fit` asks for the size of a step inside the watched block."""
    model, meter = mlp(), Meter()
    with meter.training(model):
        assert forward_macs(model, torch.zeros(1, 6)) == MLP_MACS
        assert meter.charge().train_macs == 0


def test_macs_that_nobody_sees_can_be_added():
    meter = Meter()
    meter.add_macs(5)
    meter.add_macs(6)
    assert meter.charge().train_macs == 11


def test_the_state_goes_around():
    model, meter, other = mlp(), Meter(), Meter()
    with meter.training(model):
        model(torch.zeros(4, 6))
    other.load_state_dict(meter.state_dict())
    assert other.charge() == meter.charge()
    with other.training(model):
        model(torch.zeros(1, 6))
    assert other.charge().train_macs == 3 * 5 * MLP_MACS
    assert other.charge().train_seconds > meter.charge().train_seconds


def test_a_state_loaded_while_training_replaces_what_ran_before():
    saved, meter, model = Meter(), Meter(), mlp()
    saved.load_state_dict({**saved.state_dict(), "train_macs": 7, "train_seconds": 100.0})
    with meter.training(model):
        model(torch.zeros(1, 6))
        meter.load_state_dict(saved.state_dict())
    charge = meter.charge()
    assert charge.train_macs == 7 and 100 < charge.train_seconds < 101


def test_the_peak_covers_what_was_held():
    meter = Meter()
    with meter.training(mlp()):
        held = torch.ones(50_000_000 // 4)
    assert Charge().train_peak_bytes is None
    peak = meter.charge().train_peak_bytes
    assert peak is None or peak > held.nbytes


def test_what_is_looked_at_is_not_charged():
    model, meter = mlp(), Meter()
    with meter.training(model):
        model(torch.zeros(4, 6))
        with meter.uncharged(), torch.no_grad():
            model(torch.zeros(9, 6))
            time.sleep(0.2)
        model(torch.zeros(1, 6))
    assert meter.charge().train_macs == 3 * 5 * MLP_MACS
    assert meter.charge().train_seconds < 0.2


def test_sent_bytes_are_charged_from_the_start_of_the_meter_and_go_on_after_a_resume():
    sent = [100]
    meter = Meter(sent=lambda: sent[0])
    assert meter.charge().exchanged_bytes == 0
    sent[0] += 7
    assert meter.charge().exchanged_bytes == 7
    again = [0]
    other = Meter(sent=lambda: again[0])
    other.load_state_dict(meter.state_dict())
    again[0] += 5
    assert other.charge().exchanged_bytes == 12


class Restless(nn.Module):
    """Moves a buffer, replaces another and draws numbers, whatever its mode."""

    def __init__(self):
        super().__init__()
        self.register_buffer("moved", torch.zeros(2))
        self.register_buffer("replaced", torch.zeros(2))

    def forward(self, x):
        self.moved += 1
        self.replaced = self.replaced + torch.rand(2)
        return x


def test_undisturbed_leaves_no_trace():
    model = nn.Sequential(Restless(), nn.Dropout(), nn.Linear(2, 2))
    model[1].eval()
    held = model[0].replaced
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with undisturbed(model):
        assert not any(m.training for m in model.modules())
        assert not model(torch.zeros(1, 2)).requires_grad
        assert model[0].moved.tolist() == [1, 1]
    assert torch.equal(torch.rand(3), expected)
    assert model[0].moved.tolist() == [0, 0]
    assert model[0].replaced is held and held.tolist() == [0, 0]
    assert [m.training for m in model] == [True, False, True]


def test_counting_leaves_the_random_stream_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    forward_macs(Restless(), torch.zeros(1, 2))
    assert torch.equal(torch.rand(3), expected)
