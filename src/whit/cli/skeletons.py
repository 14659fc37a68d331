"""What `whit new` writes: a small technique that works, with marks where yours begins.

Placeholders are $name, $class_name and $family; `string.Template` fills them.
"""

TECHNIQUE = '''\
"""$title: REPLACE by one sentence that says the idea.

Authors, "Title", year, arXiv number.                                          <- REPLACE

    w <- sign(w) * max(|w| - strength, 0)        after every optimiser step    <- REPLACE

This skeleton works as it is: small weights shrink to exactly 0. Shapes: any linear or convolution
weight.
"""

from __future__ import annotations

import torch
from torch import nn

from whit.core.hook import Hook
from whit.core.options import require
from whit.core.technique import Technique, technique
from whit.parts.masks import latent_weight
from whit.parts.surgery import weighted_layers


class $class_name(Hook):
    """Shrinks weights; for one's own loop: call `after_step()` after each `optimizer.step()`.

    Args:
        model: any module with linear or convolution layers.
        strength: subtracted from every |w| at each step, > 0.
    """

    def __init__(self, model: nn.Module, strength: float = 1e-4) -> None:
        """Collect the weights."""
        self.strength = strength
        self.weights = [latent_weight(layer) for _, layer in weighted_layers(model)]

    @torch.no_grad()
    def after_step(self) -> None:
        """Act when the weights have moved."""
        # REPLACE what happens here.
        for weight in self.weights:
            weight.copy_(weight.sign() * (weight.abs() - self.strength).clamp_min(0))


@technique
def $name(*, strength: float = 1e-4) -> Technique:
    """Shrink small weights to exactly 0 while training (REPLACE).

    Args:
        strength: subtracted from every |w| at each step, 0 < . < 1.
    """
    require(0 < strength < 1, f"strength was given {strength!r}; expected 0 < strength < 1.")
    return Technique(hooks=(lambda model, plan: $class_name(model, strength),))
'''

CARD = """\
---
title: $title
paper: "Authors, Title, year, arXiv number"
year: 2026
data: any
saves: weights
---

# $title

## What it does

REPLACE. Small weights shrink to exactly 0, so that the packed file can store them sparsely.

## Use it in your loop

```python
import torch
from whit.methods.$family.$name import $class_name

model = torch.nn.Linear(4, 2)
shrink = $class_name(model, strength=0.01)
model(torch.randn(8, 4)).square().mean().backward()
shrink.after_step()
```

## Use it by name

```python
import whit

technique = whit.spec("$name(strength=1e-4)")
```

## Settings that work

REPLACE.

## What it costs

REPLACE. One pass over the weights after every step.

## Deviations from the paper

REPLACE.

## When it does not help

REPLACE.

## Results

Not measured yet.
"""

TEST = """\
import torch
from torch import nn

from whit.methods.$family.$name import $class_name, $name


def test_weights_shrink_as_computed_by_hand():  # REPLACE: the paper's formula on a small case
    model = nn.Linear(3, 1, bias=False)
    model.weight.data = torch.tensor([[0.5, -0.25, 0.05]])
    $class_name(model, strength=0.125).after_step()
    assert torch.equal(model.weight.data, torch.tensor([[0.375, -0.125, 0.0]]))


def test_more_strength_gives_more_zeros():  # REPLACE: a behaviour that the paper promises
    zeros = []
    for strength in (0.01, 0.1):
        model = nn.Linear(16, 16)
        torch.manual_seed(0)
        nn.init.normal_(model.weight, std=0.1)
        $class_name(model, strength).after_step()
        zeros.append(int((model.weight == 0).sum()))
    assert zeros[0] < zeros[1]


def test_spec_names_the_option():
    assert $name(strength=0.5).spec == "$name(strength=0.5)"
"""
