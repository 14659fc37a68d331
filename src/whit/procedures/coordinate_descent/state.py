"""A discrete network on its data: cached values, the true loss, moves made and undone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from whit.errors import NotApplicable, SpecError
from whit.procedures.coordinate_descent.channels import BatchNorm, ChannelNorm, channel_segment
from whit.procedures.coordinate_descent.costs import Cost
from whit.procedures.coordinate_descent.criteria import PerSample, criterion_of, error_of
from whit.procedures.coordinate_descent.graph import chain, layer_nodes, trace
from whit.procedures.coordinate_descent.moves import Moves, levels_of, set_levels, unit_of
from whit.procedures.coordinate_descent.network import DiscreteNetwork
from whit.procedures.coordinate_descent.places import Place
from whit.procedures.coordinate_descent.propagation import Propagation, Values
from whit.procedures.coordinate_descent.working_copy import (
    as_float64,
    as_samples,
    as_target,
    working_copy,
)

DEFAULT_MEMORY_BYTES = 256 * 2**20
MEASURED_AT_ONCE = 1000
FLOAT64_BYTES = 8


class NetworkState:
    """A discrete network on some data: the values of its layers, its loss, and moves made for good.

    Args:
        network: whose indices `apply` changes. Its model is not touched.
        inputs: [samples, ...].
        target: [samples] classes, or numbers of the outputs' shape.
        criterion: see `criteria.criterion_of`.
        costs: are added to the mean loss.
        batch_statistics: batch norm by the statistics of these samples, anew for each candidate,
            instead of the stored ones.
        memory_bytes: limit for what is worked on at once, in bytes: candidates, and values with
            their gradients. The caches, samples times all units, come on top, and one channel of
            all samples is the least.

    Attributes:
        loss: the mean loss and the costs.
        candidates: how many moves have been scored.
        macs: multiply-accumulates spent so far.

    Raises:
        NotApplicable: the model cannot be followed, or samples depend on each other.
        SpecError: inputs and targets differ in number, or do not fit the model, or a number is not
            finite.
    """

    def __init__(  # noqa: PLR0913 - data, objective and limits, by name after the data
        self,
        network: DiscreteNetwork,
        inputs: Tensor,
        target: Tensor,
        criterion: str | PerSample = "cross_entropy",
        *,
        costs: Sequence[Cost] = (),
        batch_statistics: bool = False,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
    ) -> None:
        """Make the working copy and run it once."""
        self.network = network
        self.inputs, self.target = as_samples(inputs, target)
        self.criterion = criterion_of(criterion, len(target))
        self.costs = costs
        self.memory_bytes = memory_bytes
        self.candidates = self.macs = 0
        model = working_copy(network.model, batch_statistics)
        self._norms = [(p, m) for p, m in model.named_modules() if isinstance(m, ChannelNorm)]
        self.modules = {la.path: model.get_submodule(la.path) for la in network.layers}
        steps = trace(model, {module: path for path, module in self.modules.items()})
        nodes = layer_nodes(steps, list(self.modules.values()))
        self.propagation = Propagation(steps, nodes)
        self.places = [
            Place(n, layer, cast("nn.Linear | nn.Conv2d", self.modules[layer.path]), node)
            for n, (layer, node) in enumerate(zip(network.layers, nodes, strict=True))
        ]
        self.values: Values = {}
        self.loss = 0.0
        self.forward_macs = self._forward_macs()
        self.refresh()
        self._find_segments()
        self._require_apart()

    def _forward_macs(self) -> int:
        try:
            return self.propagation.forward_macs(self.inputs[:1])
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]
            floats = self.inputs.is_floating_point()
            advice = "in the shape of its first layer" if floats else "as floats: x.float()"
            raise SpecError(
                f"The model {type(self.network.model).__name__} cannot take inputs of "
                f"{self.inputs.dtype} {list(self.inputs.shape)} ({reason}). Give them {advice}."
            ) from error

    @property
    def output(self) -> Tensor:
        """The model's output for all samples, float64."""
        return self.propagation.output(self.values)

    def error(self) -> float:
        """Return the share of wrong classes, or the mean squared error of numbers."""
        return error_of(self.output, self.target)

    def refresh(self) -> float:
        """Run everything anew from the indices; return by how much the loss had drifted."""
        before = self.loss
        for place in self.places:
            place.load()
        with torch.no_grad():
            for norm in self.propagation.norms:
                norm.record = True
            self.values = self.propagation.forward(self.inputs)
            for norm in self.propagation.norms:
                norm.record = False
        self.macs += len(self.target) * self.forward_macs
        self.criterion.check(self.output, self.target)
        self.loss = self._present_loss()
        self._require_finite_loss()
        return abs(self.loss - before)

    def _require_finite_loss(self) -> None:
        if math.isfinite(self.loss):
            return
        for name, numbers in (("output", self.output), ("loss", self.sample_losses)):
            wrong = int((~numbers.isfinite()).sum())
            if wrong:
                raise SpecError(
                    f"{wrong:,} of {numbers.numel():,} {name} values are not finite, at finite "
                    "inputs and weights. Give smaller inputs or scales, or mend the model or the "
                    "criterion."
                )
        raise SpecError("The cost of the present weights is infinite; start where it is finite.")

    def _present_loss(self) -> float:
        self.sample_losses = self.criterion.losses(self.output, self.target)
        return float(self.sample_losses.mean()) + sum(c.value(self.network) for c in self.costs)

    def _find_segments(self) -> None:
        steps = self.propagation.steps
        ends = [*[p.node for p in self.places[1:]], self.propagation.output_node]
        for place, end in zip(self.places, ends, strict=True):
            behind = place.number + 1 if place.number + 1 < len(self.places) else None
            spatial = 1 if place.linear else 3
            axes = self.values[place.node].dim() - 1 - spatial
            segment = channel_segment(chain(steps, place.node, end), place.module, axes)
            if segment is None or not self._fits(place, segment.flattened, behind):
                continue
            place.segment, place.following = segment, behind

    def _fits(self, place: Place, flattened: bool, behind: int | None) -> bool:
        """Say whether channel i of a layer is channel (or block) i of what follows."""
        if behind is None:
            return place.linear and self.output.dim() == 2
        following = self.places[behind]
        return following.linear == (place.linear or flattened)

    def _require_apart(self) -> None:
        """Refuse models in which a sample's output depends on the other samples.

        Raises:
            NotApplicable: samples get other outputs where others follow them in the batch.
        """
        first = self.places[0]
        value = self.values[first.node]
        both = torch.cat([value, 1.5 * value.flip(0) + 1])
        try:
            with torch.no_grad():
                output = self.propagation.onward(first.node, both, self.values, 2)
            same = torch.allclose(output[: len(value)], self.output, rtol=1e-9)
        except RuntimeError:  # shapes that hold the number of samples
            same = False
        if not same:
            raise NotApplicable(
                f"In {type(self.network.model).__name__} the output of a sample depends on the "
                "other samples of the batch, or on their number; coordinate descent scores many "
                "candidates in one batch. Write the forward so that samples stay apart."
            )

    @contextmanager
    def tried(self, moves: Moves) -> Iterator[None]:
        """Make moves for the time of a block, then undo them to the last bit."""
        values, loss, sample_losses = self.values, self.loss, self.sample_losses
        undo = self.apply(moves)
        try:
            yield
        finally:
            set_levels(self.network, undo)
            for number in undo.layers():
                self.places[number].load()
            self.values, self.loss, self.sample_losses = values, loss, sample_losses

    def trial(self, moves: Moves) -> float:
        """Return the true loss after all moves together; nothing is changed."""
        self.candidates += 1
        with self.tried(moves):
            return self.loss

    def apply(self, moves: Moves) -> Moves:
        """Make the moves, with their true loss; return those that undo them."""
        undo = set_levels(self.network, moves)
        self.follow(moves, undo)
        return undo

    def follow(self, moves: Moves, undo: Moves) -> None:
        """Bring values and loss up to moves that have just been made in the network's indices.

        Args:
            moves: at different positions.
            undo: the same positions with the levels before.
        """
        first = self.places[min(moves.layers())]
        with torch.no_grad():
            if self._one_unit(moves):
                unit = int(unit_of(first.layer, moves.position[:1]))
                shift = self._shift_together(first, moves, undo.level)
                first.load(unit)
                value = self.values[first.node].clone()
                first.channel(value, unit).add_(shift)
                self.values = self.propagation.forward_from(first.node, value, self.values)
                self.macs += len(self.target) * self._macs_after(first)
            else:
                for number in moves.layers():
                    self.places[number].load()
                self.values = self.propagation.forward(self.inputs)
                self.macs += len(self.target) * self.forward_macs
        self.loss = self._present_loss()

    def measure(self, inputs: Tensor, target: Tensor) -> tuple[float, float]:
        """Return mean loss and error on other samples, by the stored statistics of batch norms.

        Shapes: inputs [samples, ...], target [samples, ...]. Costs are not part of it.
        """
        batch = [norm.batch for norm in self.propagation.norms]
        for norm in self.propagation.norms:
            norm.batch = norm.norm.running_mean is None
        outputs = []
        try:
            with torch.no_grad():
                for start in range(0, len(inputs), MEASURED_AT_ONCE):
                    part = as_float64(inputs[start : start + MEASURED_AT_ONCE])
                    outputs.append(self.propagation.output(self.propagation.forward(part)))
        finally:
            for norm, was in zip(self.propagation.norms, batch, strict=True):
                norm.batch = was
        output, target = torch.cat(outputs), as_target(target)
        return float(self.criterion.losses(output, target).mean()), error_of(output, target)

    def _one_unit(self, moves: Moves) -> bool:
        layers = moves.layers()
        if len(layers) != 1:
            return False
        units = unit_of(self.network.layers[layers[0]], moves.position)
        return bool((units == units[0]).all())

    def _macs_after(self, place: Place) -> int:
        return self.propagation.macs_after(place.node, self.values[place.node], self.values)

    def _shift(self, place: Place, moves: Moves, before: Tensor | None = None) -> Tensor:
        """Return what each move adds to its channel: [moves, samples, *places].

        Args:
            place: of the layer.
            moves: within it.
            before: levels before the moves; by default those in the network.
        """
        layer, values = place.layer, place.layer.values
        if before is None:
            before = levels_of(layer, moves.position)
        step = values[moves.level] - values[before]
        step = step * layer.row_scales()[unit_of(layer, moves.position)]
        columns = self.columns(place, moves.position)
        return columns.mul_(step.reshape(-1, *[1] * (columns.dim() - 1)))

    def _shift_together(self, place: Place, moves: Moves, before: Tensor | None = None) -> Tensor:
        """Return what all moves add to their one channel: [samples, *places].

        Args:
            place: of the layer.
            moves: within one unit.
            before: levels before the moves; by default those in the network.
        """
        total: Tensor | None = None
        count = self.channels_at_once(place)
        for begin in range(0, len(moves), count):
            part = slice(begin, begin + count)
            old = None if before is None else before[part]
            shift = self._shift(place, moves.take(part), old).sum(0)
            total = shift if total is None else total.add_(shift)
        assert total is not None
        return total

    def channels_at_once(self, place: Place) -> int:
        """Return how many copies of one channel of all samples `memory_bytes` holds, >= 1."""
        own = self.propagation.sizes[place.node] / place.layer.index.shape[0]
        return max(1, int(self.memory_bytes / (FLOAT64_BYTES * own * len(self.target))))

    def parts_with_gradients(self, place: Place | None = None) -> Iterator[slice]:
        """Yield parts of the samples whose values `memory_bytes` holds with their gradients.

        All samples at once where batch norms use the statistics of the samples.

        Args:
            place: only what is behind this layer is run; None for everything.
        """
        sizes, samples = self.propagation.sizes, len(self.target)
        nodes = sizes if place is None else [place.node, *self.propagation.dependents[place.node]]
        numbers = 2 * sum(sizes.get(node, 0.0) for node in nodes)
        size = max(1, int(self.memory_bytes / (FLOAT64_BYTES * numbers)))
        size = samples if self.propagation.batchwise else min(size, samples)
        for begin in range(0, samples, size):
            yield slice(begin, min(begin + size, samples))

    def charge(self, place: Place, forwards: float) -> None:
        """Charge so many forward calls of what is behind a layer, on all samples."""
        self.macs += int(forwards * len(self.target) * self._macs_after(place))

    def columns(self, place: Place, position: Tensor) -> Tensor:
        """Return what a change by 1 at each position adds to its channel; see `Place.columns`."""
        return place.columns(self._input(place), position)

    def _input(self, place: Place) -> Tensor:
        held: Tensor = self.values[place.node.all_input_nodes[0]]
        return held

    def uses(self) -> list[int]:
        """Return how often a weight of each layer is used a sample: 1, or once for each place."""
        sizes = self.propagation.sizes
        return [round(sizes[place.node] / len(place.layer.index)) for place in self.places]

    def write_back(self) -> None:
        """Put the weights into the network's model, and the statistics of its batch norms."""
        self.network.write_back()
        norms = dict(self._norms)
        for path, module in self.network.model.named_modules():
            if path in norms and isinstance(module, BatchNorm):
                module.load_state_dict(norms[path].norm.state_dict())
