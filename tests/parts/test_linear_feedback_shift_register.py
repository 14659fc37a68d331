import pytest
import torch

from whit.errors import SpecError
from whit.parts.linear_feedback_shift_register import TAPS, ShiftRegister


@pytest.mark.parametrize("bits", TAPS)
def test_a_period_visits_every_state_once(bits):
    register = ShiftRegister(bits)
    states = register.draw(register.period)
    assert sorted(states.tolist()) == list(range(1, 1 << bits))
    assert register.state == 1, "and then it begins again"


def test_four_bits_by_hand():
    # taps 4 and 3: the new bit is bit 3 xor bit 2 (counted from 0)
    assert ShiftRegister(4).draw(8).tolist() == [1, 2, 4, 9, 3, 6, 13, 10]


@pytest.mark.parametrize("bits", [4, 8])
def test_shares_over_a_period_are_exact(bits):
    register = ShiftRegister(bits, 5)
    states = register.draw(register.period)
    for threshold in range(register.period + 1):
        assert int((states <= threshold).sum()) == threshold


@pytest.mark.parametrize(
    ("weight", "threshold", "mean"),
    [(-1.0, 0, -1.0), (-0.5, 64, -0.498), (0.0, 128, 0.0039), (0.25, 159, 0.2471), (1.0, 255, 1.0)],
)
def test_the_examples_of_the_card(weight, threshold, mean):
    from whit.parts.level_draws import register_threshold

    assert int(register_threshold(torch.tensor((weight + 1) / 2), 255)) == threshold
    states = ShiftRegister(8).draw(255)
    found = torch.where(states <= threshold, 1.0, -1.0).double().mean()
    assert float(found) == pytest.approx(mean, abs=5e-4)


def test_it_goes_on_where_it_was():
    whole = ShiftRegister(8, 7).draw(600)
    register = ShiftRegister(8, 7)
    parts = torch.cat([register.draw(100), register.draw(0), register.draw(500)])
    assert torch.equal(parts, whole)


def test_bad_options():
    with pytest.raises(SpecError, match="4, 8, 16"):
        ShiftRegister(5)
    with pytest.raises(SpecError, match="4, 8, 16"):
        ShiftRegister(True)
    for count in (-1, 2.0, True):
        with pytest.raises(SpecError, match="states were asked"):
            ShiftRegister(8, 3).draw(count)
    for state in (0, 16, 1.0, True):
        with pytest.raises(SpecError, match="1 to 15"):
            ShiftRegister(4, state)
