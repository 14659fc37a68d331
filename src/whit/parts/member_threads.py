"""Each member of a group on a thread of its own, forward and backward.

torch lets go of Python's lock in its kernels, and on the CPU a backward pass runs in the thread
that asks for it. So one autograd function runs all members in a pool, and its backward runs each
member's own backward in the pool. The rest of the training loop sees one output and one loss.

The number of `torch.set_num_threads` is a thread's own (seen with torch 2.13, for its loops and for
MKL); a new thread takes the last number that any thread has set. So it is 1 while the pool works,
which is what the pool's threads take over, and is put back after.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from whit.errors import WhitError

_Result = TypeVar("_Result")
_here = threading.local()


def run_in_threads(members: Sequence[nn.Module], inputs: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return the members' outputs, stacked; gradients flow to their parameters and the inputs.

    The values and the gradients of the parameters are those of the members one after the other
    at one thread, bit for bit.

    Args:
        members: on the CPU; no two share a parameter.
        inputs: for each member, what it is called with.

    Shapes: -> [members, ...].

    Raises:
        WhitError: a tensor is not on the CPU, or a member draws random numbers.
    """
    flat = [x for own in inputs for x in own]
    owned = [[p for p in m.parameters() if p.requires_grad] for m in members]
    parameters = [p for own in owned for p in own]
    elsewhere = {t.device.type for t in [*flat, *parameters]} - {"cpu"}
    if elsewhere:
        raise WhitError(
            f"A Group with way='threads' was given tensors on {', '.join(sorted(elsewhere))}; "
            "threads are for the CPU. Use way='one_by_one'."
        )
    counts = [len(own) for own in inputs]
    result: Tensor = _Threads.apply(  # type: ignore[no-untyped-call]
        list(members), counts, owned, *flat, *parameters
    )
    return result


def require_apart(members: Sequence[nn.Module]) -> None:
    """Refuse members that share a parameter or a buffer, which two threads would write at once.

    Raises:
        WhitError: names the tensor.
    """
    owner: dict[int, int] = {}
    for number, member in enumerate(members):
        for name, tensor in [*member.named_parameters(), *member.named_buffers()]:
            if owner.setdefault(id(tensor), number) != number:
                raise WhitError(
                    f"A Group with way='threads' has members {owner[id(tensor)]} and {number} that "
                    f"share '{name}'; two threads would write it at once. Give each its own, or "
                    "use way='one_by_one'."
                )


def threads_fit() -> bool:
    """Say whether members can run in the pool here and now.

    Dispatch modes (a counter of FLOPs) and automatic casts belong to the thread that opened them,
    and a pool that waits for itself would wait for ever; there members run one by one.
    """
    modes = torch._C._len_torch_dispatch_stack() + torch._C._len_torch_function_stack()
    return not (modes or torch.is_autocast_enabled("cpu") or getattr(_here, "in_pool", False))


def pool_size() -> int:
    """Return how many threads the pool has: the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Threads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        members: list[nn.Module],
        counts: list[int],
        owned: list[list[Tensor]],
        *tensors: Tensor,
    ) -> Tensor:
        needed = iter(ctx.needs_input_grad[3:])
        given = iter(tensors)
        inputs = [
            [next(given).detach().requires_grad_(next(needed)) for _ in range(n)] for n in counts
        ]

        def call(k: int) -> Tensor:
            with torch.enable_grad():
                output: Tensor = members[k](*inputs[k])
            _require_own(output, [*inputs[k], *owned[k]], k)
            return output

        with _no_random_numbers(members):
            outputs = _each(call, len(members))
        ctx.outputs, ctx.inputs, ctx.owned = outputs, inputs, owned
        return torch.stack([output.detach() for output in outputs])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        wanted = [
            [x for x in own if x.requires_grad] + parameters
            for own, parameters in zip(ctx.inputs, ctx.owned, strict=True)
        ]

        def call(k: int) -> list[Tensor | None]:
            if not wanted[k] or not ctx.outputs[k].requires_grad:
                return [None] * len(wanted[k])
            return list(
                torch.autograd.grad(ctx.outputs[k], wanted[k], gradient[k], allow_unused=True)
            )

        found = [iter(gradients) for gradients in _each(call, len(wanted))]
        for_inputs = [
            next(found[k]) if x.requires_grad else None
            for k, own in enumerate(ctx.inputs)
            for x in own
        ]
        return (None, None, None, *for_inputs, *(g for gradients in found for g in gradients))


def _require_own(output: Tensor, own: Sequence[Tensor], number: int) -> None:
    """Refuse an output that depends on another trained tensor: its gradient would be lost."""
    known = {id(t) for t in own}
    seen: set[Any] = set()
    ahead: list[Any] = [output.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in known:
            raise WhitError(
                f"Member {number} of a Group with way='threads' uses a trained tensor of shape "
                f"{list(leaf.shape)} that is no parameter of it, so the tensor would get no "
                "gradient. Make it a parameter of the member, or use way='one_by_one'."
            )
        ahead.extend(following for following, _ in node.next_functions)


def _each(call: Callable[[int], _Result], count: int) -> list[_Result]:
    """Return `call(0), call(1), ...`, each from a thread of the pool at one thread of torch."""

    def work(k: int) -> _Result:
        _here.in_pool = True
        torch.get_num_threads()  # a new thread takes the number over when it is first asked
        return call(k)

    threads = torch.get_num_threads()
    if threads != 1:
        torch.set_num_threads(1)
    try:
        futures = [_pool(os.getpid()).submit(work, k) for k in range(count)]
        wait(futures)
        return [future.result() for future in futures]
    finally:
        if threads != 1:
            torch.set_num_threads(threads)


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    # A forked process has none of its parent's threads, so it needs a pool of its own.
    return ThreadPoolExecutor(pool_size(), thread_name_prefix="whit-member")


@contextmanager
def _no_random_numbers(members: Sequence[nn.Module]) -> Iterator[None]:
    """Refuse members that draw: threads share one stream, so the order would be chance."""
    before = torch.get_rng_state()
    yield
    if not torch.equal(before, torch.get_rng_state()):
        torch.set_rng_state(before)
        drawing = [
            name
            for member in members
            for name, module in member.named_modules()
            if "Dropout" in type(module).__name__
        ]
        named = f" (its module '{drawing[0]}', it seems)" if drawing else ""
        raise WhitError(
            f"A member of a Group with way='threads' draws random numbers{named}. Threads share "
            "one stream of them, so the result would depend on chance. Use way='one_by_one', or "
            "'batched' for alike members."
        )
