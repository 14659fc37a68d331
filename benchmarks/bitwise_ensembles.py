r"""Accuracy of a stochastic bitwise ensemble against the number of members, and against its cost.

    python benchmarks/bitwise_ensembles.py "mnist(model='mlp4')" --epochs 8 --seeds 3 \
        --out results/bitwise_ensembles.jsonl --page bitwise_ensembles.html

For each seed one latent network is trained, and M = 1, 2, 4, 8, 16, 32 members are drawn from it
ten times. Beside it stand, trained with the same settings: the float control, the deterministic
network (nearest levels in training, too), and networks of 2, 4 and 8 bits; and the nearest levels
of the latent network itself. Validation is read unless --test is given.

One line a network, seed and M: mean and standard deviation over the draws, and bit operations of
one inference (multiply-accumulates times weight bits times activation bits, members added up).
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

import whit
from whit.core.execution import Conditions, Trained, train
from whit.core.technique import Technique
from whit.measure.cost import cost_of
from whit.measure.provenance import provenance
from whit.measure.store import Store
from whit.methods.low_bit.stochastic_bitwise_ensemble import (
    coin,
    draw_members,
    stochastic_weights,
)
from whit.packing import pack
from whit.parts.combine_members import OUTPUTS, Combine
from whit.parts.group import Group
from whit.parts.level_draws import draw_network
from whit.parts.levels import latent_limit
from whit.parts.surgery import bake
from whit.procedures.latent_weights import ClipLatentWeights

MEMBERS = (1, 2, 4, 8, 16, 32)
BITS = (2, 4, 8)


@dataclass(frozen=True)
class Trial:
    """What is the same in all rows of one call."""

    options: argparse.Namespace
    seed: int
    store: Store | None
    rows: list[dict]

    def add(self, network: str, scores: list[float], bit_operations: int, **more: object) -> None:
        row = {
            "network": network,
            "task": self.options.task,
            "seed": self.seed,
            "split": "test" if self.options.test else "valid",
            "mean": statistics.mean(scores),
            "deviation": statistics.stdev(scores) if len(scores) > 1 else None,
            "scores": scores,
            "bit_operations": bit_operations,
            **more,
            "threads": torch.get_num_threads(),
            **provenance(),
        }
        self.rows.append(row)
        if self.store is not None:
            self.store.append(row)
        spread = f" +- {row['deviation']:.4f}" if row["deviation"] is not None else ""
        print(
            f"seed {self.seed}  {network:14s} {more.get('members', ''):>3} "
            f"{more.get('output', ''):8s} {row['mean']:.4f}{spread}  {bit_operations:.3g} bit ops",
            flush=True,
        )


def levelled(values: object, rounding: str, options: argparse.Namespace) -> Technique:
    """Return latent training with these values; the latent network is what comes out."""

    def prepare(model: nn.Module, data: object) -> nn.Module:
        skip = options.real_layers.split(",") if options.real_layers else ()
        return stochastic_weights(model, values, scale=options.scale, rounding=rounding, skip=skip)

    return Technique(
        prepare_model=prepare,
        hooks=(lambda model, plan: ClipLatentWeights(model, plan, latent_limit(model)),),
    )


def trained_with(technique: Technique, trial: Trial) -> Trained:
    task = whit.task(trial.options.task)
    partner = whit.spec(trial.options.partner) if trial.options.partner else Technique()
    # The latent network must stay parametrised: nothing is finished here.
    technique = replace(technique + partner, finish_model=lambda model, data: model)
    settings = task.settings
    if trial.options.epochs:
        settings = settings.changed(epochs=trial.options.epochs)
    begin = time.perf_counter()
    trained = train(task, technique, settings, Conditions(seed=trial.seed))
    print(f"trained in {time.perf_counter() - begin:.0f} s", flush=True)
    return trained


def score_of(trained: Trained, trial: Trial) -> Callable[[nn.Module], float]:
    split = trained.test if trial.options.test else trained.run.data.valid
    return lambda model: trained.run.evaluate(model, split)


def bit_operations(model: nn.Module, trained: Trained) -> int:
    """Return multiply-accumulates times weight bits times activation bits of one inference."""
    packed = pack(model, *trained.run.data.valid.raw_example(8))
    program = packed.program
    cost = cost_of(program.operators, program.activation_peak_bytes)
    return sum(
        macs * int(width[1:].split("a")[0]) * int(width.split("a")[1])
        for width, macs in cost.macs_by_width.items()
    )


def run(trial: Trial) -> None:
    options = trial.options
    control = trained_with(Technique(), trial)
    model = control.model
    trial.add("float", [score_of(control, trial)(model)], bit_operations(model, control))
    for bits in BITS:
        largest = 2 ** (bits - 1) - 1
        values = list(range(-largest, largest + 1))
        trained = trained_with(levelled(values, "nearest", options), trial)
        baked = bake(copy.deepcopy(trained.model))
        trial.add(f"{bits} bits", [score_of(trained, trial)(baked)], bit_operations(baked, trained))
    latent = trained_with(levelled(options.values, "stochastic", options), trial)
    score = score_of(latent, trial)
    nearest = bake(copy.deepcopy(latent.model))
    trial.add("nearest level", [score(nearest)], bit_operations(nearest, latent))
    fixed = trained_with(levelled(options.values, "nearest", options), trial)
    deterministic = bake(copy.deepcopy(fixed.model))
    cost = bit_operations(deterministic, fixed)
    trial.add("deterministic", [score_of(fixed, trial)(deterministic)], cost)
    add_ensembles(trial, latent, score)


def add_ensembles(trial: Trial, latent: Trained, score: Callable[[nn.Module], float]) -> None:
    options = trial.options
    one = draw_network(latent.model, coin(0, 0))
    cost = bit_operations(one, latent)
    for output in OUTPUTS:
        scores: dict[int, list[float]] = {members: [] for members in MEMBERS}
        for draw in range(options.draws):
            group = draw_members(
                latent.model,
                max(MEMBERS),
                seed=draw,
                register=options.register,
                antithetic=options.antithetic,
            )
            for members in MEMBERS:
                part = Group(list(group.members)[:members])
                scores[members].append(score(nn.Sequential(part, Combine(output))))
        for members in MEMBERS:
            more = {"members": members, "output": output, "register": options.register}
            trial.add(
                "ensemble",
                scores[members],
                members * cost,
                antithetic=options.antithetic,
                **more,
            )


def write_page(rows: list[dict], path: Path) -> None:
    """Write a page with accuracy against members and against bit operations."""
    from plotly import graph_objects
    from plotly.subplots import make_subplots

    figure = make_subplots(1, 2, subplot_titles=("members", "bit operations of one inference"))
    ensembles = [row for row in rows if row["network"] == "ensemble"]
    for seed in sorted({row["seed"] for row in rows}):
        for output in OUTPUTS:
            line = [r for r in ensembles if (r["seed"], r["output"]) == (seed, output)]
            for column, name in ((1, "members"), (2, "bit_operations")):
                curve = graph_objects.Scatter(
                    x=[row[name] for row in line],
                    y=[row["mean"] for row in line],
                    error_y={"type": "data", "array": [row["deviation"] for row in line]},
                    name=f"ensemble, {output}, seed {seed}",
                    legendgroup=output,
                    showlegend=column == 1,
                    mode="lines+markers",
                )
                figure.add_trace(curve, 1, column)
        for row in rows:
            if row["seed"] == seed and row["network"] != "ensemble":
                point = graph_objects.Scatter(
                    x=[row["bit_operations"]],
                    y=[row["mean"]],
                    mode="markers+text",
                    text=[row["network"]],
                    textposition="top center",
                    name=f"{row['network']}, seed {seed}",
                )
                figure.add_trace(point, 1, 2)
    figure.update_xaxes(type="log")
    figure.update_yaxes(title_text=f"accuracy, {rows[0]['split']}", col=1)
    figure.write_html(path, include_plotlyjs=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task")
    parser.add_argument("--values", default="binary", help="a name of a set of values")
    parser.add_argument("--scale", default="layer", choices=("none", "layer", "channel"))
    parser.add_argument(
        "--real-layers", default="", help="paths of layers that stay real, by comma"
    )
    parser.add_argument("--partner", default="", help='a spec, "binarized_network(weights=False)"')
    parser.add_argument("--epochs", type=int, default=0, help="instead of the task's own")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--register", type=int, help="bits of a shift register that rounds")
    parser.add_argument("--antithetic", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--test", action="store_true", help="read the test split: once, at the end")
    parser.add_argument("--out", type=Path, help="JSON lines are added to this file")
    parser.add_argument("--page", type=Path, help="an HTML page with the plots")
    options = parser.parse_args()
    torch.set_num_threads(1)
    store = Store(options.out) if options.out else None
    rows: list[dict] = []
    for seed in range(options.seed, options.seed + options.seeds):
        run(Trial(options, seed, store, rows))
    if options.page:
        write_page(rows, options.page)


if __name__ == "__main__":
    main()
