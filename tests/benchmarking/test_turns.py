import gc
import time

import pytest

from whit.benchmarking.machine import (
    Check,
    about_machine,
    cache_bytes,
    look,
    measure_peak,
    single_time,
)
from whit.benchmarking.turns import time_in_turns


def busy(seconds, log, name):
    def call():
        log.append(name)
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    return call


def test_candidates_take_turns_and_the_slower_takes_longer():
    log = []
    calls = {"slow": busy(0.004, log, "s"), "quick": busy(0.001, log, "q")}
    found = time_in_turns(calls, 3)
    assert found["slow"].median_ms > found["quick"].median_ms > 1
    assert found["slow"].minimum_ms <= found["slow"].median_ms
    # Each has three turns, and more calls in each the quicker it is.
    turns = "".join(log).lstrip("s").lstrip("q")
    assert [part for part in ("s", "q", "s", "q", "s", "q")] == [
        c for n, c in enumerate(turns) if n == 0 or turns[n - 1] != c
    ]
    assert found["quick"].calls >= found["slow"].calls >= 3
    assert gc.isenabled()


def test_cold_calls_are_two_a_turn():
    log = []
    found = time_in_turns({"a": busy(0.0, log, "a")}, 3, cold=True)
    assert found["a"].calls == 6


def test_a_slow_reference_product_means_a_disturbed_machine():
    assert Check(50.0, 0.59).disturbed
    assert not Check(60.0, 0.61).disturbed
    assert not Check(None, None).disturbed


def test_the_machine_is_measured():
    peak = measure_peak()
    assert peak.gflops > 1
    check = look(1, peak)
    assert check.share == pytest.approx(check.gflops / peak.gflops)
    assert cache_bytes() >= 1 << 15
    assert {"cpu", "cores", "versions", "features", "time"} <= set(about_machine())


def test_waiting_counts_with_several_threads_only():
    def wait():
        time.sleep(0.005)

    assert single_time(wait, 1) < 4_000_000 < single_time(wait, 2)
