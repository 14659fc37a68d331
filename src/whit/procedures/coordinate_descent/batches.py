"""Batches of augmented samples for coordinate descent: a window over a stream of blocks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import torch
from torch import Tensor

from whit.core.data import Augment
from whit.core.options import require
from whit.procedures.coordinate_descent.finite import require_finite
from whit.procedures.coordinate_descent.input_block import InputBlock, InputLevels

BLOCK = 5000
LEVELS_FROM = 10_000


class Batches:
    """A stream of blocks of samples; a batch is the last few of them.

    Each block is a part of a random order of all samples, augmented anew, and depends on the seed
    and its number only. With `reuse` above 1 a batch shares blocks with the one before, which saves
    the time to make them; but what is seen again is soon learnt by heart.

    Args:
        inputs: raw, [samples, ...].
        target: int64 [samples], or [samples, outputs] numbers.
        front: what the network does before its first layer: [batch, ...] -> [batch, columns].
        bias: whether the first layer has a discrete bias.
        augment: batched code for raw float inputs, or None.
        block: samples of a block, >= 1.
        reuse: batches that a block takes part in at most, >= 1.
        seed: of orders and augmentation.

    Attributes:
        levels: of the inputs after `front`, found on the first `LEVELS_FROM` samples; scores of
            blocks whose inputs lie elsewhere are predictions.
        taken: blocks that were taken from the stream.
    """

    def __init__(  # noqa: PLR0913 - the parts of a data source, all by name
        self,
        inputs: Tensor,
        target: Tensor,
        front: Callable[[Tensor], Tensor],
        *,
        bias: bool,
        augment: Augment | None = None,
        block: int = BLOCK,
        reuse: int = 1,
        seed: int = 0,
    ) -> None:
        """Find the levels of the inputs."""
        require(reuse >= 1, f"reuse was given {reuse}; expected a number of batches, 1 or more.")
        require(block >= 1, f"block was given {block}; expected a number of samples, 1 or more.")
        self.inputs, self.target, self.front, self.bias = inputs, target, front, bias
        self.augment, self.reuse, self.seed = augment, reuse, seed
        self.block = min(block, len(target))
        require_finite(inputs, "input")
        require_finite(target, "target")
        with torch.no_grad():
            # A copy, since modules before the first layer may work in place.
            some = front(inputs[:LEVELS_FROM].float().clone())
        self.levels = InputLevels.of(some, grid=2)
        self.window: dict[int, tuple[InputBlock, Tensor]] = {}
        self.taken = 0

    def next(self, size: int) -> list[tuple[InputBlock, Tensor]]:
        """Take new blocks; return the last `size` samples in whole blocks, or all so far.

        Never more than one pass over the samples.
        """
        count = max(1, min(size, len(self.target)) // self.block)
        self.taken += max(1, math.ceil(count / self.reuse))
        numbers = range(max(0, self.taken - count), self.taken)
        self.window = {n: self.window.get(n) or self._made(n) for n in numbers}
        return list(self.window.values())

    def all(self, dtype: torch.dtype = torch.float32) -> list[tuple[InputBlock, Tensor]]:
        """Return all samples once, in blocks, as they are."""
        every = torch.split(torch.arange(len(self.target)), self.block)
        return [self._block(chosen, None, dtype) for chosen in every]

    def _made(self, number: int) -> tuple[InputBlock, Tensor]:
        in_pass = max(1, len(self.target) // self.block)
        order = _generator(self.seed, "order", number // in_pass)
        chosen = torch.randperm(len(self.target), generator=order)
        begin = number % in_pass * self.block
        noise = _generator(self.seed, "augment", number)
        return self._block(chosen[begin : begin + self.block], noise, torch.float32)

    def _block(
        self, chosen: Tensor, noise: torch.Generator | None, dtype: torch.dtype
    ) -> tuple[InputBlock, Tensor]:
        raw = self.inputs[chosen]
        if not raw.is_floating_point():
            raw = raw.float()
        if self.augment is not None and noise is not None:
            raw = self.augment(raw, noise)
        with torch.no_grad():
            columns = self.front(raw).to(dtype)
        target = self.target[chosen]
        target = target.t().to(dtype).contiguous() if target.dim() > 1 else target
        values, base = self.levels.values, self.levels.base
        return InputBlock(columns, values, base, self.bias), target


def _generator(*numbers: object) -> torch.Generator:
    digest = hashlib.sha256(repr(numbers).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:6], "big"))
