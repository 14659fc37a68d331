"""How many threads training uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL_STEP_MACS = 40_000_000


@contextmanager
def suitable_threads(step_macs: int) -> Iterator[None]:
    """Use one thread for small steps: a second costs more in waiting than it brings.

    Args:
        step_macs: multiply-accumulates of one forward call on a batch.
    """
    threads = torch.get_num_threads()
    if step_macs < SMALL_STEP_MACS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
