import time

import numpy as np

from whit.measure.latency import measure_latencies, measure_latency


class Sleeper:
    info = {"backend": "reference", "threads": "1"}

    def __init__(self, seconds):
        self.seconds = seconds
        self.batches = []

    def __call__(self, x):
        self.batches.append(len(x))
        time.sleep(self.seconds)
        return x


def test_the_slower_program_takes_longer_and_sees_one_sample():
    slow, quick = Sleeper(0.004), Sleeper(0.001)
    inputs = np.zeros((7, 3), np.float32)
    found = measure_latencies({"s": slow, "q": quick}, {"s": inputs, "q": inputs}, repetitions=5)
    assert found["s"].median_ms > found["q"].median_ms >= 1
    assert found["s"].iqr_ms >= 0
    assert set(slow.batches) == {1}


def test_what_was_timed_is_said():
    found = measure_latency(Sleeper(0.0), np.zeros((1, 3), np.float32), repetitions=3)
    assert (found.backend, found.threads, found.repetitions) == ("reference", 1, 3)
