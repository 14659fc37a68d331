"""Train a two-layer network on growing batches, or on fixed samples down to a certified optimum."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from whit.core.options import require
from whit.procedures.coordinate_descent.batches import Batches
from whit.procedures.coordinate_descent.group_descent import NOISE, Blocks, GroupDescent
from whit.procedures.coordinate_descent.neighbourhood import Neighbourhood
from whit.procedures.coordinate_descent.two_layer import TwoLayer

# The share of the time, or of the rounds, that each size of batch gets is the same.
SIZES = (10_000, 20_000, 40_000)


@dataclass(frozen=True)
class RoundReport:
    """What is known after a round.

    Attributes:
        round: blocks taken from the stream so far.
        samples: of the batch.
        loss: mean loss of the batch after its sweep.
        accepted: moves so far.
        candidates: scored moves so far.
        seconds: since the start, those before a resumption among them.
    """

    round: int
    samples: int
    loss: float
    accepted: int
    candidates: int
    seconds: float


def train_on_batches(  # noqa: PLR0913 - limits and reports, by name
    descent: GroupDescent,
    batches: Batches,
    *,
    sizes: Sequence[int] = SIZES,
    seconds: float | None = None,
    rounds: int | None = None,
    spent: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
    on_round: Callable[[RoundReport], None] | None = None,
) -> None:
    """Sweep once over each batch of a stream, the batches growing.

    With `rounds` alone the result depends on the seeds only; with `seconds` on the machine too. A
    descent and batches that were put back to a saved state (`load_state_dict`, `batches.taken`) go
    on where they were.

    Args:
        descent: is moved on.
        batches: where samples come from.
        sizes: samples of a batch, in turn; each gets the same share of the rounds or seconds.
        seconds: stop after this time, > 0.
        spent: part of the seconds that a descent which goes on has used already, >= 0.
        rounds: stop when so many blocks were taken from the stream, >= 1; a batch of k blocks takes
            about k / `batches.reuse`.
        clock: in seconds; `time.process_time` for a machine with other work.
        on_round: called after every round.

    Raises:
        SpecError: neither seconds nor rounds, or one that is out of range, or no sizes.
    """
    require(
        seconds is not None or rounds is not None,
        "Neither seconds nor rounds was given, so the training would not end. Give one of them.",
    )
    require(seconds is None or seconds > 0, f"seconds was given {seconds}; expected more than 0.")
    require(rounds is None or rounds >= 1, f"rounds was given {rounds}; expected 1 or more.")
    require(len(sizes) > 0, "sizes was given no size of a batch; give one, such as (5000,).")
    begin = clock()
    while True:
        past = spent + clock() - begin
        done = max(
            0.0 if seconds is None else past / seconds,
            0.0 if rounds is None else batches.taken / rounds,
        )
        if done >= 1:
            return
        descent.load(batches.next(sizes[int(done * len(sizes))]))
        descent.sweep()
        if on_round is not None:
            on_round(_report(descent, batches.taken, spent + clock() - begin))


def _report(descent: GroupDescent, rounds: int, seconds: float) -> RoundReport:
    tally = descent.tally
    return RoundReport(
        rounds,
        descent.network.samples,
        descent.loss,
        tally.accepted,
        tally.candidates,
        seconds,
    )


@dataclass(frozen=True)
class Certificate:
    """That no single move of a discrete weight lowers the loss of some samples.

    Attributes:
        best_change: of the mean loss by the best of all moves; no less than `-tolerance`.
        tolerance: what counted as rounding, in the units of the loss.
        candidates: moves that were scored exactly, in float64: all of them.
        loss: mean loss of the samples.
        seconds: that scoring all of them took.
        sweeps: by exact scores in float64 before it.
        accepted: moves that these sweeps made.
    """

    best_change: float
    tolerance: float
    candidates: int
    loss: float
    seconds: float
    sweeps: int
    accepted: int


def best_change(network: TwoLayer) -> tuple[float, int]:
    """Return the best change of the mean loss by one move, and how many moves were scored.

    All moves of both layers are scored, exactly.

    Args:
        network: loaded with samples.
    """
    hood = Neighbourhood(network)
    best = float(hood.last_layer().min())
    for group in range(len(network.groups)):
        best = min(best, float(hood.first_layer(group).changes.min()))
    return best, hood.candidates()


def descend_to_optimum(
    descent: GroupDescent,
    blocks: Blocks,
    *,
    tolerance: float = 1e-12,
    seconds: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
    on_sweep: Callable[[GroupDescent], None] | None = None,
) -> Certificate | None:
    """Descend on fixed samples until no single move lowers their loss, and certify that.

    Sweeps as the descent's options say come first, until one accepts nothing; then sweeps by exact
    scores of all moves in float64, at fixed scales. The loss never rises.

    Args:
        descent: is moved on.
        blocks: the samples, float64 (`Batches.all(torch.float64)`).
        tolerance: a change above `-tolerance` is rounding, >= 0; at least twice what the sweeps
            take for rounding at the loss, so that no move is left which they never make.
        seconds: give up after this time; None for never.
        clock: in seconds.
        on_sweep: called after every sweep with the descent that made it.

    Returns:
        The certificate, or None where the time was over before.
    """
    begin = clock()

    def in_time() -> bool:
        return seconds is None or clock() - begin < seconds

    network = descent.network
    descent.load(
        [(inputs.to(network.dtype), _as(target, network.dtype)) for inputs, target in blocks]
    )

    def swept(one: GroupDescent) -> int:
        accepted = one.sweep()
        if on_sweep is not None:
            on_sweep(one)
        return accepted

    while in_time() and swept(descent):
        pass
    options = replace(descent.options, adjacent=False, exact=True, least_gain=0.0, scales="fixed")
    exact = GroupDescent(network.to(torch.float64), options)
    exact.load([(inputs, _as(target, torch.float64)) for inputs, target in blocks])
    sweeps = 0
    while in_time():
        sweeps += 1
        if swept(exact):
            continue
        started = clock()
        change, count = best_change(exact.network)
        accepted = exact.tally.accepted
        rounding = max(tolerance, 2 * NOISE[torch.float64] * max(1.0, abs(exact.loss)))
        if change >= -rounding:
            spent = clock() - started
            return Certificate(change, rounding, count, exact.loss, spent, sweeps, accepted)
    return None


def _as(target: Tensor, dtype: torch.dtype) -> Tensor:
    return target.to(dtype) if target.is_floating_point() else target
