import numpy as np
import pytest
from scipy import stats

from whit.errors import WhitError
from whit.measure.verdict import Verdict, bootstrap_interval, judge, seed_interval


def correct(share, seeds=3, samples=400):
    row = (np.arange(samples) < share * samples).astype(np.uint8)
    return [row] * seeds


def test_the_seed_interval_is_that_of_the_paired_t_test():
    a, b = np.array([0.9, 0.93, 0.95, 0.91]), np.array([0.89, 0.9, 0.95, 0.88])
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert seed_interval(a - b) == pytest.approx((expected.low, expected.high))


def test_the_bootstrap_interval_is_near_the_normal_one():
    differences = np.random.default_rng(1).integers(-1, 2, 1000).astype(float)
    low, high = bootstrap_interval(differences)
    reach = 1.96 * differences.std() / 1000**0.5
    assert low == pytest.approx(differences.mean() - reach, abs=reach / 5)
    assert high == pytest.approx(differences.mean() + reach, abs=reach / 5)


def test_clear_differences_are_better_and_worse():
    high, low = [0.95, 0.951, 0.949], [0.90, 0.902, 0.899]
    assert judge(high, low, correct(0.95), correct(0.90)).word == "better"
    assert judge(low, high, correct(0.90), correct(0.95)).word == "worse"


def test_both_questions_must_be_answered():
    high, low = [0.95, 0.951, 0.949], [0.90, 0.902, 0.899]
    assert judge(high, low, correct(0.95), correct(0.95)).word == "within noise"
    noisy = [0.99, 0.80, 0.97]
    assert judge(noisy, low, correct(0.95), correct(0.90)).word == "within noise"


def test_one_seed_never_gives_a_verdict():
    assert judge([1.0], [0.1], correct(1.0, 1), correct(0.1, 1)).word == "one seed"


def test_equal_runs_are_within_noise():
    assert judge([0.9, 0.8], [0.9, 0.8], correct(0.9, 2), correct(0.9, 2)).word == "within noise"


def test_without_samples_the_seeds_decide():
    assert judge([0.95, 0.951, 0.949], [0.90, 0.902, 0.899]).word == "better"


def test_unpaired_seeds_are_refused():
    with pytest.raises(WhitError, match="same seeds"):
        judge([0.9, 0.8], [0.9])


@pytest.mark.parametrize(
    ("verdict", "points", "text"),
    [
        (Verdict("within noise", 0.0, (-0.02, 0.014)), True, "(-2.0 to +1.4 points)"),
        (Verdict("within noise", 0.0, (-0.9, 0.8)), True, "(-90.0 to +80.0 points, add seeds)"),
        (Verdict("worse", -0.3, (-0.4, -0.2)), True, "(-40.0 to -20.0 points)"),
        (Verdict("one seed", 0.012), True, "(+1.2 points, add seeds)"),
        (
            Verdict("within noise", 0.01, (0.002, 0.02), (-0.01, 0.03)),
            True,
            "(-1.0 to +3.0 points over samples)",
        ),
        (Verdict("within noise", 0.0, (-0.02, 0.014)), False, "(-0.02 to +0.014)"),
    ],
)
def test_the_interval_stands_beside_the_word(verdict, points, text):
    assert verdict.interval_text(points) == text
