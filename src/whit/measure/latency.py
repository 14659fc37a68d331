"""Latency of packed programs: batch 1, median of many calls, several programs in turns."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from whit.runtime import Program

WARM_UP = 5


@dataclass(frozen=True)
class Latency:
    """Time of one inference.

    Attributes:
        median_ms: median over repetitions, milliseconds.
        iqr_ms: distance of the quartiles, milliseconds.
        backend: "native" or "reference" (NumPy).
        threads: that the program may use, linear algebra included.
        repetitions: timed calls.
    """

    median_ms: float
    iqr_ms: float
    backend: str
    threads: int
    repetitions: int


def measure_latency(program: Program, example: NDArray[Any], repetitions: int = 100) -> Latency:
    """Time one program alone.

    Args:
        program: a loaded program.
        example: raw input; the first sample is used. Shape [batch, ...].
        repetitions: timed calls, >= 2.
    """
    return measure_latencies({"": program}, {"": example}, repetitions)[""]


def measure_latencies(
    programs: Mapping[str, Program],
    examples: Mapping[str, NDArray[Any]],
    repetitions: int = 100,
) -> dict[str, Latency]:
    """Time several programs in turns, so that a slow moment of the machine hits all alike.

    Args:
        programs: by name.
        examples: raw input of each; the first sample is used. Shape [batch, ...].
        repetitions: timed calls of each, >= 2.
    """
    samples = {name: np.ascontiguousarray(examples[name][:1]) for name in programs}
    times: dict[str, list[int]] = {name: [] for name in programs}
    with _one_blas_thread():
        for name, program in programs.items():
            for _ in range(WARM_UP):
                program(samples[name])
        for _ in range(repetitions):
            for name, program in programs.items():
                start = time.perf_counter_ns()
                program(samples[name])
                times[name].append(time.perf_counter_ns() - start)
    return {name: _summary(times[name], program) for name, program in programs.items()}


def _one_blas_thread() -> AbstractContextManager[object]:
    """Hold NumPy's linear algebra to one thread; the library comes with scikit-learn."""
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(1)
    return limits


def _summary(nanoseconds: list[int], program: Program) -> Latency:
    low, median, high = np.quantile(np.asarray(nanoseconds) / 1e6, [0.25, 0.5, 0.75])
    backend, threads = program.info["backend"], int(program.info["threads"])
    return Latency(float(median), float(high - low), backend, threads, len(nanoseconds))
