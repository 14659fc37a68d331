from functools import partial

import pytest

from whit.parts.schedules import (
    LEARNING_RATES,
    cosine_rate,
    gradual_sparsity,
    iterative_sparsity,
    one_cycle_rate,
    one_cycle_sparsity,
    one_shot_sparsity,
    within_window,
)

# The table of the card one_cycle_pruning.md: s_i = 0, alpha = 14, beta = 6.
ONE_CYCLE = {
    0.0: 0.0025,
    0.1: 0.0100,
    0.2: 0.0392,
    0.25: 0.0759,
    0.3: 0.1419,
    0.4: 0.4014,
    0.5: 0.7313,
    0.6: 0.9171,
    0.75: 0.9893,
    0.9: 0.9990,
    1.0: 1.0,
}
GRID = [i / 200 for i in range(201)]


@pytest.mark.parametrize(("t", "expected"), ONE_CYCLE.items())
def test_one_cycle_sparsity_follows_the_table(t, expected):
    assert one_cycle_sparsity(t) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("alpha", "beta"), [(14.0, 6.0), (1.0, 0.0), (50.0, 21.0), (1e4, 4e3)])
def test_one_cycle_sparsity_ends_at_exactly_one(alpha, beta):
    assert one_cycle_sparsity(1.0, alpha, beta) == 1.0


def test_one_cycle_sparsity_grows_strictly():
    values = [one_cycle_sparsity(t) for t in GRID]
    assert all(a < b for a, b in zip(values, values[1:], strict=False))


def test_half_is_reached_near_beta_over_alpha():
    assert one_cycle_sparsity(6 / 14) == pytest.approx(0.5, abs=2e-3)


def test_a_large_alpha_is_one_shot_at_beta_over_alpha():
    steep = partial(one_cycle_sparsity, alpha=1e6, beta=0.43e6)
    at_once = partial(one_shot_sparsity, start=0.43)
    for t in GRID:
        if abs(t - 0.43) > 1e-9:
            assert steep(t) == at_once(t), t


def test_one_shot():
    assert [one_shot_sparsity(t) for t in (0.0, 0.499, 0.5, 1.0)] == [0, 0, 1, 1]


def test_iterative_takes_equal_jumps_just_after_the_start():
    schedule = partial(iterative_sparsity, start=0.2, steps=4)
    assert schedule(0.1) == schedule(0.2) == 0
    assert schedule(0.2001) == schedule(0.4) == 0.25
    assert schedule(0.4001) == schedule(0.6) == 0.5
    assert schedule(0.8001) == schedule(1.0) == 1.0


def test_gradual_is_the_cubic_of_zhu_and_gupta():
    assert gradual_sparsity(0.2) == gradual_sparsity(0.0) == 0
    assert gradual_sparsity(0.6) == pytest.approx(1 - 0.5**3)
    assert gradual_sparsity(1.0) == 1


@pytest.mark.parametrize("schedule", [one_cycle_sparsity, gradual_sparsity, one_shot_sparsity])
def test_a_window_clamps(schedule):
    squeezed = within_window(schedule, 0.25, 0.75)
    assert squeezed(0.0) == squeezed(0.2499) == 0.0
    assert squeezed(0.75) == squeezed(0.9) == squeezed(1.0) == 1.0
    assert squeezed(0.375) == schedule(0.25)
    assert squeezed(0.5) == schedule(0.5)
    assert within_window(schedule)(0.3) == schedule(0.3)


def test_one_cycle_rate_rises_to_one_and_falls_to_zero():
    assert one_cycle_rate(0.0) == pytest.approx(0.04)
    assert one_cycle_rate(0.15) == pytest.approx(0.52)
    assert one_cycle_rate(0.3) == 1.0
    assert one_cycle_rate(0.65) == pytest.approx(0.5)
    assert one_cycle_rate(1.0) == pytest.approx(0.0, abs=1e-12)


def test_cosine_and_constant_rates():
    assert [cosine_rate(t) for t in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.5, 0.0])
    assert {LEARNING_RATES["constant"](t) for t in GRID} == {1.0}
    assert all(0 <= rate(t) <= 1 for rate in LEARNING_RATES.values() for t in GRID)
