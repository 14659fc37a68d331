"""The last block of a ternary network: rounded at once, or fitted to labels."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from whit.errors import NotApplicable
from whit.parts.firing_blocks import Block, blocks, replace_module, ternary_matrix
from whit.parts.ternary_classes import ClassNeurons
from whit.parts.ternary_layers import rounded_weight
from whit.parts.ternary_search import SearchOptions


def round_last(block: Block) -> None:
    """Make the last block ternary at once, in place: rounded weights, biases as whole offsets."""
    weight, offset = rounded_classes(block)
    replace_module(block.matrix, ternary_matrix(block.layer, weight, offset))


def rounded_classes(block: Block) -> tuple[Tensor, Tensor]:
    """Return the rounded weights of the last block, and its biases in units of their scale."""
    layer = block.layer
    weight, alpha = rounded_weight(layer.weight)
    bias = torch.zeros_like(alpha) if layer.bias is None else layer.bias.detach().cpu().double()
    return weight, (bias / alpha).round()


class LastFit:
    """Fits the last block to labels; it is ternary from the start.

    Args:
        model: whose last block is still real; it is rounded at once, in place.
        inputs: what the last block reads, whole numbers [columns, samples].
        labels: int64 [samples].
        options: of each neuron's search.

    Attributes:
        neurons: of the classes.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: NDArray[np.int16],
        labels: Tensor,
        options: SearchOptions | None = None,
    ) -> None:
        """Keep the teacher's weights and round the block."""
        block = blocks(model)[-1]
        layer = block.layer
        if not isinstance(layer, nn.Linear):
            raise NotApplicable(
                f"The last layer '{block.matrix.path}' is a {type(layer).__name__}; only the sums "
                "of a Linear layer are class scores of a sample. Use last='real'."
            )
        self.path = block.matrix.path
        weight = layer.weight.detach().cpu().double().numpy()
        self.neurons = ClassNeurons(weight, inputs, labels.cpu().numpy(), options)
        self._rounded = rounded_classes(block)
        round_last(block)
        self._layer = blocks(model)[-1].layer

    def start(self, exact: bool = False) -> float:
        """Begin, put the neurons into the model, and return the accuracy.

        Neurons begin alone, or as the teacher's rounded weights, whichever has more training
        samples right; of equals the teacher's, which were trained for more than that.

        Args:
            exact: the teacher's weights are ternary: only the offsets are fitted.
        """
        weight, offset = self._rounded
        self.neurons.use(weight.numpy(), offset.numpy())
        accuracy = self.neurons.fit_offsets()
        if not exact:
            rounded = self.neurons.weight, self.neurons.offset
            self.neurons.start_alone()
            if self.neurons.accuracy() <= accuracy:
                self.neurons.use(*rounded)
        self._put()
        return self.neurons.accuracy()

    def sweep(self) -> float:
        """Fit each neuron anew among the others, put them into the model; return the accuracy."""
        accuracy = self.neurons.sweep()
        self._put()
        return accuracy

    def state(self) -> dict[str, Tensor]:
        """Return weights and offsets, for a checkpoint."""
        weight, offset = self.neurons.weight, self.neurons.offset
        return {"weight": torch.from_numpy(weight.copy()), "offset": torch.from_numpy(offset)}

    def go_on(self, state: dict[str, Tensor]) -> None:
        """Take back a `state`."""
        self.neurons.use(state["weight"].cpu().numpy(), state["offset"].cpu().numpy())
        self._put()

    def _put(self) -> None:
        with torch.no_grad():
            self._layer.weight.copy_(torch.from_numpy(self.neurons.weight))
            assert self._layer.bias is not None
            self._layer.bias.copy_(torch.from_numpy(self.neurons.offset))
