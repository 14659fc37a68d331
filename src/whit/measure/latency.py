"""Latency of packed programs and of their models in torch: batch 1, medians, taken in turns."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

    from whit.runtime import Program

WARM_UP = 5
CALLS = 4  # in one turn, after one that is not timed and brings the weights back into the caches


@dataclass(frozen=True)
class Latency:
    """Time of one inference.

    Attributes:
        median_ms: median over repetitions, milliseconds.
        iqr_ms: distance of the quartiles, milliseconds.
        backend: "native" or "reference" (NumPy).
        threads: that the program may use, linear algebra included.
        repetitions: timed calls.
        torch_median_ms: median of the same model in torch at 1 thread; None when it was not timed.
    """

    median_ms: float
    iqr_ms: float
    backend: str
    threads: int
    repetitions: int
    torch_median_ms: float | None = None


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
    modules: Mapping[str, nn.Module] | None = None,
) -> dict[str, Latency]:
    """Time several programs in turns, so that a slow moment of the machine hits all alike.

    Args:
        programs: by name.
        examples: raw input of each; the first sample is used, or, where a route decides what runs,
            all in turn. Shape [batch, ...].
        repetitions: timed calls of each, >= 2.
        modules: the same models in torch, for some of the names or none: timed in the same turns.
    """
    samples = {name: _samples(program, examples[name]) for name, program in programs.items()}
    subjects = {(name, False): _call(program, samples[name]) for name, program in programs.items()}
    for name, module in (modules or {}).items():
        subjects[name, True] = _torch_call(module, samples[name])
    with _one_blas_thread(), _one_torch_thread(bool(modules)):
        times = _take_turns(subjects, repetitions)
    return {
        name: _summary(times[name, False], times.get((name, True)), program)
        for name, program in programs.items()
    }


def _take_turns(
    subjects: Mapping[tuple[str, bool], Callable[[], object]], repetitions: int
) -> dict[tuple[str, bool], list[int]]:
    times: dict[tuple[str, bool], list[int]] = {subject: [] for subject in subjects}
    for call in subjects.values():
        for _ in range(WARM_UP):
            call()
    for start in range(0, repetitions, CALLS):
        for subject, call in subjects.items():
            call()
            for _ in range(min(CALLS, repetitions - start)):
                begin = time.perf_counter_ns()
                call()
                times[subject].append(time.perf_counter_ns() - begin)
    return times


def _samples(program: Program, example: NDArray[Any]) -> list[NDArray[Any]]:
    routed = any(operator.conditional for operator in program.operators)
    count = len(example) if routed else 1
    return [np.ascontiguousarray(example[row : row + 1]) for row in range(count)]


def _call(program: Program, samples: Sequence[NDArray[Any]]) -> Callable[[], object]:
    turn = itertools.cycle(samples)
    return lambda: program(next(turn))


def _torch_call(module: nn.Module, samples: Sequence[NDArray[Any]]) -> Callable[[], object]:
    import torch

    dtype = np.int64 if samples[0].dtype == np.int32 else np.float32
    turn = itertools.cycle([torch.from_numpy(sample.astype(dtype)) for sample in samples])

    def call() -> object:
        with torch.inference_mode():
            return module(next(turn))

    return call


def _one_blas_thread() -> AbstractContextManager[object]:
    """Hold NumPy's linear algebra to one thread; the library comes with scikit-learn."""
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(1)
    return limits


@contextmanager
def _one_torch_thread(used: bool) -> Iterator[None]:
    if not used:
        yield
        return
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _summary(nanoseconds: list[int], in_torch: list[int] | None, program: Program) -> Latency:
    low, median, high = np.quantile(np.asarray(nanoseconds) / 1e6, [0.25, 0.5, 0.75])
    torch_median = None if in_torch is None else float(np.median(in_torch)) / 1e6
    return Latency(
        median_ms=float(median),
        iqr_ms=float(high - low),
        backend=program.info["backend"],
        threads=int(program.info["threads"]),
        repetitions=len(nanoseconds),
        torch_median_ms=torch_median,
    )
