"""A training loop that is not `fit`: charged to the meter, validated, shown, saved and resumed.

with run.loop(model, rounds=10) as loop:
    state = loop.resume() or {"weights": start()}
    while loop.round < loop.rounds:
        loss, state = improve(model, state)
        loop.end_round(loss, state)
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from typing import Any, Self

from torch import nn

from whit.core.checkpoints import (
    load_model_state,
    model_state,
    random_states,
    read_checkpoint,
    require_readable,
    set_random_states,
    write_checkpoint,
)
from whit.core.options import require
from whit.core.prediction import Validation
from whit.core.surroundings import Progress, Surroundings


class OwnLoop:
    """A loop of a procedure's own, counted as one `fit` of the run; see `Run.loop`.

    Inside the `with` block, forward calls of the model are charged; other work is charged by
    `loop.meter.add_macs`.

    Args:
        model: that is trained.
        rounds: parts of the training after which it is validated, shown and saved, >= 1.
        surroundings: of this call.

    Attributes:
        round: finished rounds.
        rounds: all rounds.
        seed: for the loop's own generator, whose state belongs into what is saved.
        meter: is charged.
    """

    def __init__(self, model: nn.Module, rounds: int, surroundings: Surroundings) -> None:
        """Begin at round 0."""
        require(rounds >= 1, f"A training loop was given {rounds} rounds; expected 1 or more.")
        self.model = model.to(surroundings.device)
        self.round, self.rounds = 0, rounds
        self.seed, self.meter = surroundings.seed, surroundings.meter
        self._around = surroundings
        self._record = surroundings.record
        self._record.epochs, self._record.fit = rounds, surroundings.number
        self._validation = Validation(model, surroundings)
        self._warnings: list[str] = []
        self._begin = time.perf_counter()
        self._open = ExitStack()

    def __enter__(self) -> Self:
        """Begin to charge."""
        self._open.enter_context(self.meter.training(self.model))
        return self

    def __exit__(self, *failure: object) -> None:
        """Stop charging."""
        self._open.close()

    def resume(self) -> dict[str, Any] | None:
        """Put model, meter and curves back to the last finished round; return the saved state.

        None at the start, and where there is no checkpoint of the same run.
        """
        path = self._around.checkpoint
        saved, ignored = read_checkpoint(path, self._around.identity, self._around.device)
        if ignored:
            self._warnings.append(ignored)
        self._begin = time.perf_counter()
        if saved is None or path is None:
            return None
        self.round, self.rounds = saved["round"], saved["rounds"]
        load_model_state(self.model, saved["model"], path)
        set_random_states(saved["random"], self._around.device)
        self.meter.load_state_dict(saved["meter"])
        self._record.restore(saved["record"])
        state: dict[str, Any] = saved["state"]
        return state

    def end_round(
        self,
        loss: float,
        state: dict[str, Any] | None = None,
        *,
        figures: Mapping[str, float] | None = None,
        last: bool = False,
    ) -> float | None:
        """Validate, record and save a finished round, and tell of it.

        Args:
            loss: training loss, as the curves show it.
            state: all that the loop needs to go on, beside the model's own state: tensors, numbers,
                texts, lists and dictionaries.
            figures: what was counted in this round, for the curves and the progress, by name.
            last: no round follows, whatever was planned.

        Returns:
            The metric on the validation split, None where it is unknown.
        """
        self.round += 1
        if last:
            self.rounds = self._record.epochs = self.round
        valid, reason = self._validation.score(nullcontext())
        self._record.add(loss, valid, time.perf_counter() - self._begin)
        if figures:
            self._record.figures.append(dict(figures))
        self._begin = time.perf_counter()
        new = [w for w in (*self._warnings, reason) if w and w not in self._record.warnings]
        self._warnings = []
        self._record.warnings.extend(new)
        # Saved first: whoever is told of a round may rely on it.
        self._save(state or {})
        self._show(loss, valid, tuple(new), figures or {})
        return valid

    def _show(
        self,
        loss: float,
        valid: float | None,
        warnings: tuple[str, ...],
        figures: Mapping[str, float],
    ) -> None:
        around = self._around
        if around.progress is not None:
            around.progress(
                Progress(
                    around.number,
                    self.round,
                    self.rounds,
                    loss,
                    valid,
                    around.task.metric_name,
                    self._record.seconds_left,
                    warnings,
                    figures,
                )
            )

    def _save(self, state: dict[str, Any]) -> None:
        path = self._around.checkpoint
        if path is None:
            return
        write_checkpoint(
            path,
            {
                "identity": self._around.identity,
                "round": self.round,
                "rounds": self.rounds,
                "model": model_state(self.model),
                "random": random_states(self._around.device),
                "meter": self.meter.state_dict(),
                "record": self._record.as_dict(),
                "state": state,
            },
        )
        if self.round == 1:
            require_readable(path)
