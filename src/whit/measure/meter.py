"""The meter: all training cost of a run passes through it and is charged to the run.

MACs are counted on the module that is really called (`torch.utils.flop_counter`, two FLOPs a
MAC), by a hook on its forward call: a forward with gradients costs three forwards (itself and two
products of the backward pass), one without costs one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

FORWARD_AND_BACKWARD = 3

# Set while `forward_macs` tries a model out: that call is no training and is not charged.
_counting: ContextVar[bool] = ContextVar("counting", default=False)


@dataclass(frozen=True)
class Charge:
    """What training cost.

    Attributes:
        train_macs: multiply-accumulates of all forwards and backwards.
        train_seconds: wall time inside training, seconds.
        train_peak_bytes: peak resident memory of the process while training (Linux), or None.
        exchanged_bytes: bytes sent to other processes.
    """

    train_macs: int = 0
    train_seconds: float = 0.0
    train_peak_bytes: int | None = None
    exchanged_bytes: int = 0


class Meter:
    """Adds up the cost of a run, whoever trains in it.

    Args:
        sent: returns the bytes that this process has sent to others so far; what is sent from now
            on is charged.
    """

    def __init__(self, sent: Callable[[], int] = lambda: 0) -> None:
        """Start at zero."""
        self._macs = 0
        self._sent = sent
        self._exchanged = -sent()
        self._seconds = 0.0
        self._peak: int | None = None
        self._depth = 0
        self._started = 0.0

    @contextmanager
    def training(self, model: nn.Module) -> Iterator[None]:
        """Charge every forward call of `model`, and the seconds, while the block runs.

        Contexts nest (a teacher inside a student's training): MACs add up, seconds count once.
        """
        handle = model.register_forward_pre_hook(ForwardCounter(self))
        if self._depth == 0:
            _reset_peak()
            self._started = time.perf_counter()
        self._depth += 1
        try:
            yield
        finally:
            handle.remove()
            charge = self.charge()
            self._depth -= 1
            if self._depth == 0:
                self._seconds, self._peak = charge.train_seconds, charge.train_peak_bytes

    @contextmanager
    def uncharged(self) -> Iterator[None]:
        """Charge neither forward calls nor seconds while the block runs: for looking on."""
        token = _counting.set(True)
        begin = time.perf_counter()
        try:
            yield
        finally:
            _counting.reset(token)
            self._started += time.perf_counter() - begin

    def add_macs(self, macs: int) -> None:
        """Charge multiply-accumulates that no forward call of a watched model shows."""
        self._macs += macs

    def charge(self) -> Charge:
        """Return what has been charged so far, the running block included."""
        exchanged = self._exchanged + self._sent()
        if self._depth == 0:
            return Charge(self._macs, self._seconds, self._peak, exchanged)
        peak = _peak_resident_bytes()
        if peak is not None:
            peak = max(peak, self._peak or 0)
        seconds = self._seconds + time.perf_counter() - self._started
        return Charge(self._macs, seconds, peak, exchanged)

    def state_dict(self) -> dict[str, Any]:
        """Return the charge as plain values, for checkpoints."""
        return asdict(self.charge())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved charge."""
        self._macs = state["train_macs"]
        self._seconds = state["train_seconds"]
        self._peak = state["train_peak_bytes"]
        self._exchanged = state["exchanged_bytes"] - self._sent()
        self._started = time.perf_counter()


class ForwardCounter:
    """A forward pre-hook that counts; MACs a sample are measured once per input shape."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._per_batch: dict[tuple[object, ...], int] = {}

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Charge a forward call that is about to run."""
        if _counting.get():
            return
        shapes = tuple(tuple(t.shape) for t in inputs if isinstance(t, Tensor))
        if shapes not in self._per_batch:
            self._per_batch[shapes] = forward_macs(module, *inputs)
        factor = FORWARD_AND_BACKWARD if torch.is_grad_enabled() else 1
        self._meter.add_macs(factor * self._per_batch[shapes])


def forward_macs(model: nn.Module, *inputs: Tensor) -> int:
    """Count the multiply-accumulates of one forward call on these inputs, without a trace."""
    token = _counting.set(True)
    try:
        with undisturbed(model), FlopCounterMode(display=False) as counter:
            model(*inputs)
    finally:
        _counting.reset(token)
    return int(counter.get_total_flops()) // 2


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Let a model answer in evaluation mode, without gradients and without a trace.

    Afterwards the modes of its modules, its buffers (an observer's statistics move in evaluation
    mode too) and torch's random streams are as before. A resumed run could not be the same
    otherwise: it looks on at other moments.
    """
    training = {m: m.training for m in model.modules()}
    buffers = [
        (m, name, b, b.detach().clone())
        for m in training
        for name, b in m._buffers.items()
        if b is not None
    ]
    devices = {t.device.index for t in model.parameters() if t.is_cuda}
    model.eval()
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            yield
    finally:
        for module, mode in training.items():
            module.training = mode
        with torch.no_grad():
            for module, name, buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)
                module._buffers[name] = buffer


def _reset_peak() -> None:
    # Linux: writing 5 makes the kernel forget the peak resident size; elsewhere the peak is
    # unknown.
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak_resident_bytes() -> int | None:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
