"""A network whose weights are indices into finite sets of values.

    weight = scale * values[index]            (times the channel's own scale, where there is one)
    bias   = scale * values[bias_index]       (likewise; or real and fixed)

Reference: Date, Carothers, Mitchell, Hendler and Magdon-Ismail, "Training Deep Neural Networks with
Constrained Learning Parameters", 2020, arXiv 2009.00540. The scales are our addition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from whit.errors import SpecError
from whit.procedures.coordinate_descent.graph import layer_nodes, trace, whole_chain
from whit.procedures.coordinate_descent.start import StartRule, random_index
from whit.procedures.coordinate_descent.treatable import Discretisable, treatable_layers

Starting = Literal["random", "from_model"]
Biases = Literal["auto", "discrete", "keep"]
# A random start of small layers may be all zeros by chance; then another is drawn.
MOST_DRAWS = 100


@dataclass(eq=False)
class DiscreteLayer:
    """A layer whose weights take values of a finite set.

    Attributes:
        path: of the module in the model.
        module: the layer itself; `write_back` puts the weights into it.
        values: float64 [k], sorted, k from 2 to 256.
        index: uint8, the shape of the weight: which value each weight takes.
        bias_index: uint8 [out], which value each bias takes; None where the layer has no bias, or
            where `module.bias` is real and stays as it is.
        scale: > 0, multiplies the values of the layer.
        channel_scale: float64 [out], multiplies them per output channel; None for 1. Comes only
            from a trained model (`start="from_model"`), never from a random start.
    """

    path: str
    module: Discretisable
    values: Tensor
    index: Tensor
    bias_index: Tensor | None
    scale: float
    channel_scale: Tensor | None = None

    def row_scales(self) -> Tensor:
        """Return the scale of each output channel, float64 [out]."""
        if self.channel_scale is not None:
            return self.scale * self.channel_scale
        return torch.full((len(self.index),), self.scale, dtype=torch.float64)

    def weight(self) -> Tensor:
        """Return the real weights, float64, in the shape of `index`."""
        rows = self.row_scales().reshape(-1, *[1] * (self.index.dim() - 1))
        return rows * self.values[self.index.long()]

    def bias(self) -> Tensor | None:
        """Return the real biases, float64 [out]; None where the layer has none."""
        if self.bias_index is not None:
            return self.row_scales() * self.values[self.bias_index.long()]
        return None if self.module.bias is None else self.module.bias.detach().double()


@dataclass(eq=False)
class DiscreteNetwork:
    """A model and its discrete layers.

    Attributes:
        model: whose layers are written by `write_back`.
        layers: in the order of execution.
        stages: the modules that the input passes, in order, the layers among them, where the model
            is a chain; empty where it is not.
    """

    model: nn.Module
    layers: list[DiscreteLayer]
    stages: list[nn.Module] = field(default_factory=list)

    @classmethod
    def from_model(  # noqa: PLR0913 - how each layer starts, by name
        cls,
        model: nn.Module,
        *,
        values: object = "ternary",
        scales: float | str | Mapping[str, float] | None = None,
        biases: Biases = "auto",
        start: Starting = "random",
        skip: Sequence[str] = (),
        generator: torch.Generator | None = None,
    ) -> DiscreteNetwork:
        """Make the linear and convolution layers of a model discrete.

        The model is not changed before `write_back`.

        Args:
            model: takes one tensor; its layers are `nn.Linear` and `nn.Conv2d`.
            values: as `parts.levels.check_values` takes them; or a mapping from paths of layers to
                such, ternary for the others; or "own", the 2 to 256 values that each layer of
                a trained model holds already; or "auto", the own values of layers that hold so few,
                and ternary for the others.
            scales: of all layers, > 0, or by path. None: at a random start 1 / sqrt(fan in) and, in
                the last layer, 4 / sqrt(fan in), over the largest of the values; from a model
                fitted to each layer. "layer" and "channel" fit one scale for each layer or each
                output channel (from a model only).
            biases: "discrete" (from the layer's values), "keep" (real and fixed), or "auto":
                discrete but in layers that keep their own values.
            start: "random" draws every weight uniformly from the values; "from_model" takes the
                nearest to the model's.
            skip: paths of layers that stay real and fixed; a text is one path.
            generator: of the random start.

        Raises:
            SpecError: an option is out of range.
            NotApplicable: layers that cannot be treated, with the reason of each.
        """
        found = treatable_layers(model, skip)
        rule = StartRule(
            values, scales, biases, start, generator or torch.Generator().manual_seed(0)
        )
        rule.check(list(found))
        paths: dict[nn.Module, str] = {module: path for path, module in found.items()}
        steps = trace(model, paths)
        nodes = layer_nodes(steps, list(paths))
        order = [paths[steps.get_submodule(str(node.target))] for node in nodes]
        layers = []
        for path in order:
            begin = rule.start_of(path, found[path], last=path == order[-1])
            layers.append(
                DiscreteLayer(
                    path,
                    found[path],
                    begin.values,
                    begin.weights,
                    begin.biases,
                    begin.scale,
                    begin.channel_scale,
                )
            )
        network = cls(model, layers, whole_chain(steps))
        if start == "random" and network.dead_layers():
            network.restart(rule.generator, [layer.scale for layer in layers])
        return network

    def restart(self, generator: torch.Generator, scales: Sequence[float]) -> None:
        """Draw all discrete weights and biases anew, so that single moves lead somewhere.

        Args:
            generator: of the random numbers.
            scales: of the layers, > 0.
        """
        for _ in range(MOST_DRAWS):
            for layer, scale in zip(self.layers, scales, strict=True):
                layer.index = random_index(layer.index.shape, layer.values, generator)
                if layer.bias_index is not None:
                    layer.bias_index = random_index(layer.bias_index.shape, layer.values, generator)
                layer.scale = scale
            if not self.dead_layers():
                return

    def state_dict(self) -> list[dict[str, Any]]:
        """Return copies of the indices and the scales of all layers."""
        return [
            {
                "index": layer.index.clone(),
                "bias_index": None if layer.bias_index is None else layer.bias_index.clone(),
                "scale": layer.scale,
            }
            for layer in self.layers
        ]

    def load_state_dict(self, saved: Sequence[Mapping[str, Any]]) -> None:
        """Take back what `state_dict` returned.

        Args:
            saved: of a network with the same layers.
        """
        for layer, state in zip(self.layers, saved, strict=True):
            layer.index = state["index"].clone()
            layer.scale = state["scale"]
            if state["bias_index"] is not None:
                layer.bias_index = state["bias_index"].clone()

    def dead_layers(self) -> list[str]:
        """Return the layers of zeros where there are two or more, so that nothing can move."""
        dead = [layer.path for layer in self.layers if not bool(layer.weight().any())]
        return dead if len(dead) >= 2 else []

    def require_alive(self) -> None:
        """Refuse a start from which single moves lead nowhere.

        Raises:
            SpecError: two or more layers hold zeros only.
        """
        dead = self.dead_layers()
        if dead:
            raise SpecError(
                f"All weights of the layers {', '.join(dead)} are 0. Whichever single weight "
                "changes, the product of these layers stays 0, so only biases could ever move. "
                "Start from random values (start='random'), or from a model whose layers are not 0."
            )

    def write_back(self) -> None:
        """Put `scale * values[index]` into the modules, in their own type of number."""
        with torch.no_grad():
            for layer in self.layers:
                layer.module.weight.copy_(layer.weight())
                bias = layer.bias()
                if layer.bias_index is not None and bias is not None:
                    assert layer.module.bias is not None
                    layer.module.bias.copy_(bias)
