"""Coordinate descent inside a run: charged to the meter, validated, shown, saved and resumed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from whit.core.own_loop import OwnLoop
from whit.core.run import Run
from whit.procedures.coordinate_descent.batches import BLOCK, Batches
from whit.procedures.coordinate_descent.descent import CoordinateDescent
from whit.procedures.coordinate_descent.group_descent import (
    Blocks,
    GroupDescent,
    GroupOptions,
)
from whit.procedures.coordinate_descent.input_block import Level
from whit.procedures.coordinate_descent.neighbourhood import COUPLING_SAMPLES
from whit.procedures.coordinate_descent.network import DiscreteNetwork
from whit.procedures.coordinate_descent.options import SweepOptions
from whit.procedures.coordinate_descent.stages import split_stages
from whit.procedures.coordinate_descent.two_layer import TwoLayer
from whit.procedures.coordinate_descent.two_layer_training import (
    RoundReport,
    descend_to_optimum,
    train_on_batches,
)


def descend_exactly(
    run: Run, loop: OwnLoop, network: DiscreteNetwork, options: SweepOptions
) -> nn.Module:
    """Fill a loop with sweeps of the general engine, one a round; return the trained model.

    Args:
        run: gives the samples, as they are (they are not augmented).
        loop: of the network's model; `options.sweeps * options.restarts` rounds.
        network: whose indices are trained.
        options: of the descent.
    """
    inputs, target = _samples(run)
    valid = None
    if options.keep == "best_valid":
        split = run.data.valid
        valid = split.batch(torch.arange(len(split))).inputs[0], split.target
    with loop:
        state = loop.resume()
        descent = CoordinateDescent(network, inputs, target, options, valid=valid, seed=loop.seed)
        charged = 0
        if state is not None:
            descent.load_state_dict(state)
            charged = descent.macs
        while loop.round < loop.rounds:  # ended early by `last`
            row = descent.sweep()
            loop.meter.add_macs(descent.macs - charged)
            charged = descent.macs
            if descent.finished:
                descent.finish()
            else:
                descent.write_back()
            figures = counted(row.accepted, row.candidates, row.seconds)
            loop.end_round(row.loss, descent.state_dict(), figures=figures, last=descent.finished)
    return network.model.eval()


def _samples(run: Run) -> tuple[Tensor, Tensor]:
    split = run.data.train
    return split.batch(torch.arange(len(split))).inputs[0], split.target


class _GroupRounds:
    """A descent over groups of units as rounds of a loop.

    Args:
        run: gives the samples, and how they are augmented.
        loop: to fill.
        network: of two linear layers, whose indices are trained.
        options: of the descent.
        criterion: "cross_entropy" or "mse".
        augmented: draw batches and augment them; else all samples as they are.
    """

    def __init__(  # noqa: PLR0913 - what surrounds one training
        self,
        run: Run,
        loop: OwnLoop,
        network: DiscreteNetwork,
        options: GroupOptions,
        criterion: str,
        augmented: bool,
    ) -> None:
        """Begin at the network's present weights."""
        self.loop, self.network = loop, network
        self.two_layer = TwoLayer.from_network(network, criterion)
        front, _ = split_stages(network)
        self.batches = Batches(
            run.data.train.inputs[0],
            run.data.train.target,
            nn.Sequential(*front),
            bias=self.two_layer.first.bias,
            augment=run.data.augment if augmented else None,
            seed=loop.seed,
        )
        self.descent = GroupDescent(self.two_layer, options, loop.seed)
        self.in_epoch = max(1, len(run.data.train.target) // BLOCK)
        self.tried = {id(self.descent): 0}
        self.seconds = 0.0
        self.shown = 0, 0, 0.0  # accepted, candidates and seconds when the last round ended

    def resume(self) -> None:
        """Go on where a killed run was."""
        state = self.loop.resume()
        if state is not None:
            self.descent.load_state_dict(state["descent"])
            self.tried[id(self.descent)] = self.descent.tally.tried
            self.batches.taken = state["taken"]
            self.seconds = state["seconds"]
            self.shown = self.descent.tally.accepted, self.descent.tally.candidates, self.seconds

    def end_round(self, loss: float, seconds: float, last: bool = False, **more: float) -> None:
        """Write the weights and end a round of the loop; `more` is shown too."""
        self.two_layer.write_to(self.network)
        state: dict[str, Any] = {
            "descent": self.descent.state_dict(),
            "taken": self.batches.taken,
            "seconds": seconds,
        }
        tally = self.descent.tally
        done = tally.accepted - self.shown[0], tally.candidates - self.shown[1]
        figures = counted(*done, seconds - self.shown[2]) | more
        self.shown = tally.accepted, tally.candidates, seconds
        self.loop.end_round(loss, state, figures=figures, last=last)

    def charge(self, descent: GroupDescent) -> None:
        """Charge the sums and products of the sweep that a descent has just done."""
        tried = descent.tally.tried
        macs = sweep_macs(descent, tried - self.tried.get(id(descent), 0))
        self.loop.meter.add_macs(macs)
        self.tried[id(descent)] = tried

    def stream(self, seconds: float | None) -> None:
        """Train on growing batches for the loop's rounds as epochs, or for a time."""
        total = self.loop.rounds * self.in_epoch if seconds is None else None
        loss = float("nan")

        def on_round(report: RoundReport) -> None:
            nonlocal loss
            self.charge(self.descent)
            loss, self.seconds = report.loss, report.seconds
            part = self.batches.taken / total if total else self.seconds / (seconds or 1.0)
            if (
                part * self.loop.rounds >= self.loop.round + 1
                and self.loop.round < self.loop.rounds
            ):
                if self.loop.round + 1 == self.loop.rounds:
                    loss = self.rounded()
                self.end_round(loss, self.seconds)

        train_on_batches(
            self.descent,
            self.batches,
            seconds=seconds,
            rounds=total,
            spent=self.seconds,
            on_round=on_round,
        )
        if self.loop.round < self.loop.rounds:
            self.end_round(self.rounded(), self.seconds, last=True)

    def rounded(self) -> float:
        """Round free scales, and return the loss of the last batch at them."""
        if not self.descent.network.rows:  # a resumed run had no time left for a batch
            self.descent.load(self.batches.all())
        self.descent.round_scales()
        return self.descent.loss

    def fixed(self, seconds: float | None) -> None:
        """Sweep over all samples as they are, so that their loss never rises."""
        blocks = self.batches.all()
        while self.loop.round < self.loop.rounds:
            begin = self.loop.meter.charge().train_seconds
            self.descent.load(blocks)
            accepted = self.descent.sweep()
            self.charge(self.descent)
            spent = self.loop.meter.charge().train_seconds - begin
            more: dict[str, float] = {}
            if not accepted:
                left = None if seconds is None else seconds - self.seconds - spent
                more["one_optimal"] = float(self.certified(blocks, left))
            self.seconds += self.loop.meter.charge().train_seconds - begin
            over = seconds is not None and self.seconds >= seconds
            self.end_round(self.descent.loss, self.seconds, over or not accepted, **more)

    def certified(self, blocks: Blocks, seconds: float | None) -> bool:
        """Go on by exact scores in float64; say whether the end is certified to be 1-optimal.

        Args:
            blocks: all samples, float32.
            seconds: most that it may take; None for no limit.
        """
        exact: list[GroupDescent] = []

        def on_sweep(one: GroupDescent) -> None:
            self.charge(one)
            if one is not self.descent:
                exact[:] = [one]

        certificate = descend_to_optimum(
            self.descent, self.batches.all(torch.float64), seconds=seconds, on_sweep=on_sweep
        )
        tally = self.descent.tally
        for one in exact:
            tally.accepted += one.tally.accepted
            tally.candidates += one.tally.candidates
        self.descent.load(blocks)
        if certificate is None:
            return False
        self.loop.meter.add_macs(sweep_macs(exact[0], 0))
        tally.candidates += certificate.candidates
        self.descent.loss = certificate.loss
        return True


def counted(accepted: int, candidates: int, seconds: float) -> dict[str, float]:
    """Return what the progress of a round shows."""
    return {"moves": accepted, "candidates/s": candidates / max(seconds, 1e-9)}


def sweep_macs(descent: GroupDescent, tried: int) -> int:
    """Return the multiply-accumulates of one sweep on the batch that is loaded.

    The forward pass, one sum over the entries of each level for every unit and every distance
    between values, the softmax mass of every unit, the curvature between units, and the true
    losses that were tried.

    Args:
        descent: after the sweep.
        tried: sets of moves of which the true loss was computed in it.
    """
    network = descent.network
    hidden, outputs = network.hidden, network.second.index.shape[0]
    levels = network.first.values.tolist()
    near = descent.options.adjacent
    distances = {
        b - a
        for i, a in enumerate(levels)
        for j, b in enumerate(levels)
        if i != j and (not near or abs(i - j) == 1)
    }
    entries = sum(_entries(level) for rows in network.rows for level in rows.inputs.levels)
    samples = network.samples
    forward = samples * hidden * (network.first.index.shape[1] + outputs)
    scores = hidden * (len(distances) * entries + samples * outputs)
    group = min(descent.options.group, hidden)
    curvature = hidden * group * outputs * min(samples, COUPLING_SAMPLES)
    return forward + scores + curvature + tried * samples * group * outputs


def _entries(level: Level) -> int:
    held = level.dense if level.dense is not None else level.rows
    return 0 if held is None else held.numel()


def descend_by_groups(  # noqa: PLR0913 - run, loop and network, then how, by name
    run: Run,
    loop: OwnLoop,
    network: DiscreteNetwork,
    options: GroupOptions,
    *,
    criterion: str,
    monotone: bool,
    seconds: float | None = None,
) -> nn.Module:
    """Fill a loop with the whole-neighbourhood descent of two layers; return the trained model.

    Args:
        run: gives the samples.
        loop: of the network's model; a round is an epoch of fresh blocks, or a share of the
            seconds, or, with `monotone`, a sweep.
        network: `... -> Linear -> elementwise activation -> Linear`.
        options: of the sweeps.
        criterion: "cross_entropy" or "mse".
        monotone: sweep over all samples as they are, so that their loss never rises, and where
            nothing is accepted any more go on by exact scores until no single move improves; else
            over growing batches, with the task's augmentation.
        seconds: most seconds; None for the rounds alone.

    Raises:
        NotApplicable: it is another network.
    """
    rounds = _GroupRounds(run, loop, network, options, criterion, not monotone)
    with loop:
        rounds.resume()
        if loop.round < loop.rounds:
            (rounds.fixed if monotone else rounds.stream)(seconds)
    return network.model.eval()
