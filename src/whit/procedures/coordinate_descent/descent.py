"""Coordinate descent over discrete weights: sweeps until no move improves.

    descent = CoordinateDescent(network, inputs, target, SweepOptions(sweeps=10))
    while not descent.finished:
        row = descent.sweep()
    descent.finish()

On all samples the loss never rises. A sweep that visits every weight, tries every other value and
accepts none certifies that no single move improves: the network is 1-optimal.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from whit.core.options import require
from whit.errors import NotApplicable, SpecError
from whit.procedures.coordinate_descent.acceptance import search_scales
from whit.procedures.coordinate_descent.costs import Cost, NonzeroCost, energy_cost
from whit.procedures.coordinate_descent.network import DiscreteNetwork
from whit.procedures.coordinate_descent.options import Sweep, SweepOptions
from whit.procedures.coordinate_descent.scoring import ExactScorer
from whit.procedures.coordinate_descent.sweeping import Sweeper
from whit.procedures.coordinate_descent.working_copy import as_samples

# The loss that incremental updates give may differ from a fresh one by so much, relatively.
LARGEST_DRIFT = 1e-6
# A guided sweep that makes fewer moves than this share of the units leaves the rest to a full one.
FEW_MOVES = 0.25


@dataclass(frozen=True)
class _Kept:
    """The best state so far: its loss, the layers, and what is known of it."""

    loss: float
    layers: list[dict[str, Any]]
    one_optimal: bool
    reason: str


def _same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    return all(
        a["scale"] == b["scale"]
        and torch.equal(a["index"], b["index"])
        and (a["bias_index"] is None or torch.equal(a["bias_index"], b["bias_index"]))
        for a, b in zip(one, other, strict=True)
    )


class CoordinateDescent:
    """Trains a discrete network, sweep by sweep.

    Args:
        network: whose indices and scales are changed; its model only by `finish` and `write_back`.
        inputs: training samples [samples, ...].
        target: classes [samples], or numbers of the outputs' shape.
        options: how.
        valid: inputs and targets to report by, and to choose by with keep="best_valid".
        seed: of orders, batches and restarts.

    Attributes:
        history: rows so far.
        finished: whether no sweep is left to do.
        one_optimal: whether the last sweep certified that no single move improves the loss; after
            `finish`, whether that is so of the state that was kept.
        reason: why it finished; after `finish`, why the kept state is what it is.

    Raises:
        SpecError: options that do not fit the data, or a start from which nothing can move.
        NotApplicable: the model cannot be treated.
    """

    def __init__(
        self,
        network: DiscreteNetwork,
        inputs: Tensor,
        target: Tensor,
        options: SweepOptions | None = None,
        *,
        valid: tuple[Tensor, Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        """Score the start."""
        self.options = options or SweepOptions()
        self.network, self.inputs, self.target, self.valid = network, inputs, target, valid
        self._check()
        network.require_alive()
        self.generator = torch.Generator().manual_seed(seed)
        self.costs: list[Cost] = []
        self.scorer = self._scorer(slice(None))
        self.costs.extend(self._costs())
        self.scorer.refresh()
        self.history: list[Sweep] = []
        self.finished = self.one_optimal = False
        self.reason = ""
        self._phase = "guided" if self.options.guided else "sweep"
        self._restart = self._rows = 0
        self._first_scales = [layer.scale for layer in network.layers]
        self._best: _Kept | None = None
        self._spent = 0.0
        self._begin = time.perf_counter()
        self.sweeper = Sweeper(network, self.options, self.generator, self._over_budget)
        self._past_macs = self._past_candidates = 0
        units = sum(len(layer.index) for layer in network.layers)
        self._few = int(FEW_MOVES * units)
        self._judge_start()

    def _check(self) -> None:
        options = self.options
        if options.batch is not None and 2 * options.batch > len(self.target):
            raise SpecError(
                f"batch={options.batch} needs two disjoint batches, and there are "
                f"{len(self.target)} samples. Use at most {len(self.target) // 2}, or batch=None."
            )
        if options.keep == "best_valid" and self.valid is None:
            raise SpecError("keep='best_valid' needs validation samples: give valid=(x, y).")
        if self.valid is not None:
            pair = isinstance(self.valid, tuple | list) and len(self.valid) == 2
            require(pair, "valid needs a pair: inputs and targets of the validation samples.")
            as_samples(*self.valid)

    def _scorer(self, rows: Tensor | slice) -> ExactScorer:
        return ExactScorer(
            self.network,
            self.inputs[rows],
            self.target[rows],
            self.options.criterion,
            costs=self.costs,
            batch_statistics=self.options.batch_statistics,
            memory_bytes=self.options.memory_bytes,
        )

    def _costs(self) -> list[Cost]:
        costs: list[Cost] = []
        if self.options.nonzero_cost:
            costs.append(NonzeroCost(self.network, self.options.nonzero_cost))
        if self.options.energy_cost:
            costs.append(energy_cost(self.network, self.options.energy_cost, self.scorer.uses()))
        if self.options.cost is not None:
            costs.append(Cost(self.options.cost))
        return costs

    @property
    def macs(self) -> int:
        """Multiply-accumulates spent so far, on the loss of candidates above all."""
        return self._past_macs + self.scorer.macs

    @property
    def candidates(self) -> int:
        """Moves and blocks of moves whose true loss was computed so far."""
        return self._past_candidates + self.scorer.candidates

    def sweep(self) -> Sweep:
        """Do one sweep and return its row; the network's indices change.

        Raises:
            NotApplicable: the incremental loss is not that of a fresh forward call: a module of the
                model is random, or does not do what it seemed to.
        """
        self._begin = time.perf_counter()
        before = self.candidates
        whole = True
        if self._phase == "pairs":
            accepted = self.sweeper.pairs(self.scorer)
        elif self._phase == "guided":
            accepted, whole = self.sweeper.guided(self.scorer)
        elif self.options.batch is None:
            accepted, whole = self.sweeper.visit_all(self.scorer, None)
        else:
            accepted, whole = self._batches()
        self._require_no_drift(self.scorer.refresh())
        if self.options.scale_search:
            accepted += search_scales(self.scorer)
        row = self._row(accepted, self.candidates - before)
        self.history.append(row)
        self._conclude(row, whole)
        return row

    def _require_no_drift(self, drift: float) -> None:
        if self.options.batch is None and drift > LARGEST_DRIFT * max(1.0, self.scorer.loss):
            raise NotApplicable(
                f"After a sweep the loss and that of a fresh forward call differ by {drift:.2e}. A "
                "module of the model seems to be random in evaluation mode, or to act differently "
                "on parts of its input. Leave that module out of the model."
            )

    def _row(self, accepted: int, candidates: int) -> Sweep:
        self._rows += 1
        valid = None if self.valid is None else self.scorer.measure(*self.valid)
        seconds = time.perf_counter() - self._begin
        self._spent += seconds
        self._begin = time.perf_counter()
        row = Sweep(
            self._phase,
            self._restart,
            self._rows,
            self.scorer.loss,
            self.scorer.error(),
            None if valid is None else valid[1],
            accepted,
            candidates,
            seconds,
        )
        if self.options.keep == "best_valid":
            assert valid is not None
            self._judge(valid[0])
        elif self.options.restarts > 1:
            self._judge(row.loss)
        return row

    def _judge_start(self) -> None:
        """The start may be better on validation than all that comes: it is row 0."""
        if self.options.keep == "best_valid" and self.valid is not None:
            self._judge(self.scorer.measure(*self.valid)[0])

    def _judge(self, loss: float) -> None:
        if self._best is None or loss < self._best.loss:
            reason = f"of the states so far, the best was kept: that after sweep {self._rows}"
            if self.options.restarts > 1:
                reason += f" of restart {self._restart}"
            self._best = _Kept(loss, self.network.state_dict(), False, reason)

    def _note_end(self, reason: str) -> None:
        """What is known of the present state is known of the kept one, where they are the same."""
        if self._best is not None and _same(self._best.layers, self.network.state_dict()):
            if not self._best.one_optimal:
                self._best = replace(self._best, one_optimal=self.one_optimal, reason=reason)

    def _conclude(self, row: Sweep, whole: bool) -> None:
        """Decide what comes next."""
        options = self.options
        self.one_optimal = (
            row.accepted == 0
            and whole
            and row.kind != "guided"
            and options.batch is None
            and options.rule != "gradient"
        )
        if self._over_budget():
            self._note_end("the limit of seconds or candidates is reached")
            self._stop("the limit of seconds or candidates is reached")
        elif row.kind == "guided":
            self._phase = "guided" if row.accepted > self._few else "sweep"
            self._stop_after_sweeps()
        elif row.accepted or not whole or options.batch is not None:
            self._phase = "guided" if options.guided else "sweep"
            self._stop_after_sweeps()
        elif row.kind == "sweep" and options.pairs and not self._rows >= options.sweeps:
            self._phase = "pairs"
        else:
            self._end_restart(self._why_nothing_moved())

    def _why_nothing_moved(self) -> str:
        if self.options.rule != "gradient":
            return "no move improves the loss"
        if self.sweeper.flat:
            return "all gradients are 0, so the rule 'gradient' has no move to try"
        return "no move against the gradient improves the loss"

    def _stop_after_sweeps(self) -> None:
        if self._rows >= self.options.sweeps:
            self._end_restart(f"{self._rows} sweeps are done")

    def _end_restart(self, reason: str) -> None:
        self._note_end(reason)
        if self._restart + 1 >= self.options.restarts:
            self._stop(reason)
            return
        self._restart += 1
        self._rows = 0
        self._phase = "guided" if self.options.guided else "sweep"
        self.network.restart(self.generator, self._first_scales)
        self.scorer.refresh()
        self._judge_start()

    def _stop(self, reason: str) -> None:
        self.finished, self.reason = True, reason

    def _over_budget(self) -> bool:
        options = self.options
        seconds = self._spent + time.perf_counter() - self._begin
        return (options.seconds is not None and seconds >= options.seconds) or (
            options.candidates is not None and self.candidates >= options.candidates
        )

    def _batches(self) -> tuple[int, bool]:
        size = self.options.batch
        assert size is not None
        order = torch.randperm(len(self.target), generator=self.generator)
        first, second = self._scorer(order[:size]), self._scorer(order[size : 2 * size])
        accepted, whole = self.sweeper.visit_all(first, second)
        for scorer in (first, second):
            self._past_macs += scorer.macs
            self._past_candidates += scorer.candidates
        return accepted, whole

    def run(self) -> list[Sweep]:
        """Sweep until it is finished, write the model, and return the history."""
        while not self.finished:
            self.sweep()
        self.finish()
        return self.history

    def finish(self) -> None:
        """Take the kept state, if one is asked for, and write weights and statistics."""
        if self._best is not None:
            self.network.load_state_dict(self._best.layers)
            self.one_optimal, self.reason = self._best.one_optimal, self._best.reason
            self.scorer.refresh()
        self.scorer.write_back()

    def write_back(self) -> None:
        """Write the present weights and statistics into the model."""
        self.scorer.write_back()

    def state_dict(self) -> dict[str, Any]:
        """Return all that a later `load_state_dict` needs to go on to the same bits."""
        return {
            "layers": self.network.state_dict(),
            "best": None if self._best is None else vars(self._best),
            "generator": self.generator.get_state(),
            "history": [list(row) for row in self.history],
            "progress": [self._phase, self._restart, self._rows, self._spent],
            "ending": [self.finished, self.one_optimal, self.reason],
            "counts": [self.macs, self.candidates],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a saved descent was, after a sweep."""
        self.network.load_state_dict(state["layers"])
        self._best = None if state["best"] is None else _Kept(**state["best"])
        self.generator.set_state(state["generator"].cpu())
        self.history = [Sweep(*row) for row in state["history"]]
        self._phase, self._restart, self._rows, self._spent = state["progress"]
        self.finished, self.one_optimal, self.reason = state["ending"]
        self.scorer.refresh()
        macs, candidates = state["counts"]
        self._past_macs = macs - self.scorer.macs
        self._past_candidates = candidates - self.scorer.candidates
