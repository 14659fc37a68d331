"""An ensemble that grows while it answers: member after member, until it is sure or told to stop.

ensemble = AnytimeEnsemble(lambda number: draw_network(model, coin(seed, number)))
ensemble.start(x)
while not sure(ensemble.add_member()):
    ...
output = ensemble.stop()
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whit.core.options import is_number, require
from whit.errors import WhitError
from whit.parts.combine_members import Combine, Output, lead
from whit.parts.surgery import WEIGHTED, WeightedLayer


@dataclass(frozen=True)
class Answer:
    """What an ensemble says of some samples.

    Attributes:
        output: running average [samples, ...].
        used: members that each sample was given to, int64 [samples].
    """

    output: Tensor
    used: Tensor


class AnytimeEnsemble:
    """Averages the outputs of members that are made one after the other.

    Members that were made stay in memory, for the next samples.

    Args:
        member: returns the network with a number, 0, 1, ...; the same one each time.
        output: what is averaged, see `Combine`.
        reuse: path of a layer that reads the same in every member (nothing drawn lies before it):
            further members compute there only what their other weights change. None to compute
            each in full. With whole numbers the result is the same bit for bit. What the layer read
            is kept and compared, so a layer that reads something else in each member is refused.

    Attributes:
        members: in the running average.
        flipped: of each further member, the share of weights of the `reuse` layer that differ from
            those of the member before.
    """

    def __init__(
        self,
        member: Callable[[int], nn.Module],
        output: Output = "logits",
        reuse: str | None = None,
    ) -> None:
        """Keep the options; nothing is computed yet."""
        self._make, self._combine, self._reuse = member, Combine(output), reuse
        self._made: list[nn.Module] = []
        self._inputs: tuple[Tensor, ...] | None = None
        self._sum: Tensor | None = None
        self._layer: _ReusedLayer | None = None
        self.members = 0
        self.flipped: list[float] = []

    def start(self, *inputs: Tensor) -> None:
        """Begin with new samples."""
        self._inputs, self._sum, self._layer = inputs, None, None
        self.members, self.flipped = 0, []

    @torch.no_grad()
    def add_member(self) -> Tensor:
        """Let one more member answer; return the average of all so far.

        Raises:
            WhitError: it was not started, or `reuse` names no layer that reads the same in every
                member.
        """
        if self._inputs is None:
            raise WhitError("The ensemble has no samples yet; call start(x) before add_member().")
        scores = self._combine.each(self._answer(self._inputs))
        self._sum = scores if self._sum is None else self._sum + scores
        self.members += 1
        return self._sum / self.members

    def stop(self) -> Tensor:
        """Return the average and let go of the samples.

        Raises:
            WhitError: no member has answered.
        """
        if self._sum is None:
            raise WhitError("No member has answered yet; call start(x) and add_member() first.")
        result = self._sum / self.members
        self._inputs = self._sum = self._layer = None
        return result

    def predict(self, *inputs: Tensor, members: int = 8, margin: float | None = None) -> Answer:
        """Answer with so many members, or fewer where one class is far enough ahead.

        Args:
            inputs: of the model.
            members: most members for a sample, >= 1.
            margin: a sample is given to no further member once its first class is ahead of the
                second by this much in the running average (of logits, probabilities or votes),
                > 0; None gives every sample to all.

        Raises:
            SpecError: an option is out of range.
        """
        whole = isinstance(members, int) and not isinstance(members, bool) and members >= 1
        require(whole, f"members was given {members!r}; expected a whole number >= 1.")
        require(
            margin is None or (is_number(margin) and margin > 0),
            f"margin was given {margin!r}; expected a number above 0, or None.",
        )
        self.start(*inputs)
        average = self.add_member()
        used = torch.ones(len(average), dtype=torch.int64, device=average.device)
        output = average
        open_rows = torch.arange(len(average), device=average.device)
        for _ in range(1, members):
            if margin is not None:
                still = ~(lead(average) >= margin)  # a lead that is no number decides nothing
                self._keep(still.nonzero().flatten())
                open_rows = open_rows[still]
            if not len(open_rows):
                break
            average = self.add_member()
            output, used = (
                output.index_copy(0, open_rows, average),
                used.index_add(0, open_rows, torch.ones_like(open_rows)),
            )
        self._inputs = self._sum = self._layer = None
        return Answer(output, used)

    def _keep(self, rows: Tensor) -> None:
        """Go on with some of the samples only."""
        assert self._inputs is not None and self._sum is not None
        self._inputs = tuple(x.index_select(0, rows) for x in self._inputs)
        self._sum = self._sum.index_select(0, rows)
        if self._layer is not None:
            self._layer.keep(rows)

    def _answer(self, inputs: tuple[Tensor, ...]) -> Tensor:
        while len(self._made) <= self.members:
            self._made.append(self._make(len(self._made)).eval())
        member = self._made[self.members]
        if self._reuse is None:
            first: Tensor = member(*inputs)
            return first
        layer = _layer_at(member, self._reuse)
        if self._layer is None:
            self._layer = _ReusedLayer()
        with self._layer.watching(layer) as watch:
            output: Tensor = member(*inputs)
        if watch.share is not None:
            self.flipped.append(watch.share)
        return output


def _layer_at(model: nn.Module, path: str) -> WeightedLayer:
    layer = dict(model.named_modules()).get(path)
    if layer is None:
        known = ", ".join(f"'{p}'" for p, m in model.named_modules() if isinstance(m, WEIGHTED))
        raise WhitError(
            f"reuse names '{path}', and a member has no such layer. Its linear and convolution "
            f"layers: {known or 'none'}."
        )
    if not isinstance(layer, WEIGHTED):
        raise WhitError(
            f"reuse names '{path}', a {type(layer).__name__}; expected a linear or convolution "
            "layer."
        )
    return layer


class _ReusedLayer:
    """Keeps the sums of a layer from one member to the next."""

    def __init__(self) -> None:
        self.weight: Tensor | None = None
        self.sums: Tensor | None = None
        self.inputs: Tensor | None = None

    def keep(self, rows: Tensor) -> None:
        if self.sums is not None and self.inputs is not None:
            self.sums = self.sums.index_select(0, rows)
            self.inputs = self.inputs.index_select(0, rows)

    def watching(self, layer: WeightedLayer) -> _Watch:
        return _Watch(self, layer)


class _Watch:
    """Computes a layer's sums from those of the member before, while the block runs."""

    def __init__(self, kept: _ReusedLayer, layer: WeightedLayer) -> None:
        self.kept, self.layer = kept, layer
        self.share: float | None = None

    def __enter__(self) -> _Watch:
        self.layer.forward = self._updated  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, *failure: object) -> None:
        del self.layer.forward  # the method of the class shows again

    def _updated(self, x: Tensor) -> Tensor:
        weight, bias = self.layer.weight.detach(), self.layer.bias
        before, sums = self.kept.weight, self.kept.sums
        if before is None or sums is None or self.kept.inputs is None:
            sums = _sums(self.layer, x, weight)
            self.kept.inputs = x.detach().clone()
        else:
            if not torch.equal(x, self.kept.inputs):
                raise WhitError(
                    "The layer that reuse names reads something else in this member than in the "
                    "one before: drawn weights lie before it. Name the first drawn layer, or give "
                    "reuse=None."
                )
            change = weight - before
            self.share = float((change != 0).double().mean())
            sums = sums + changed_sums(self.layer, x, change)
        self.kept.weight, self.kept.sums = weight, sums
        return sums if bias is None else sums + _on_channels(bias, self.layer)


def changed_sums(layer: WeightedLayer, x: Tensor, change: Tensor) -> Tensor:
    """Return what a change of a layer's weight adds to its sums, from the changed weights only.

    Shapes: x as the layer takes it -> as the layer gives it.

    Args:
        layer: gives the geometry.
        x: input.
        change: new weight less old weight, of the weight's shape; mostly zeros.
    """
    if isinstance(layer, nn.Linear):
        rows = x.reshape(-1, x.shape[-1])
        added: Tensor = torch.sparse.mm(change.to_sparse(), rows.T).T
        return added.reshape(*x.shape[:-1], -1)
    return _sums(layer, x, change)  # torch has no sparse convolution: zeros are multiplied too


def _sums(layer: WeightedLayer, x: Tensor, weight: Tensor) -> Tensor:
    """Return what a layer computes with another weight and without bias."""
    if isinstance(layer, nn.Linear):
        return nn.functional.linear(x, weight)
    result: Tensor = layer._conv_forward(x, weight, None)
    return result


def _on_channels(bias: Tensor, layer: WeightedLayer) -> Tensor:
    axes = 0 if isinstance(layer, nn.Linear) else len(layer.kernel_size)
    return bias.detach().reshape(-1, *[1] * axes)
