"""Timing of several calls in turns, so that a slow moment of the machine hits all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from whit.benchmarking.machine import cache_bytes, single_time

BLOCK_SECONDS = 0.005
MOST_CALLS = 200
# Threads of torch and ONNX Runtime spin after a call, those of the latter for about 40 ms: nobody
# may be timed beside them.
PAUSE_SECONDS = 0.06
EVICTING = 2  # times the largest cache is read between two cold calls


@dataclass(frozen=True)
class Times:
    """Times of one call, milliseconds; see `single_time`.

    Attributes:
        median_ms: over all timed calls.
        minimum_ms: likewise.
        iqr_ms: distance of the quartiles.
        calls: how many were timed.
    """

    median_ms: float
    minimum_ms: float
    iqr_ms: float
    calls: int


def time_in_turns(
    calls: Mapping[str, Callable[[], object]],
    turns: int,
    *,
    cold: bool = False,
    threads: int = 1,
) -> dict[str, Times]:
    """Time calls in turns.

    Warm: in a turn, each is called once untimed, so that its weights are in the caches as far as
    they fit, and then timed for about 5 ms, once at least. Cold: in a turn, each is called twice,
    and before each call a block of memory twice the largest cache is read and written.

    Args:
        calls: by name.
        turns: how often each has its turn.
        cold: whether caches are emptied before each call.
        threads: that the calls use; with more than one, spinning threads are waited for.
    """
    evict = _evictor() if cold else None
    pause = PAUSE_SECONDS if threads > 1 else 0.0
    times: dict[str, list[int]] = {name: [] for name in calls}
    with _no_collection():
        blocks = {name: _block_size(call) for name, call in calls.items()}
        for _ in range(turns):
            for name, call in calls.items():
                time.sleep(pause)
                if evict is not None:
                    times[name] += _cold_calls(call, evict, threads)
                    continue
                call()
                times[name] += [single_time(call, threads) for _ in range(blocks[name])]
    return {name: summary(np.asarray(found)) for name, found in times.items()}


def summary(nanoseconds: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Times:
    """Return median, minimum and spread of single times."""
    low, median, high = np.quantile(nanoseconds / 1e6, [0.25, 0.5, 0.75])
    smallest = float(nanoseconds.min()) / 1e6
    return Times(float(median), smallest, float(high - low), len(nanoseconds))


def _block_size(call: Callable[[], object]) -> int:
    for _ in range(3):
        call()
    nanoseconds = min(single_time(call) for _ in range(3))
    return int(min(MOST_CALLS, max(1, BLOCK_SECONDS * 1e9 // max(1, nanoseconds))))


def _cold_calls(call: Callable[[], object], evict: Callable[[], object], threads: int) -> list[int]:
    found = []
    for _ in range(2):
        evict()
        found.append(single_time(call, threads))
    return found


def _evictor() -> Callable[[], object]:
    """Return a call that reads, and writes, more memory than the largest cache holds."""
    block = np.ones(EVICTING * cache_bytes() // 8, dtype=np.int64)

    def evict() -> object:
        np.add(block, 1, out=block)
        return None

    return evict


@contextmanager
def _no_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
