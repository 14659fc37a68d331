"""Which way a group runs fastest: measured on copies, so that nothing changes."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whit.errors import WhitError

WARM_UP, ROUNDS = 1, 5
Run = Callable[[Sequence[nn.Module], tuple[Tensor, ...]], Tensor]


@dataclass(frozen=True)
class ChosenWay:
    """What a measurement said.

    Attributes:
        way: the fastest.
        milliseconds: of each way that could run, the median of a forward and backward pass.
        refused: of each way that could not, the reason.
        inputs: shapes of the batch that was measured.
        threads: what torch was allowed.
    """

    way: str
    milliseconds: Mapping[str, float]
    refused: Mapping[str, str]
    inputs: tuple[tuple[int, ...], ...]
    threads: int


def fastest_way(
    members: Sequence[nn.Module], inputs: tuple[Tensor, ...], ways: Mapping[str, Run]
) -> ChosenWay:
    """Time a forward and backward pass of every way, in turns, on copies of the members.

    Parameters, gradients, buffers and torch's random streams stay as they are. The optimiser's
    step is left out: it is the same for all ways.

    Args:
        members: in training mode.
        inputs: a training batch.
        ways: name to `(members, inputs) -> outputs`; a `WhitError` says that it cannot run. The
            first one can always run, and wins ties.
    """
    copies = {name: _copies(members) for name in ways}
    given = tuple(x.detach() for x in inputs)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    refused: dict[str, str] = {}
    devices = {x.device.index for x in inputs if x.is_cuda}
    with torch.random.fork_rng(devices=devices):
        for number in range(WARM_UP + ROUNDS):
            # The order alternates, so that no way always follows the same other one.
            for name in list(ways)[:: 1 if number % 2 == 0 else -1]:
                if name in refused:
                    continue
                try:
                    took = _seconds(ways[name], copies[name], given)
                except WhitError as error:
                    if name == next(iter(ways)):
                        raise
                    refused[name] = str(error)
                    continue
                seconds[name].append(took)
    medians = {
        name: round(1000 * statistics.median(took[WARM_UP:]), 4)
        for name, took in seconds.items()
        if name not in refused
    }
    shapes = tuple(tuple(x.shape) for x in inputs)
    best = min(medians, key=lambda name: medians[name])
    return ChosenWay(best, medians, refused, shapes, torch.get_num_threads())


def _copies(members: Sequence[nn.Module]) -> list[nn.Module]:
    copies = copy.deepcopy(list(members))
    for module in (m for member in copies for m in member.modules()):
        # What watches the members must not see the trial.
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks):
            hooks.clear()
    return copies


def _seconds(run: Run, members: Sequence[nn.Module], inputs: tuple[Tensor, ...]) -> float:
    for member in members:
        for parameter in member.parameters():
            parameter.grad = None
    begin = time.perf_counter()
    output = run(members, inputs)
    if output.requires_grad:
        output.square().mean().backward()  # type: ignore[no-untyped-call]
    if output.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begin
