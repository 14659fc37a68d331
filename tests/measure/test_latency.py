import time
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from whit.measure.latency import measure_latencies, measure_latency


class Sleeper:
    info = {"backend": "reference", "threads": "1"}

    def __init__(self, seconds, routed=False):
        self.seconds = seconds
        self.batches, self.values = [], set()
        self.operators = (SimpleNamespace(conditional=routed),)

    def __call__(self, x):
        self.batches.append(len(x))
        self.values.add(float(x.flat[0]))
        time.sleep(self.seconds)
        return x


def test_the_slower_program_takes_longer_and_sees_one_sample():
    slow, quick = Sleeper(0.004), Sleeper(0.001)
    inputs = np.zeros((7, 3), np.float32)
    found = measure_latencies({"s": slow, "q": quick}, {"s": inputs, "q": inputs}, repetitions=5)
    assert found["s"].median_ms > found["q"].median_ms >= 1
    assert found["s"].iqr_ms >= 0
    assert set(slow.batches) == {1}


def test_all_samples_take_turns_where_a_route_decides_what_runs():
    plain, routed = Sleeper(0.0), Sleeper(0.0, routed=True)
    inputs = np.arange(8, dtype=np.float32)[:, None]
    measure_latencies({"p": plain, "r": routed}, {"p": inputs, "r": inputs}, repetitions=8)
    assert plain.values == {0.0}
    assert routed.values == set(range(8))
    assert set(routed.batches) == {1}


def test_what_was_timed_is_said():
    found = measure_latency(Sleeper(0.0), np.zeros((1, 3), np.float32), repetitions=3)
    assert (found.backend, found.threads, found.repetitions) == ("reference", 1, 3)


class SleepingModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = set()

    def forward(self, x):
        self.seen.add((x.dtype, len(x), torch.get_num_threads(), torch.is_inference_mode_enabled()))
        time.sleep(0.002)
        return x


def test_the_model_in_torch_is_timed_beside_the_program_at_one_thread():
    module, programs = SleepingModule(), {"a": Sleeper(0.0), "b": Sleeper(0.0)}
    inputs = dict.fromkeys(programs, np.zeros((2, 3), np.uint8))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = measure_latencies(programs, inputs, 6, {"a": module})
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert found["a"].torch_median_ms >= 2 > found["a"].median_ms
    assert found["b"].torch_median_ms is None
    assert module.seen == {(torch.float32, 1, 1, True)}


def test_as_many_calls_are_timed_as_were_asked_for():
    assert measure_latency(Sleeper(0.0), np.zeros((1, 3)), repetitions=6).repetitions == 6
