"""What the machine can do, and whether it is disturbed while we measure."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

LEAST_SHARE = 0.6
SHAPE = (256, 4096, 4096)
_WARM_UP = 4
_CALLS = 7
_PACKAGES = ("whit", "numpy", "torch", "onnxruntime", "onnx")
_DEFAULT_CACHE = 64 << 20
_CACHE_SIZES = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True)
class Peak:
    """The largest rate of float32 multiply-adds of one core.

    Attributes:
        gflops: 2 operations a multiply-add.
        level: instruction set that reached it.
        source: how it was measured.
    """

    gflops: float
    level: str
    source: str


@dataclass(frozen=True)
class Check:
    """One look at the machine: torch's float32 product of 256x4096 by 4096x4096.

    Attributes:
        gflops: median over some calls.
        share: of the peak of the threads used; None without torch or a peak.
    """

    gflops: float | None
    share: float | None

    @property
    def disturbed(self) -> bool:
        """Whether the product was so slow that ratios to it would flatter us."""
        return self.share is not None and self.share < LEAST_SHARE


def measure_peak() -> Peak | None:
    """Measure the float32 peak of one core; None where nothing here can.

    The native kernel runs multiply-adds on registers alone. Where there is none, or WHIT_ISA holds
    it to less than torch uses, the best of torch's small products stands for the peak: it lies a
    little below.
    """
    found = [peak for peak in (_native_peak(), _torch_peak()) if peak is not None]
    return max(found, key=lambda peak: peak.gflops, default=None)


def look(threads: int, peak: Peak | None) -> Check:
    """Time the reference product.

    Args:
        threads: that torch may use.
        peak: of one core.
    """
    try:
        import torch
    except ImportError:
        return Check(None, None)
    rows, inner, columns = SHAPE
    from whit.benchmarking.torch_threads import torch_threads

    with torch_threads(threads), torch.inference_mode():
        left, right = torch.randn(rows, inner), torch.randn(columns, inner)
        call = partial(torch.nn.functional.linear, left, right)
        for _ in range(_WARM_UP):  # torch's first products set its library up and clocks rise
            call()
        nanoseconds = float(np.median(_single_times(call, _CALLS, threads)))
    gflops = 2 * rows * inner * columns / nanoseconds
    return Check(gflops, None if peak is None else gflops / (threads * peak.gflops))


def single_time(call: Callable[[], object], threads: int = 1) -> int:
    """Return the nanoseconds of one call: of the wall clock with several threads.

    With one thread, the lower of wall clock and the thread's own time: a long call is interrupted
    by other programs more often than a short one, and ratios to it would flatter the short one.
    The clock of the thread is the slower one to read, which short calls would suffer from.
    """
    wall, own = time.perf_counter_ns, time.thread_time_ns
    if threads > 1:
        start = wall()
        call()
        return wall() - start
    start_own, start = own(), wall()
    call()
    return min(wall() - start, own() - start_own)


def cache_bytes() -> int:
    """Return the size of the largest cache; 64 MiB where the system does not tell."""
    sizes = []
    for path in _CACHE_SIZES.glob("index*/size"):
        text = path.read_text().strip()
        unit = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 1)
        sizes.append(int(text.rstrip("KM")) * unit)
    return max(sizes, default=_DEFAULT_CACHE)


def about_machine() -> dict[str, Any]:
    """Return the machine, versions and time as plain values; imports no heavy package."""
    return {
        "cpu": _cpu_model(),
        "features": cpu_features(),
        "cores": os.cpu_count(),
        "largest_cache_bytes": cache_bytes(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
        "isa_forced": os.environ.get("WHIT_ISA"),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def cpu_features() -> list[str]:
    """Return the features that the kernels choose by; empty without native kernels."""
    try:
        from whit.runtime import native
    except ImportError:
        return []
    return native.cpu_features()


def native_function(name: str) -> Callable[..., Any] | None:
    """Return a function of the C++ extension, None where it has none of that name."""
    try:
        from whit import _native
    except ImportError:
        return None
    found: Callable[..., Any] | None = getattr(_native, name, None)
    return found


def _native_peak() -> Peak | None:
    try:
        from whit.runtime import native
    except ImportError:
        return None
    if not native.available():
        return None
    return Peak(native.peak_gflops(), native.isa(), "registers alone")


def _torch_peak() -> Peak | None:
    try:
        import torch
    except ImportError:
        return None
    from whit.benchmarking.torch_threads import torch_threads

    best = 0.0
    with torch_threads(1), torch.inference_mode():
        for size in (96, 128, 192, 256, 384):
            a, b = torch.randn(size, size), torch.randn(size, size)
            nanoseconds = min(_single_times(partial(torch.mm, a, b), 200))
            best = max(best, 2 * size**3 / nanoseconds)
    return Peak(best, "as torch chooses", "best of torch's small products")


def _single_times(call: Callable[[], object], calls: int, threads: int = 1) -> list[int]:
    call()
    return [single_time(call, threads) for _ in range(calls)]


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
