"""What a technique did to the layers of a model, seen by comparing structures before and after.

Nothing is asked of a technique: whatever it does to module classes, shapes, parametrisations or
values shows, and so does what it left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from whit.activation_calls import ActivationCall
from whit.model_layers import FEW_LEVELS, Layer, Layers

# A zero or two come about by chance (in rounded or tiny weights); a technique makes many.
LEAST_ZEROS = 0.01


@dataclass(frozen=True)
class Change:
    """What a technique did to one layer.

    Attributes:
        path: of the layer, "" for the model itself.
        kind: its class in the model as built.
        how: one text per change, such as "weight: BinaryWeight" or "ReLU -> Sign".
        zeros: share of exact zeros in its weight, 0..1, where the control has fewer; else None.
    """

    path: str
    kind: str
    how: tuple[str, ...]
    zeros: float | None = None


@dataclass(frozen=True)
class Skipped:
    """Layers of one kind that a technique left alone.

    Attributes:
        kind: their class, or "relu (called)" for calls in forward.
        paths: of the layers.
        numbers: in their parameters.
        reason: why, as far as it can be seen from outside.
    """

    kind: str
    paths: tuple[str, ...]
    numbers: int
    reason: str


@dataclass(frozen=True)
class Differences:
    """Changed and skipped layers.

    Attributes:
        changed: in the order of the model.
        skipped: beside the changed ones; empty where the technique changes no kind of layer.
        notes: what neither list can say.
    """

    changed: tuple[Change, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stages:
    """Layers of the control and of a technique's model at four moments.

    Attributes:
        built: the control as built.
        control: the control as trained for a while.
        prepared: the technique's model after `prepare_model`, None when it made none that way.
        fitted: as its procedure returned it.
        finished: after `finish_model`.
    """

    built: Layers
    control: Layers
    prepared: Layers | None
    fitted: Layers
    finished: Layers


def differences(
    stages: Stages,
    calls: Sequence[ActivationCall],
    calls_left: Sequence[ActivationCall],
    brief: str,
) -> Differences:
    """Compare the technique's model with the control.

    Args:
        stages: layers of both.
        calls: of activation functions in the control's forward.
        calls_left: in the finished model's.
        brief: spec of the technique, for the reasons.
    """
    comparison = _Comparison(stages)
    swapped = list(_swapped_calls(calls, calls_left))
    changed = [*comparison.changes(), *swapped]
    skipped = comparison.skipped(brief)
    if comparison.activations_swapped or swapped:
        skipped += _left_calls(calls_left)
    return Differences(tuple(changed), tuple(skipped), tuple(comparison.notes()))


def _swapped_calls(
    calls: Sequence[ActivationCall], calls_left: Sequence[ActivationCall]
) -> Iterator[Change]:
    left = {(call.path, call.function): call.count for call in calls_left}
    for call in calls:
        gone = call.count - left.get((call.path, call.function), 0)
        if gone > 0:
            number = f"{gone} of {call.count} calls" if gone < call.count else _times(gone, "call")
            yield Change(call.path, call.kind, (f"{number} of {call.function} in forward swapped",))


def _left_calls(calls: Sequence[ActivationCall]) -> list[Skipped]:
    groups: dict[tuple[str, str], list[str]] = {}
    for call in calls:
        times = _times(call.count, "call")
        reason = (
            f"{times} in forward of {call.kind}, not swapped; a module in its place could be"
            if call.in_own_code
            else f"{times} inside torch's own {call.kind}, where no technique swaps it"
        )
        groups.setdefault((f"{call.function} (called)", reason), []).append(call.path)
    return [Skipped(kind, tuple(paths), 0, reason) for (kind, reason), paths in groups.items()]


def _times(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count} {what}s"


@dataclass
class _Comparison:
    stages: Stages
    how: dict[str, list[str]] = field(default_factory=dict)
    zeros: dict[str, float | None] = field(default_factory=dict)
    activations_swapped: bool = False

    def __post_init__(self) -> None:
        built = self.stages.built
        for path in built:
            inner = self._inner(path)
            self.zeros[path] = self._more_zeros(path, inner) if inner is not None else None
            self.how[path] = list(self._how(path, inner))
            if self.zeros[path] is not None and not self.how[path]:
                self.how[path] = ["weights set to 0"]
            if self.how[path] and built[path].is_activation:
                self.activations_swapped = True

    def changes(self) -> Iterator[Change]:
        built = self.stages.built
        for path, how in self.how.items():
            if how:
                yield Change(path, built[path].kind, tuple(how), self.zeros[path])
        for path, layer in self.stages.finished.items():
            parent = path.rpartition(".")[0]
            if path not in built and built.get(parent) and not self.how[parent]:
                yield Change(path, layer.kind, ("added",))

    def skipped(self, brief: str) -> list[Skipped]:
        """Return what was left alone beside layers that got another class, values or quantiser."""
        built = self.stages.built
        touched = {path for path in built if self._is_covering(path)}
        kinds = {built[path].kind for path in touched}
        weights = any(built[path].numbers for path in touched)
        groups: dict[tuple[str, str], list[str]] = {}
        for path, layer in built.items():
            concerned = (layer.numbers and weights) or (
                layer.is_activation and self.activations_swapped
            )
            if self.how[path] or not concerned or path not in self.stages.finished:
                continue
            reason = self._reason(layer, kinds, touched, brief)
            groups.setdefault((layer.kind, reason), []).append(path)
        return [
            Skipped(kind, tuple(paths), sum(built[path].numbers for path in paths), reason)
            for (kind, reason), paths in groups.items()
        ]

    def notes(self) -> Iterator[str]:
        """Say what the model was while it was trained, if it was something else."""
        prepared, built = self.stages.prepared, self.stages.built
        finished = self.stages.finished.get("")
        if prepared and finished and prepared[""].kind not in (built[""].kind, finished.kind):
            yield f"While training, {built[''].kind} is a {prepared[''].kind}."

    def _inner(self, path: str) -> str | None:
        """Return where a layer is in the finished model: deeper if something is put around it."""
        kind, finished = self.stages.built[path].kind, self.stages.finished
        if path not in finished or finished[path].kind == kind:
            return path if path in finished else None
        inside = (p for p in finished if path and p.startswith(f"{path}."))
        return next((p for p in inside if finished[p].kind == kind), None)

    def _how(self, path: str, inner: str | None) -> Iterator[str]:
        before, after = self.stages.built[path], self.stages.finished.get(path)
        if after is None:
            if not self._parent_replaced(path):
                yield "removed"
            return
        inside = f"({', '.join(after.children)})" if after.children else ""
        if inner is None:
            yield f"{before.kind} -> {after.kind}{inside}"
            return
        if inner != path:
            yield f"put into {after.kind}{inside}"
        yield from _shape_changes(before, self.stages.finished[inner])
        if inner == path and before.shapes == after.shapes and before.options != after.options:
            yield f"({before.options}) -> ({after.options})"
        yield from self._quantisers(path, inner)
        yield from self._fewer_values(path, inner)

    def _parent_replaced(self, path: str) -> bool:
        built, finished = self.stages.built, self.stages.finished
        while path:
            path = path.rpartition(".")[0]
            if path not in finished or finished[path].kind != built[path].kind:
                return True
        return False

    def _quantisers(self, path: str, inner: str) -> Iterator[str]:
        before = self.stages.built[path].quantisers
        for name, given in before.items() | self._seen_quantisers(inner).items():
            if given != before.get(name):
                yield f"{name}: {' + '.join(given)}"

    def _seen_quantisers(self, path: str) -> dict[str, tuple[str, ...]]:
        # Most are baked at the end, so the moments before are looked at too.
        seen: dict[str, tuple[str, ...]] = {}
        for stage in (self.stages.prepared, self.stages.fitted, self.stages.finished):
            layer = (stage or {}).get(path)
            for name, given in (layer.quantisers if layer else {}).items():
                if len(given) >= len(seen.get(name, ())):
                    seen[name] = given
        return seen

    def _fewer_values(self, path: str, inner: str) -> Iterator[str]:
        control, levels = self.stages.control.get(path), self.stages.finished[inner].levels
        if control is not None and levels is not None and levels <= FEW_LEVELS:
            if levels < (control.levels or FEW_LEVELS + 1):
                yield f"{levels} values a channel"

    def _more_zeros(self, path: str, inner: str) -> float | None:
        control, zeros = self.stages.control.get(path), self.stages.finished[inner].zeros
        if control is None or zeros is None or zeros < (control.zeros or 0.0) + LEAST_ZEROS:
            return None
        return zeros

    def _is_covering(self, path: str) -> bool:
        """Say whether a layer was changed otherwise than in its shapes."""
        before, after = self.stages.built[path], self.stages.finished.get(path)
        shapes = len(list(_shape_changes(before, after))) if after else 0
        return len(self.how[path]) > shapes

    def _reason(self, layer: Layer, kinds: set[str], touched: set[str], brief: str) -> str:
        if layer.same_as in touched:
            return f"the same module as '{layer.same_as}', which was changed under that name only"
        if layer.tied_to in touched:
            return f"its weight is that of '{layer.tied_to}', and only there it was changed"
        if layer.kind in kinds:
            return f"layers of this kind are changed elsewhere: left out by {brief} or its options"
        return "this kind is not covered by the technique"


def _shape_changes(before: Layer, after: Layer) -> Iterator[str]:
    for name in [*before.shapes, *(n for n in after.shapes if n not in before.shapes)]:
        old, new = before.shapes.get(name), after.shapes.get(name)
        if old is None or new is None:
            yield f"{name} {'added' if old is None else 'removed'}"
        elif old != new and name == "weight" and before.is_weighted and len(old) == len(new):
            yield _sizes_text(old, new)
        elif old != new and not (before.is_weighted and name == "bias"):
            yield f"{name} {list(old)} => {list(new)}"


def _sizes_text(old: tuple[int, ...], new: tuple[int, ...]) -> str:
    names = ("outputs", "inputs")
    said = [f"{a} => {b} {n}" for a, b, n in zip(old, new, names, strict=False) if a != b]
    if old[2:] != new[2:]:
        said.append(f"kernel {list(old[2:])} => {list(new[2:])}")
    return ", ".join(said)
