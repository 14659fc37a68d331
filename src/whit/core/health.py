"""Health of a training run, looked at once an epoch: a few sentences, each said once per fit.

Dead units are counted while the validation split is run through the model; latent weights and
gradients are looked at after the epoch's last step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from whit.core.divergence import plain_name, watchable_modules
from whit.parts.masks import latent_weight
from whit.parts.straight_through import Sign
from whit.parts.surgery import weight_parametrizations

# A pruned or a small network lives well with a third of its units silent; from half on a narrower
# network would do the same.
DEAD_SHARE = 0.5
# With fewer samples a rarely active unit looks dead.
FEWEST_SAMPLES = 16
# Binary networks keep many latent weights at their bound (Courbariaux et al. 2016); when nearly all
# are there, no sign flips any more.
SATURATED_SHARE = 0.9
BOUND = 1.0
BOUND_TOLERANCE = 1e-6
# The last batch's gradient varies by about ten times over a healthy run.
GRADIENT_GROWTH = 100.0
# Warm-up and pruning lift the loss for a while, but not to twice its lowest and half of its first
# value.
LOSS_GROWTH = 2.0
LOSS_REMAINS = 0.5
MOST_NAMED = 3

ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Softplus,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Hardtanh,
    nn.Tanh,
    nn.Sigmoid,
    Sign,
)


class Health:
    """Watches one model through one call of `fit`.

    Args:
        model: that is trained.
    """

    def __init__(self, model: nn.Module) -> None:
        """Find the modules to watch."""
        self.model = model
        self.activations = [
            (path, m) for path, m in watchable_modules(model) if isinstance(m, ACTIVATIONS)
        ]
        self.one_axis = any(isinstance(m, nn.Conv1d) for m in model.modules())
        self.ranges: dict[str, tuple[Tensor, Tensor]] = {}
        self.samples = 0
        self.first_gradient: float | None = None
        self.said: list[str] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note the lowest and the highest value of every unit while the block runs the model."""
        self.ranges, self.samples = {}, 0
        handles = [m.register_forward_hook(self._noting(path)) for path, m in self.activations]
        try:
            yield
        except BaseException:
            self.samples = 0  # not all samples were seen
            raise
        finally:
            for handle in handles:
                handle.remove()

    def _noting(self, path: str) -> Callable[[nn.Module, Any, object], None]:
        def note(module: nn.Module, _: Any, output: object) -> None:
            if not isinstance(output, Tensor) or output.dim() < 2:
                return
            if self.activations[0][0] == path:
                self.samples += len(output)
            unit_axis = 2 if output.dim() == 3 and not self.one_axis else 1
            others = [axis for axis in range(output.dim()) if axis != unit_axis]
            low, high = output.amin(others), output.amax(others)
            before = self.ranges.get(path)
            if before is not None and before[0].shape == low.shape:
                low, high = torch.minimum(low, before[0]), torch.maximum(high, before[1])
            self.ranges[path] = (low, high)

        return note

    def after_epoch(self, losses: Sequence[float]) -> list[str]:
        """Return what is wrong now and was not said before.

        Args:
            losses: mean training loss of each epoch so far.
        """
        found = {
            "dead": self._dead_units(),
            "saturated": self._saturated_weights(),
            "gradient": self._exploding_gradient(losses),
            "loss": self._rising_loss(losses),
        }
        new = {kind: text for kind, text in found.items() if text and kind not in self.said}
        self.said.extend(new)
        return list(new.values())

    def _dead_units(self) -> str:
        enough, self.samples = self.samples >= FEWEST_SAMPLES, 0
        if not enough:
            return ""
        counts = {
            path: (int((low == high).sum()), low.numel())
            for path, (low, high) in self.ranges.items()
        }
        return _sentence(
            {path: count for path, count in counts.items() if count[0] > DEAD_SHARE * count[1]},
            "units",
            "give every validation sample the same value. They cost bytes and learn no more: try "
            "a smaller learning rate, less sparsity, or a narrower network",
        )

    def _saturated_weights(self) -> str:
        counts = {}
        for path, layer in self.model.named_modules():
            if not weight_parametrizations(layer):
                continue
            size = latent_weight(layer).detach().abs()
            bound = int((size >= BOUND - BOUND_TOLERANCE).sum())
            # Only weights that are clipped have a bound at which they can stand; where all are -1
            # and 1, there are no latent weights: they flip without.
            if bool((size <= BOUND + BOUND_TOLERANCE).all()) and bound < size.numel():
                counts[path] = (bound, size.numel())
        return _sentence(
            {path: c for path, c in counts.items() if c[0] > SATURATED_SHARE * c[1]},
            "latent weights",
            "stand at their bound of 1, where signs hardly flip any more: try a smaller learning "
            "rate",
        )

    def _exploding_gradient(self, losses: Sequence[float]) -> str:
        norms = {
            name: float(p.grad.norm())
            for name, p in self.model.named_parameters()
            if p.grad is not None
        }
        whole = sum(norm**2 for norm in norms.values()) ** 0.5
        if self.first_gradient is None:
            self.first_gradient = whole
            return ""
        if whole <= GRADIENT_GROWTH * self.first_gradient or losses[-1] <= min(losses[:-1]):
            return ""
        name = max(norms, key=lambda n: norms[n])
        share = (norms[name] / whole) ** 2
        return (
            f"The gradient grew from {self.first_gradient:.3g} after the first epoch to "
            f"{whole:.3g}, {share:.0%} of its square in '{plain_name(name)}': try a smaller "
            "learning rate."
        )

    def _rising_loss(self, losses: Sequence[float]) -> str:
        lowest = min(losses)
        rising = losses[-1] > LOSS_GROWTH * lowest and losses[-1] > LOSS_REMAINS * losses[0]
        if lowest <= 0 or not rising:
            return ""
        epoch = losses.index(lowest) + 1
        return (
            f"The training loss rose to {losses[-1]:.3g} from {lowest:.3g} in epoch {epoch}: try a "
            "smaller learning rate."
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what must be saved so that nothing is said twice."""
        return {"first_gradient": self.first_gradient, "said": list(self.said)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.first_gradient, self.said = state["first_gradient"], list(state["said"])


def _sentence(counts: dict[str, tuple[int, int]], what: str, rest: str) -> str:
    """Return one sentence on the worst layers, "" for none."""
    if not counts:
        return ""
    worst = sorted(counts, key=lambda path: -counts[path][0] / counts[path][1])
    named = [
        f"{counts[p][0]} of {counts[p][1]} {what} of " + (f"'{p}'" if p else "the model")
        for p in worst[:MOST_NAMED]
    ]
    more = len(worst) - len(named)
    layers = f" and of {more} more layer{'s' * (more > 1)}" if more else ""
    return f"{', '.join(named)}{layers} {rest}."
