"""What the activation modules of a model work on: maps, vectors, sequences; found by running it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from whit.parts.activation_functions import activation_uses


@dataclass(frozen=True)
class ActivationMap:
    """What one activation module works on.

    Attributes:
        path: of the module.
        module: itself.
        shapes: of one sample's values at each of its calls.
        tokens: axis 1 counts positions of a sequence, not channels.
    """

    path: str
    module: nn.Module
    shapes: list[tuple[int, ...]]
    tokens: bool

    def unfit(self, smallest_map: int) -> str:
        """Return why it gets no threshold of its own, "" where it can."""
        if not self.shapes:
            return "is not called with the example"
        if len({shape[0] for shape in self.shapes}) > 1:
            return "is called with different numbers of channels; give each place its own module"
        if any(len(shape) < 2 for shape in self.shapes):
            return "works on vectors, which have no map to take statistics over"
        if self.tokens and any(len(shape) == 2 for shape in self.shapes):
            return "works on vectors of a sequence, which are no channels"
        values = min(math.prod(shape[1:]) for shape in self.shapes)
        if values < smallest_map:
            return f"works on maps of {values} value{'s' * (values > 1)}, below {smallest_map}"
        return ""


def activation_maps(
    model: nn.Module, kinds: tuple[type[nn.Module], ...], inputs: tuple[Tensor, ...]
) -> list[ActivationMap]:
    """Run a model once in evaluation mode and return what its activation modules work on.

    Args:
        model: any module.
        kinds: of modules that are activations.
        inputs: what it is called with.

    Raises:
        WhitError: the model fails on the inputs.
    """
    tokens = not any(isinstance(module, nn.Conv1d) for module in model.modules())
    found = [
        ActivationMap(path, module, [], tokens)
        for path, module in model.named_modules()
        if isinstance(module, kinds)
    ]
    handles = [
        one.module.register_forward_hook(
            lambda module, given, output, one=one: one.shapes.append(tuple(output.shape[1:]))
        )
        for one in found
    ]
    try:
        activation_uses(model, inputs)  # for its one undisturbed forward call
    finally:
        for handle in handles:
            handle.remove()
    return found
