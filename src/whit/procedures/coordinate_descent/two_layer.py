"""A network of two discrete layers, with what is needed to score all moves of a unit at once.

    pre = inputs W1' + b1      hidden = activation(pre)      logits = W2 hidden + b2

Both weights are scale * values[index]. The state of a batch is kept in blocks of samples and groups
of hidden units, each contiguous, so that the work on a group stays in the cache.

Reference: Date et al. 2020, arXiv 2009.00540: coordinate descent. Blocks and groups are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from whit.errors import SpecError
from whit.procedures.coordinate_descent.input_block import InputBlock
from whit.procedures.coordinate_descent.network import DiscreteLayer, DiscreteNetwork
from whit.procedures.coordinate_descent.stages import Elementwise, split_stages

GROUP = 32
CRITERIA = ("cross_entropy", "mse")


@dataclass(eq=False)
class Weights:
    """One discrete layer: real weight = scale[:, None] * values[index].

    Attributes:
        values: float64 [k], ascending.
        index: int64 [out, in]; the last column is the bias where `bias` is set.
        scale: float64 [out], > 0.
        bias: whether the last column is a discrete bias.
        fixed: real bias [out] that stays as it is, or None.
    """

    values: Tensor
    index: Tensor
    scale: Tensor
    bias: bool
    fixed: Tensor | None = None

    def real(self, dtype: torch.dtype) -> Tensor:
        """Return the weights, [out, in]."""
        return (self.scale[:, None] * self.values[self.index]).to(dtype)

    @classmethod
    def of(cls, layer: DiscreteLayer) -> Weights:
        """Return a copy of a layer's weights and bias."""
        index = layer.index.long()
        if layer.bias_index is not None:
            index = torch.cat([index, layer.bias_index.long()[:, None]], 1)
        fixed = None if layer.bias_index is not None else layer.bias()
        values = layer.values.double()
        return cls(values, index, layer.row_scales(), layer.bias_index is not None, fixed)

    def write_to(self, layer: DiscreteLayer) -> None:
        """Put indices and scale into a layer."""
        inputs = layer.index.shape[1]
        layer.index = self.index[:, :inputs].to(torch.uint8)
        if layer.bias_index is not None:
            layer.bias_index = self.index[:, inputs].to(torch.uint8)
        if layer.channel_scale is None:
            layer.scale = float(self.scale[0])
        else:
            layer.scale *= float(self.scale[0] / layer.row_scales()[0])


@dataclass(eq=False)
class Rows:
    """Some samples and what the network makes of them.

    Attributes:
        inputs: transposed, with their levels.
        target: int64 [samples], classes; or [outputs, samples] for "mse".
        pre: pre-activations, [samples, units] for each group.
        hidden: activations, likewise.
        logits: [outputs, samples].
    """

    inputs: InputBlock
    target: Tensor
    pre: list[Tensor] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)
    logits: Tensor = field(default_factory=lambda: torch.zeros(()))


class Scratch:
    """Memory that is used again and again."""

    def __init__(self) -> None:
        """Begin with none."""
        self.kept: dict[str, Tensor] = {}

    def like(self, name: str, wanted: Tensor) -> Tensor:
        """Return a tensor of the shape and type of another, with any contents.

        Args:
            name: the same name gives the same memory.
            wanted: gives shape and type.
        """
        kept = self.kept.get(name)
        if kept is None or kept.dtype != wanted.dtype or len(kept) < wanted.numel():
            kept = self.kept[name] = wanted.new_empty(wanted.numel())
        return kept[: wanted.numel()].view(wanted.shape)


class TwoLayer:
    """Two discrete layers around an elementwise activation.

    Args:
        first: [hidden, inputs (+ 1)].
        second: [outputs, hidden (+ 1)].
        activation: any elementwise function of a tensor.
        criterion: "cross_entropy" over classes or "mse", each a mean over the samples (mse: over
            all outputs too).
        dtype: float32 for speed, float64 for certificates.

    Raises:
        SpecError: the layers do not fit, or an unknown criterion.
    """

    def __init__(
        self,
        first: Weights,
        second: Weights,
        activation: Elementwise = torch.relu,
        criterion: str = "cross_entropy",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Keep the layers; `load` brings the samples."""
        if criterion not in CRITERIA:
            raise SpecError(f"criterion was given {criterion!r}. Known: {', '.join(CRITERIA)}.")
        if second.index.shape[1] != len(first.index) + second.bias:
            raise SpecError(
                f"The first layer has {len(first.index)} units and the second takes "
                f"{second.index.shape[1] - second.bias}; they must be the same."
            )
        self.first, self.second = first, second
        self.activation, self.criterion, self.dtype = activation, criterion, dtype
        self.groups: list[Tensor] = []
        self.rows: list[Rows] = []
        self.scratch = Scratch()

    @classmethod
    def from_network(
        cls,
        network: DiscreteNetwork,
        criterion: str = "cross_entropy",
        dtype: torch.dtype = torch.float32,
    ) -> TwoLayer:
        """Return the two layers of a network; `front_of` gives what comes before them.

        Raises:
            NotApplicable: it is not `... -> Linear -> elementwise activation -> Linear`.
        """
        _, activation = split_stages(network)
        first, second = (Weights.of(layer) for layer in network.layers)
        return cls(first, second, activation, criterion, dtype)

    def write_to(self, network: DiscreteNetwork) -> None:
        """Put indices and scales into a network and its model."""
        for weights, layer in zip((self.first, self.second), network.layers, strict=True):
            weights.write_to(layer)
        network.write_back()

    def to(self, dtype: torch.dtype) -> TwoLayer:
        """Return a network with the same weights (shared, not copied) and no samples."""
        return TwoLayer(self.first, self.second, self.activation, self.criterion, dtype)

    @property
    def hidden(self) -> int:
        """Number of hidden units."""
        return len(self.first.index)

    @property
    def samples(self) -> int:
        """Number of samples of the batch."""
        return sum(len(rows.inputs) for rows in self.rows)

    def load(
        self,
        blocks: Sequence[tuple[InputBlock, Tensor]],
        order: Tensor | None = None,
        group: int = GROUP,
    ) -> None:
        """Take other samples, and compute what the network makes of them.

        Args:
            blocks: inputs and targets (see `Rows`).
            order: of the hidden units, a permutation; the groups are taken in this order.
            group: hidden units of a group, >= 1; 32 is fastest on AVX2.
        """
        order = torch.arange(self.hidden) if order is None else order
        self.groups = list(torch.split(order, group))
        self.rows = [Rows(inputs, target) for inputs, target in blocks]
        weight = self.first.real(self.dtype)[order]
        for rows in self.rows:
            pre = rows.inputs.products(weight)
            if self.first.fixed is not None:
                pre += self.first.fixed[order].to(self.dtype)
            rows.pre = [part.contiguous() for part in torch.split(pre, group, 1)]
            rows.hidden = [self.activation(part) for part in rows.pre]
            rows.logits = self.forward_last(rows)

    def forward_last(self, rows: Rows) -> Tensor:
        """Return the logits of some samples, [outputs, samples], from their hidden values."""
        second = self.second
        weight = second.real(self.dtype)
        bias = weight[:, -1] if second.bias else weight.new_zeros(len(weight))
        if second.fixed is not None:
            bias = second.fixed.to(self.dtype)
        logits = bias[:, None].repeat(1, len(rows.inputs))
        for units, hidden in zip(self.groups, rows.hidden, strict=True):
            logits.addmm_(weight[:, units], hidden.t())
        return logits

    def last_columns(self) -> Tensor:
        """Return the columns of the second layer in the order of the groups, the bias last."""
        bias = [torch.tensor([self.hidden])] if self.second.bias else []
        return torch.cat([*self.groups, *bias])

    def last_inputs(self, rows: Rows) -> Iterator[tuple[slice, Tensor]]:
        """Yield what the second layer gets: places in `last_columns`, values [samples, places]."""
        begin = 0
        for hidden in rows.hidden:
            yield slice(begin, begin + hidden.shape[1]), hidden
            begin += hidden.shape[1]
        if self.second.bias:
            yield slice(begin, begin + 1), rows.logits.new_ones(len(rows.inputs), 1)

    def loss(self) -> float:
        """Return the mean loss of the samples at the stored logits."""
        return self.loss_at([rows.logits for rows in self.rows])

    def loss_at(self, logits: Sequence[Tensor]) -> float:
        """Return the mean loss at given logits, [outputs, samples] for each of `rows`."""
        totals = [self.row_loss(rows, z) for rows, z in zip(self.rows, logits, strict=True)]
        return sum(totals) / self.samples

    def put_logits(self, logits: Sequence[Tensor]) -> None:
        """Store logits, [outputs, samples] for each of `rows`."""
        for rows, z in zip(self.rows, logits, strict=True):
            rows.logits = z

    def row_loss(self, rows: Rows, logits: Tensor) -> float:
        """Return the summed loss of some samples at given logits [outputs, samples]."""
        if self.criterion == "mse":
            error = logits.sub(rows.target).double()
            return float(error.square_().sum()) / len(logits)
        chosen = logits.gather(0, rows.target[None])[0]
        return float(torch.logsumexp(logits, 0).sub_(chosen).double().sum())

    def second_columns(self, units: Tensor) -> Tensor:
        """Return the real weights from some units to the outputs, [outputs, units]."""
        values = self.second.values[self.second.index[:, units]]
        return (self.second.scale[:, None] * values).to(self.dtype)

    def moved_group(
        self, rows: Rows, group: int, columns: Tensor, starts: Tensor, amounts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return pre-activations, activations and logits after moves of first-layer weights.

        Args:
            rows: the samples.
            group: number of the group that all moves belong to.
            columns: int32 [moves], the inputs, sorted by unit.
            starts: int32 [units], where each unit's moves begin.
            amounts: [moves], by how much the real weights change.
        """
        shift = functional.embedding_bag(
            columns, rows.inputs.columns, starts, mode="sum", per_sample_weights=amounts
        )
        pre = rows.pre[group] + shift.t()
        hidden = self.activation(pre)
        change = (hidden - rows.hidden[group]).t()
        logits = rows.logits.addmm(self.second_columns(self.groups[group]), change)
        return pre, hidden, logits

    def rescaled_first(
        self, factor: float
    ) -> tuple[float, list[tuple[list[Tensor], list[Tensor], Tensor]]]:
        """Return the mean loss with the scale of the first layer multiplied by a factor.

        And, for each of `rows`, the pre-activations, activations and logits that belong to it.
        """
        states, total = [], 0.0
        for rows in self.rows:
            pre = []
            for units, old in zip(self.groups, rows.pre, strict=True):
                if self.first.fixed is None:
                    pre.append(old * factor)
                else:
                    bias = self.first.fixed[units].to(self.dtype)
                    pre.append((old - bias).mul_(factor).add_(bias))
            hidden = [self.activation(part) for part in pre]
            logits = self.forward_last(Rows(rows.inputs, rows.target, pre, hidden))
            states.append((pre, hidden, logits))
            total += self.row_loss(rows, logits)
        return total / self.samples, states
