"""What the layers of a network gave in its last call, of a student and of a frozen teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from whit.core.data import Batch
from whit.core.options import nearest, require


class LayerOutputs:
    """Keeps what some layers of a model gave in its last call.

    Args:
        model: any module.
        paths: of the layers.

    Attributes:
        outputs: by path, with their graph.

    Raises:
        SpecError: the model has no layer of this path.
    """

    def __init__(self, model: nn.Module, paths: Sequence[str]) -> None:
        """Register on the layers."""
        self.outputs: dict[str, Tensor] = {}
        known = dict(model.named_modules())
        for path in paths:
            require(
                path in known and path != "",
                f"layers names '{path}', which {type(model).__name__} does not have. "
                f"{nearest(path, [name for name in known if name])}",
            )
        self._handles = [known[path].register_forward_hook(self._keeper(path)) for path in paths]

    def _keeper(self, path: str) -> Any:
        def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
            self.outputs[path] = output

        return keep

    def close(self) -> None:
        """Take the hooks off the layers and forget."""
        for handle in self._handles:
            handle.remove()
        self.outputs = {}


class WatchedTeacher:
    """Answers a batch once, however many hooks ask, and keeps the features of that call.

    Args:
        teacher: is frozen and put into evaluation mode.
        paths: of the layers whose features are wanted.
    """

    def __init__(self, teacher: nn.Module, paths: Sequence[str]) -> None:
        """Freeze the teacher."""
        self.teacher = teacher.eval().requires_grad_(False)
        self.watch = LayerOutputs(teacher, paths)
        self._asked: Batch | None = None
        self._scores: Tensor | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """Return the class scores of a batch."""
        if self._scores is None or batch is not self._asked:
            with torch.no_grad():
                self._scores = self.teacher(*batch.inputs)
            self._asked = batch
        return self._scores

    def features(self, batch: Batch) -> dict[str, Tensor]:
        """Return the features of a batch by path."""
        self(batch)
        return self.watch.outputs

    def close(self) -> None:
        """Let go of teacher and batch."""
        self.watch.close()
        self._asked = self._scores = None
