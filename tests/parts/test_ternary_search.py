import itertools

import numpy as np
import pytest

from whit.errors import SpecError, WhitError
from whit.parts.stochastic_firing import FIRES_FROM
from whit.parts.ternary_search import Candidates, SearchOptions, fit_neuron
from whit.parts.threshold_scan import Firing, best_thresholds

EXHAUSTIVE = SearchOptions(good_enough=1.0, most_candidates=10**6)
QUICK = SearchOptions(good_enough=0.0, most_candidates=0)


def score_of(sums, low, high, rho):
    minus, plus = np.maximum(-rho, 0), np.maximum(rho, 0)
    zero = 1 - np.abs(rho)
    return np.where(sums < low, minus, np.where(sums > high, plus, zero)).mean()


def neuron(seed, inputs=12, samples=2000):
    random = np.random.default_rng(seed)
    x = random.integers(-1, 2, (inputs, samples)).astype(np.int16)
    weight = random.normal(size=inputs) * 0.5
    return weight, x, np.tanh(weight @ x + 0.1)


@pytest.mark.parametrize("seed", range(8))
def test_the_scan_against_all_pairs_of_thresholds(seed):
    random = np.random.default_rng(seed)
    sums = random.integers(-6, 7, 300) * (2 if seed % 2 else 1)  # with gaps, too
    rho = np.clip(random.normal(size=300) + 0.3 * sums, -1, 1)
    found = best_thresholds(sums, Firing.of_rate(rho))
    everything = range(-14, 15)
    best = max(
        score_of(sums, low, high, rho)
        for low, high in itertools.product(everything, everything)
        if high >= low - 1
    )
    assert found.score == pytest.approx(best, abs=1e-12)
    assert score_of(sums, found.low, found.high, rho) == pytest.approx(found.score, abs=1e-12)
    assert found.high >= found.low - 1


def test_one_value_of_all_sums():
    sums = np.zeros(4, dtype=np.int64)
    found = best_thresholds(sums, Firing.of_rate(np.array([0.9, 0.8, 0.7, -0.1])))
    assert found.score == pytest.approx((0.9 + 0.8 + 0.7 + 0.0) / 4) and found.high < 0


@pytest.mark.parametrize("seed", range(6))
def test_the_search_against_all_candidates(seed):
    weight, x, rho = neuron(seed)
    firing = Firing.of_rate(rho)
    found = fit_neuron(weight, x, firing, EXHAUSTIVE)
    candidates = Candidates(weight, x)
    best = max(
        best_thresholds(candidates.sums(p, m), firing).score
        for p in range(candidates.most_plus + 1)
        for m in range(candidates.most_minus + 1)
    )
    assert found.value == best
    assert found.tried == (candidates.most_plus + 1) * (candidates.most_minus + 1)
    sums = found.weight.astype(int) @ x
    assert score_of(sums, found.low, found.high, rho) == pytest.approx(found.value, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_quick_search_comes_close_with_few_candidates(seed):
    weight, x, rho = neuron(seed, inputs=120)
    firing = Firing.of_rate(rho)
    quick, full = fit_neuron(weight, x, firing, QUICK), fit_neuron(weight, x, firing, EXHAUSTIVE)
    assert quick.value >= 0.997 * full.value
    assert quick.tried < 0.2 * full.tried


def test_no_score_is_above_its_bound():
    for seed in range(6):
        weight, x, rho = neuron(seed)
        firing = Firing.of_rate(rho)
        assert fit_neuron(weight, x, firing).value <= firing.bound + 1e-12


def test_a_ternary_teacher_is_found_with_score_one():
    random = np.random.default_rng(3)
    x = random.integers(-1, 2, (20, 3000)).astype(np.int16)
    teacher = random.integers(-1, 2, 20)
    sums = teacher @ x
    rho = (sums > 2).astype(float) - (sums < -1)
    found = fit_neuron(teacher.astype(float), x, Firing.of_rate(rho))
    assert found.value == 1.0
    assert (found.weight == teacher).all() and (found.low, found.high) == (-1, 2)


def test_more_than_a_third_of_the_weights_become_zero():
    weight, x, rho = neuron(1, inputs=200, samples=1000)
    found = fit_neuron(weight, x, Firing.of_rate(rho))
    assert (found.weight == 0).mean() > 0.3


@pytest.mark.parametrize("sign", [1, -1])
def test_weights_of_one_sign(sign):
    weight, x, _ = neuron(2)
    weight = sign * np.abs(weight)
    found = fit_neuron(weight, x, Firing.of_rate(np.tanh(weight @ x)))
    assert set(np.unique(found.weight)) <= {0, sign}


def test_a_dead_neuron():
    _, x, _ = neuron(2)
    found = fit_neuron(np.zeros(12), x, Firing.of_rate(np.full(2000, -0.8)))
    assert not found.weight.any() and found.value == pytest.approx(0.8) and found.low > 0


def test_sums_beyond_16_bits():
    x = np.full((600, 50), 127, dtype=np.int16)
    x[:, :25] = -127
    rho = np.where(np.arange(50) < 25, -1.0, 1.0)
    found = fit_neuron(np.ones(600), x, Firing.of_rate(rho))
    assert found.value == 1.0
    assert Candidates(np.ones(600), x).sums(600, 0).max() == 600 * 127


def test_a_pool_before_the_thresholds():
    weight, x, _ = neuron(4)
    firing = np.tanh(weight @ x).reshape(-1, 4).max(1)
    found = fit_neuron(
        weight, x, Firing.of_rate(firing), pool=lambda sums: sums.reshape(-1, 4).max(1)
    )
    sums = (found.weight.astype(int) @ x).reshape(-1, 4).max(1)
    assert score_of(sums, found.low, found.high, firing) == pytest.approx(found.value, abs=1e-12)


def test_the_firing_thresholds_belong_to_the_evaluation():
    assert np.tanh(FIRES_FROM["tanh"]) == pytest.approx(0.5)


@pytest.mark.parametrize("options", [{"good_enough": 1.5}, {"most_candidates": -1}])
def test_bad_options(options):
    with pytest.raises(SpecError, match=next(iter(options))):
        SearchOptions(**options)
    with pytest.raises(WhitError, match="12 weights was given 3 rows"):
        Candidates(np.ones(12), np.ones((3, 5), dtype=np.int16))
