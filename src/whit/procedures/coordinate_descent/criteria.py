"""What coordinate descent lowers: a loss for every sample, and its mean.

    cross_entropy   log(sum_c exp(z_c)) - z_y
    mse             mean over outputs of (z - t)^2
    zero_one        1 where argmax(z) is not y, else 0
    zero_one_ties   the same plus q / N with q = CE / (1 + CE): of two networks with as many errors,
                    the one that is nearer to right (single moves rarely change the number of
                    errors, so that plain zero-one descent gets stuck early)

Shapes: outputs [samples, classes], targets int64 [samples]; for mse outputs and targets alike.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from whit.core.options import nearest
from whit.errors import NotApplicable, SpecError

PerSample = Callable[[Tensor, Tensor], Tensor]


class Criterion:
    """A loss for every sample, of the user's own: `function(outputs, targets) -> [samples]`.

    Args:
        function: any function of outputs and targets, differentiable or not; it is called with
            samples repeated, so each loss must depend on its own sample alone.
    """

    needs_classes = False

    def __init__(self, function: PerSample) -> None:
        """Keep the function."""
        self.function = function

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of every sample. Shapes: [samples, ...], [samples, ...] -> [samples].

        Raises:
            SpecError: the function returns another shape.
        """
        losses = self.function(output, target)
        if losses.shape != (len(target),):
            raise SpecError(
                f"The criterion returned shape {list(losses.shape)} for {len(target)} samples; "
                "expected one loss for each sample. Use reduction='none' and a mean over the rest."
            )
        return losses

    def column(self, output: Tensor, target: Tensor, unit: int, new: Tensor) -> Tensor:
        """Return the losses after one output has changed, for many candidates at once.

        Shapes: output [samples, outputs], target [samples, ...], new [candidates, samples] ->
        [candidates, samples].

        Args:
            output: as it is.
            target: of the samples.
            unit: which output changes.
            new: its values under each candidate.
        """
        count, samples = new.shape
        changed = output.expand(count, *output.shape).clone()
        changed[:, :, unit] = new
        targets = target.repeat(count, *[1] * (target.dim() - 1))
        return self.losses(changed.flatten(0, 1), targets).reshape(count, samples)

    def check(self, output: Tensor, target: Tensor) -> None:
        """Refuse outputs and targets that do not go together.

        Raises:
            NotApplicable: with the shapes.
            SpecError: there are classes without an output.
        """
        classes = not target.is_floating_point()
        if self.needs_classes and (not classes or target.dim() != 1 or output.dim() != 2):
            raise NotApplicable(
                f"This criterion needs outputs [samples, classes] and classes [samples]; the model "
                f"gives {list(output.shape)} and the targets are {target.dtype} "
                f"{list(target.shape)}. Use criterion='mse' for numbers."
            )
        if self.needs_classes and not 0 <= int(target.min()) <= int(target.max()) < output.shape[1]:
            raise SpecError(
                f"The targets are classes from {int(target.min())} to {int(target.max())}, and the "
                f"model gives {output.shape[1]} outputs; expected 0 to {output.shape[1] - 1}."
            )


class CrossEntropy(Criterion):
    """Cross-entropy of class scores."""

    needs_classes = True

    def __init__(self) -> None:
        """Nothing to keep."""
        super().__init__(lambda z, y: functional.cross_entropy(z, y, reduction="none"))

    def column(self, output: Tensor, target: Tensor, unit: int, new: Tensor) -> Tensor:
        """As `Criterion.column`, O(1) a sample: only one term of the sum over classes changes."""
        # The sum over the other classes is taken anew, not by subtraction, which would cancel.
        others = torch.cat([output[:, :unit], output[:, unit + 1 :]], 1).logsumexp(1)
        right = output.gather(1, target.unsqueeze(1)).squeeze(1)
        score = torch.where(target == unit, new, right)
        return torch.logaddexp(new, others) - score


class MeanSquare(Criterion):
    """Mean squared error over all outputs of a sample."""

    def __init__(self) -> None:
        """Nothing to keep."""
        super().__init__(lambda z, t: (z - t).square().flatten(1).mean(1))

    def column(self, output: Tensor, target: Tensor, unit: int, new: Tensor) -> Tensor:
        """As `Criterion.column`, O(1) a sample."""
        squares = (output - target).square()
        others = squares[:, :unit].sum(1) + squares[:, unit + 1 :].sum(1)
        return ((new - target[:, unit]).square() + others) / output.shape[1]

    def check(self, output: Tensor, target: Tensor) -> None:
        """Refuse targets of another shape than the outputs, and classes.

        Raises:
            NotApplicable: with the shapes.
        """
        if output.shape != target.shape or not target.is_floating_point() or output.dim() < 2:
            raise NotApplicable(
                f"criterion='mse' needs targets of the outputs' shape {list(output.shape)}, in "
                f"floats; they are {target.dtype} {list(target.shape)}."
            )


class ZeroOne(Criterion):
    """1 for a wrong class, 0 for the right one.

    Args:
        ties: weight of CE / (1 + CE) a sample, 0 <= . < 1 / samples.
    """

    needs_classes = True

    def __init__(self, ties: float = 0.0) -> None:
        """Keep the weight."""
        self.ties = ties
        super().__init__(self._losses)

    def _losses(self, output: Tensor, target: Tensor) -> Tensor:
        wrong = (output.argmax(1) != target).to(output.dtype)
        if self.ties == 0:
            return wrong
        entropy = functional.cross_entropy(output, target, reduction="none")
        return wrong + self.ties * entropy / (1 + entropy)


CRITERIA = ("cross_entropy", "mse", "zero_one", "zero_one_ties")


def criterion_of(criterion: str | PerSample, samples: int) -> Criterion:
    """Return a criterion by its name, or that of a function of the user's own.

    Args:
        criterion: a name of `CRITERIA`, or `function(outputs, targets) -> [samples]`.
        samples: how many there are, >= 1.

    Raises:
        SpecError: an unknown name.
    """
    if callable(criterion):
        return Criterion(criterion)
    if criterion not in CRITERIA:
        raise SpecError(f"criterion was given {criterion!r}. {nearest(str(criterion), CRITERIA)}")
    if criterion == "cross_entropy":
        return CrossEntropy()
    if criterion == "mse":
        return MeanSquare()
    return ZeroOne(1.0 / samples if criterion == "zero_one_ties" else 0.0)


def error_of(output: Tensor, target: Tensor) -> float:
    """Return the share of wrong classes, or the mean squared error where targets are numbers.

    Shapes: output [samples, classes] and target int64 [samples], or both alike.
    """
    if target.is_floating_point():
        return float((output - target).square().mean())
    return float((output.argmax(-1) != target).double().mean())
