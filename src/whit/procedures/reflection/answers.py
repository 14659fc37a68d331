"""What a network says of many samples at once: scores and features, without gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whit.core.data import Augment, Split
from whit.core.run import Run
from whit.measure.meter import forward_macs
from whit.parts.features import WithFeatures

BATCH = 1000


@dataclass(frozen=True)
class Answers:
    """Scores [samples, classes] and features [samples, d] of a network, on the CPU."""

    scores: Tensor
    features: Tensor

    def chances(self, temperature: float = 1.0) -> Tensor:
        """Return softmax(scores / temperature), [samples, classes]."""
        return (self.scores if temperature == 1 else self.scores / temperature).softmax(-1)


def answers_of(
    network: nn.Module,
    split: Split,
    augment: Augment | None = None,
    generator: torch.Generator | None = None,
) -> Answers:
    """Ask a network about all samples, in evaluation mode; its modes are as before afterwards.

    Args:
        network: from inputs to class scores, whose last weighted layer gives them.
        split: the samples; their labels are not read.
        augment: changes the first input before, as in training; None leaves it.
        generator: of the augmentation, on the CPU.

    Raises:
        WhitError: the network has no layer to take features from.
    """
    modes = {m: m.training for m in network.modules()}
    both = WithFeatures(network).eval()
    device = next(network.parameters()).device
    scores, features = [], []
    try:
        with torch.no_grad():
            for numbers in torch.split(torch.arange(len(split)), BATCH):
                inputs = split.batch(numbers).inputs
                if augment is not None:
                    assert generator is not None
                    inputs = (augment(inputs[0], generator), *inputs[1:])
                found = both(*(x.to(device) for x in inputs))
                scores.append(found[0].cpu())
                features.append(found[1].cpu())
    finally:
        for module, mode in modes.items():
            module.training = mode
    return Answers(torch.cat(scores), torch.cat(features))


def macs_of_one(network: nn.Module, split: Split) -> int:
    """Return the multiply-accumulates of a network's forward call on one sample."""
    device = next(network.parameters()).device
    one = split.batch(torch.zeros(1, dtype=torch.int64, device=split.target.device)).inputs
    return forward_macs(network, *(x.to(device) for x in one))


def charged_answers(  # noqa: PLR0913 - as `answers_of`, of a run
    run: Run,
    network: nn.Module,
    split: Split,
    augment: Augment | None = None,
    generator: torch.Generator | None = None,
    *,
    macs: int | None = None,
) -> Answers:
    """Ask as `answers_of` does, and charge one forward call a sample to the run's meter.

    Args:
        run: is charged.
        network: as for `answers_of`, and so are split, augment and generator.
        split: the samples.
        augment: changes the first input before.
        generator: of the augmentation.
        macs: of one sample, where they are known; else they are counted.
    """
    each = macs_of_one(network, split) if macs is None else macs
    run.meter.add_macs(len(split) * each)
    with run.meter.training(nn.Identity()):  # the seconds
        return answers_of(network, split, augment, generator)
