"""Where a run computes, and how it talks to the other processes of the same run.

World 1 is the trivial case and is used everywhere; under `torchrun` each process has its rank,
and only rank 0 writes and measures.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import torch
from torch import Tensor

from whit.errors import SettingsError


@dataclass
class Device:
    """One process of a run.

    Attributes:
        rank: number of this process, 0 <= rank < world.
        world: number of processes.
        backend: "gloo", or "" for world 1.
        name: torch device of tensors and models, such as "cpu" or "cuda".
        exchanged_bytes: bytes this process has sent so far.
    """

    rank: int = 0
    world: int = 1
    backend: str = ""
    name: str = "cpu"
    exchanged_bytes: int = field(default=0, compare=False)

    @classmethod
    def from_environment(cls, name: str = "cpu") -> Device:
        """Join the processes that `torchrun` started, or be alone without it."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world == 1:
            return cls(name=name)
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group("gloo")
        return cls(torch.distributed.get_rank(), world, "gloo", name)

    @property
    def torch(self) -> torch.device:
        """The torch device.

        Raises:
            SettingsError: the name is no device, or the device is not on this machine.
        """
        try:
            device = torch.device(self.name)
        except RuntimeError:
            raise SettingsError(
                f"Device '{self.name}' was asked for; expected 'cpu' or 'cuda'."
            ) from None
        if device.type == "cuda" and not torch.cuda.is_available():
            raise SettingsError(
                "Device 'cuda' was asked for, but torch sees no GPU here. Use 'cpu'."
            )
        return device

    @property
    def writes(self) -> bool:
        """Whether this process writes files and measures: rank 0 alone."""
        return self.rank == 0

    def exchange(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Gather each tensor from all processes; the bytes sent are charged.

        Shapes: each [...] -> [world, ...], in rank order.
        """
        if self.world == 1:
            return [t.unsqueeze(0) for t in tensors]
        gathered = []
        for tensor in tensors:
            parts = [torch.empty_like(tensor) for _ in range(self.world)]
            torch.distributed.all_gather(parts, tensor.contiguous())
            gathered.append(torch.stack(parts))
            self.exchanged_bytes += tensor.nbytes * (self.world - 1)
        return gathered

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite the tensors with those of rank 0; rank 0 is charged for what it sends."""
        if self.world == 1:
            return
        for tensor in tensors:
            torch.distributed.broadcast(tensor, src=0)
            if self.rank == 0:
                self.exchanged_bytes += tensor.nbytes * (self.world - 1)

    def barrier(self, timeout_seconds: float = 600.0) -> None:
        """Wait until all processes are here, at most this long."""
        if self.world > 1:
            torch.distributed.monitored_barrier(timeout=timedelta(seconds=timeout_seconds))
