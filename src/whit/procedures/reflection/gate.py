"""A learned choice of the member that answers, from the features of member 0.

    loss = -log sum_k g_k(h) p_k(y)

The gate is not taught whether member 0 was wrong: that happens so seldom that "never" would win.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from whit.core.options import require

STEPS = 300
RATE = 0.05
DECAY = 1e-3


def fit_gate(  # noqa: PLR0913 - samples, and four numbers by name
    features: Tensor,
    chances: Tensor,
    target: Tensor,
    *,
    steps: int = STEPS,
    hidden: int = 0,
    seed: int = 0,
) -> nn.Module:
    """Return a gate from features to one output a member, trained on all samples at once.

    A linear gate starts from zero, so nothing is drawn. Features are standardised meanwhile; the
    gate that is returned takes them as they are. The largest output names the member.

    Args:
        features: h of member 0, [samples, d].
        chances: class probabilities of the members, [members, samples, classes].
        target: int64 classes [samples].
        steps: of Adam, >= 1.
        hidden: units of a hidden layer with ReLU; 0 for a linear gate.
        seed: of the hidden layer's weights.

    Raises:
        SpecError: there are no samples, or the number of hidden units is negative.
    """
    require(len(target) > 0, "A gate was to be trained on no samples; give one or more.")
    require(hidden >= 0, f"hidden was given {hidden!r}; expected a whole number >= 0.")
    mean, spread = features.mean(0), features.std(0, correction=0).clamp_min(1e-6)
    inputs = (features - mean) / spread
    own = chances[:, torch.arange(len(target)), target].T  # [samples, members]
    gate = _new_gate(features.shape[1], hidden, len(chances), seed)
    weights = [m.weight for m in gate.modules() if isinstance(m, nn.Linear)]
    optimizer = torch.optim.Adam(gate.parameters(), lr=RATE)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = -(gate(inputs).softmax(-1) * own).sum(-1).clamp_min(1e-12).log().mean()
        decay = torch.stack([weight.square().sum() for weight in weights]).sum()
        (loss + DECAY * decay).backward()
        optimizer.step()
    first = next(m for m in gate.modules() if isinstance(m, nn.Linear))
    with torch.no_grad():
        first.weight.div_(spread)
        first.bias.sub_(first.weight @ mean)
    return gate.requires_grad_(False)


def _new_gate(features: int, hidden: int, members: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        last = nn.Linear(hidden or features, members)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        if not hidden:
            return last
        return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), last)
