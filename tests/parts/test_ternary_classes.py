import itertools

import numpy as np
import pytest

from whit.parts.ternary_classes import ClassNeurons
from whit.parts.ternary_search import Candidates, SearchOptions


def problem(seed=0, classes=4, inputs=16, samples=600):
    random = np.random.default_rng(seed)
    x = random.integers(-1, 2, (inputs, samples)).astype(np.int16)
    weight = random.normal(size=(classes, inputs))
    noisy = weight @ x + random.normal(size=(classes, samples))
    return weight, x, noisy.argmax(0).astype(np.int64)


def test_scores_and_ties_by_hand():
    x = np.array([[1, 0, -1, 1], [0, 1, 1, 1]], dtype=np.int16)
    neurons = ClassNeurons(np.ones((2, 2)), x, np.array([0, 1, 1, 0]))
    neurons.use(np.array([[1, 0], [0, 1]]), np.array([0, 0]))
    assert neurons.scores().tolist() == [[1, 0, -1, 1], [0, 1, 1, 1]]
    assert neurons.accuracy() == 1.0, "of equal scores the first class is chosen"


def test_offsets_are_the_best_of_all():
    weight, x, labels = problem()
    neurons = ClassNeurons(weight, x, labels)
    neurons.use(np.sign(weight).astype(np.int8), np.array([3, -2, 0, 1]))
    start = neurons.accuracy()
    before = neurons.offset.copy()
    end = neurons.fit_offsets()
    assert end >= start and (neurons.offset != before).any()
    # The last one was fitted with the others as they are now.
    chosen = neurons.offset[3]
    scores = []
    for offset in range(-40, 41):
        neurons.offset[3] = offset
        scores.append(neurons.accuracy())
    assert end == max(scores)
    neurons.offset[3] = chosen
    assert neurons.accuracy() == end


def test_sweeps_never_fall_and_beat_the_start():
    weight, x, labels = problem()
    neurons = ClassNeurons(weight, x, labels)
    neurons.start_alone()
    accuracies = [neurons.accuracy(), *(neurons.sweep() for _ in range(4))]
    assert all(a <= b for a, b in itertools.pairwise(accuracies))
    assert accuracies[-1] > accuracies[0]
    rounded = ClassNeurons(weight, x, labels)
    rounded.use(np.sign(weight) * (abs(weight) > 0.5), np.zeros(4))
    assert accuracies[-1] > rounded.accuracy()
    assert set(np.unique(neurons.weight)) <= {-1, 0, 1}


def test_one_neuron_among_fixed_ones_is_the_best_of_its_candidates():
    weight, x, labels = problem(inputs=6, samples=200)
    neurons = ClassNeurons(weight, x, labels, SearchOptions(1.0, 10**6))
    neurons.start_alone()
    neurons.sweep()
    end = neurons.accuracy()
    candidates = Candidates(weight[3], x)
    best = 0.0
    for plus in range(candidates.most_plus + 1):
        for minus in range(candidates.most_minus + 1):
            for offset in range(-20, 21):
                weights, offsets = neurons.weight.copy(), neurons.offset.copy()
                weights[3], offsets[3] = candidates.weight(plus, minus), offset
                neurons.use(weights, offsets)
                best = max(best, neurons.accuracy())
    assert end == pytest.approx(best)


def test_a_class_without_samples():
    weight, x, labels = problem()
    labels[labels == 2] = 0
    neurons = ClassNeurons(weight, x, labels)
    neurons.start_alone()
    neurons.sweep()
    assert not (neurons.scores().argmax(0) == 2).any()


@pytest.mark.parametrize("largest", [1, 127, 30_000])
def test_kept_scores_are_those_of_the_weights(largest):
    weight, x, labels = problem(samples=5000)  # more than one chunk
    x = (x * largest).astype(np.int16)
    neurons = ClassNeurons(weight, x, labels, SearchOptions(most_candidates=16))
    for step in (neurons.start_alone, neurons.sweep, neurons.fit_offsets):
        step()
        expected = neurons.weight.astype(np.int64) @ x.astype(np.int64) + neurons.offset[:, None]
        assert np.array_equal(neurons.scores(), expected)


def test_the_work_of_a_sweep_is_counted():
    weight, x, labels = problem()
    neurons = ClassNeurons(weight, x, labels)
    neurons.use(np.sign(weight), np.zeros(4))
    assert neurons.work == weight.size * 600, "one product"
    before = neurons.work
    neurons.sweep()
    # Each class: scores compared, prefix sums, three additions a candidate and sample.
    each = 4 * 600 + x.size
    assert neurons.work - before == 4 * each + 3 * 600 * neurons.tried + 4 * 600
