"""The scorecard: every number that is reported of a model, computed by the same code for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from whit.errors import CannotPack, WhitError
from whit.measure.columns import PACKED_COLUMNS
from whit.measure.cost import cost_of, route_shares
from whit.measure.latency import Latency
from whit.measure.meter import Charge
from whit.packing.packer import Packed, float_inputs, pack

SCHEMA = 1
_LATENCY_COLUMNS = (
    "latency_ms",
    "latency_iqr_ms",
    "latency_backend",
    "latency_threads",
    "torch_latency_ms",
)
_PACKED_COLUMNS = (
    *PACKED_COLUMNS,
    "macs_by_width",
    "route_shares",
    "layers",
    "latency_backend",
    "latency_threads",
)


@dataclass(frozen=True)
class Scorecard:
    """All numbers of one trained model; unknown is None with an entry in `reasons`, never 0.

    Attributes:
        metric: name of the quality measure; higher is better.
        valid_score: quality on the validation split, for choosing.
        test_score: quality on the test split, for reporting.
        params: numbers in the effective weights and biases.
        nonzero_params: those that are not 0.
        weight_bytes: of all constants in the packed file.
        stored_bytes: of the whole packed file.
        macs: multiply-accumulates of one inference; where a route chooses between members, the mean
            over the validation inputs, as are `macs_by_width`, `flops_per_byte` and energy.
        macs_by_width: by weight and activation bits, as "w1a32".
        macs_if_all_ran: of one inference that needs all members of its routes.
        route_shares: for each route of the file, the shares of the validation inputs in its
            situations; they add up to the share that comes to the route.
        activation_peak_bytes: most bytes of values that exist at once.
        flops_per_byte: operations over bytes of weights and activations moved.
        energy_nj: modelled energy of one inference (45 nm table), compute and memory.
        energy_compute_nj: the compute part.
        energy_memory_nj: the memory part.
        latency_ms: median time of one inference, batch 1; behind a route, over up to 64 samples.
        latency_iqr_ms: its spread between quartiles.
        latency_backend: that was timed.
        latency_threads: that it could use.
        torch_latency_ms: median time of the model in torch, float32, 1 thread, batch 1.
        layers: of the packed file, one mapping for each weight: module, kind, format, bits (stored
            ones for each weight, scales included), weights, before_bytes (as float32), after_bytes,
            huffman_bytes (None where it makes no sense) and the reason for the format.
        packed_agreement: share of validation samples that file and model give the same class.
        train_macs: multiply-accumulates of all training.
        train_seconds: wall time of all training.
        train_peak_bytes: peak resident memory while training.
        exchanged_bytes: sent to other processes.
        reasons: why a column is unknown.
        schema: version of these columns.
    """

    metric: str
    valid_score: float
    test_score: float
    params: int
    nonzero_params: int
    weight_bytes: int | None = None
    stored_bytes: int | None = None
    macs: int | None = None
    macs_by_width: dict[str, int] | None = None
    macs_if_all_ran: int | None = None
    route_shares: list[list[float]] | None = None
    activation_peak_bytes: int | None = None
    flops_per_byte: float | None = None
    energy_nj: float | None = None
    energy_compute_nj: float | None = None
    energy_memory_nj: float | None = None
    latency_ms: float | None = None
    latency_iqr_ms: float | None = None
    latency_backend: str | None = None
    latency_threads: int | None = None
    torch_latency_ms: float | None = None
    packed_agreement: float | None = None
    layers: list[dict[str, Any]] | None = None
    train_macs: int = 0
    train_seconds: float = 0.0
    train_peak_bytes: int | None = None
    exchanged_bytes: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA

    def as_dict(self) -> dict[str, Any]:
        """Return the columns by name; the scores are named `valid_<metric>` and `test_<metric>`."""
        renamed = {"valid_score": f"valid_{self.metric}", "test_score": f"test_{self.metric}"}
        return {renamed.get(f.name, f.name): getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Scorecard:
        """Rebuild a scorecard from `as_dict`; columns of a newer schema are left out.

        Raises:
            WhitError: a column that must be there is missing.
        """
        try:
            metric = row["metric"]
            scores = {f"{split}_score": row[f"{split}_{metric}"] for split in ("valid", "test")}
            known = {f.name for f in fields(cls)}
            return cls(**scores, **{k: v for k, v in row.items() if k in known})
        except (KeyError, TypeError) as error:
            raise WhitError(f"The stored scorecard lacks a column: {error}.") from None

    def with_latency(self, latency: Latency, no_torch: str = "") -> Scorecard:
        """Return the scorecard with the latency filled in.

        Args:
            latency: of the packed file, and of the model in torch where it was timed.
            no_torch: why it was not.
        """
        reasons = {k: v for k, v in self.reasons.items() if k not in _LATENCY_COLUMNS}
        if latency.torch_median_ms is None:
            reasons["torch_latency_ms"] = no_torch or "the model in torch was not timed"
        return replace(
            self,
            latency_ms=latency.median_ms,
            latency_iqr_ms=latency.iqr_ms,
            latency_backend=latency.backend,
            latency_threads=latency.threads,
            torch_latency_ms=latency.torch_median_ms,
            reasons=reasons,
        )


@dataclass(frozen=True)
class Subject:
    """What a model is measured on.

    Attributes:
        predict: `(model, split) -> output`, one combined output per sample.
        valid: split with `inputs`, `target` and a length.
        test: likewise; read once, by `measure`.
        metric: `(output, target) -> float`, higher is better.
        metric_name: for the columns.
        example: at most 64 raw samples; uint8 ones reach the model as float32.
        labels: class names, may be empty.
        input_range: lowest and highest raw input value, if known.
        info: task, spec, seed and the like, stored in the file.
        combine: output of members or exits -> one output per sample, as `predict` does it.
    """

    predict: Callable[[nn.Module, Any], Tensor]
    valid: Any
    test: Any
    metric: Callable[[Tensor, Tensor], float]
    metric_name: str
    example: tuple[Tensor, ...]
    labels: tuple[str, ...] = ()
    input_range: tuple[float, float] | None = None
    info: dict[str, Any] = field(default_factory=dict)
    combine: Callable[[Tensor], Tensor] = torch.Tensor.float


@dataclass(frozen=True)
class Measured:
    """A scorecard with what came about on the way.

    Attributes:
        scorecard: the numbers.
        packed: the packed file, None when the scorecard's reasons say why.
        test_correct: uint8 [test samples], 1 where the class is right; None for other targets.
    """

    scorecard: Scorecard
    packed: Packed | None
    test_correct: NDArray[np.uint8] | None


def measure(model: nn.Module, subject: Subject, trained: Charge) -> Measured:
    """Measure a trained model; the only reader of the test split.

    Args:
        model: trained and finished.
        subject: splits, metric, and what the packed file should say of itself.
        trained: what training cost.
    """
    valid = subject.predict(model, subject.valid)
    test = subject.predict(model, subject.test)
    params, nonzero = count_parameters(model)
    reasons: dict[str, str] = {}
    packed = _packed(model, subject, reasons)
    columns = {} if packed is None else _packed_columns(packed, subject, valid, reasons)
    if trained.train_peak_bytes is None:
        reasons["train_peak_bytes"] = "this system does not tell the peak memory of a process"
    scorecard = Scorecard(
        metric=subject.metric_name,
        valid_score=float(subject.metric(valid, subject.valid.target)),
        test_score=float(subject.metric(test, subject.test.target)),
        params=params,
        nonzero_params=nonzero,
        train_macs=trained.train_macs,
        train_seconds=trained.train_seconds,
        train_peak_bytes=trained.train_peak_bytes,
        exchanged_bytes=trained.exchanged_bytes,
        reasons=reasons,
        **columns,
    )
    return Measured(scorecard, packed, _correct(test, subject))


def effective_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters as the forward call sees them: `module.weight`, after parametrisations."""
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        if "parametrizations" in prefix.split("."):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{prefix}.{name}".lstrip("."), parameter
        if parametrize.is_parametrized(module) and isinstance(
            module.parametrizations, nn.ModuleDict
        ):
            for name in module.parametrizations:
                yield f"{prefix}.{name}".lstrip("."), getattr(module, name)


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Return how many numbers the effective parameters have, and how many are not 0."""
    total = nonzero = 0
    with torch.no_grad():
        for _, tensor in effective_tensors(model):
            total += tensor.numel()
            nonzero += int(torch.count_nonzero(tensor))
    return total, nonzero


def _packed(model: nn.Module, subject: Subject, reasons: dict[str, str]) -> Packed | None:
    try:
        with float_inputs(model):
            return pack(
                model,
                *subject.example,
                labels=list(subject.labels) or None,
                info={name: str(value) for name, value in subject.info.items()},
                input_range=subject.input_range,
            )
    except CannotPack as error:
        reasons.update(dict.fromkeys(_PACKED_COLUMNS, str(error)))
        return None


def _packed_columns(
    packed: Packed, subject: Subject, valid: Tensor, reasons: dict[str, str]
) -> dict[str, Any]:
    program = packed.program
    peak = program.activation_peak_bytes
    shares, routes = route_shares(program, subject.valid.inputs[0].numpy())
    cost = cost_of(program.operators, peak, shares)
    if not routes:
        reasons["route_shares"] = "the network has no route"
    untimed = "not timed yet: latency is measured alone, after all trainings"
    reasons.update(dict.fromkeys(_LATENCY_COLUMNS, untimed))
    agreement = _agreement(packed, subject, valid)
    if agreement is None:
        reasons["packed_agreement"] = "the output is not one class per sample"
    return {
        "weight_bytes": packed.weight_bytes,
        "stored_bytes": packed.nbytes,
        "macs": cost.macs,
        "macs_by_width": cost.macs_by_width,
        "macs_if_all_ran": cost_of(program.operators, peak).macs,
        "route_shares": routes or None,
        "activation_peak_bytes": cost.activation_peak_bytes,
        "flops_per_byte": cost.flops_per_byte,
        "energy_nj": cost.energy.total_nj,
        "energy_compute_nj": cost.energy.compute_nj,
        "energy_memory_nj": cost.energy.memory_nj,
        "packed_agreement": agreement,
        "layers": [asdict(layer) for layer in packed.layers],
    }


def _agreement(packed: Packed, subject: Subject, valid: Tensor) -> float | None:
    """Return the share of validation samples whose class is the same in torch and in the file."""
    if valid.dim() != 2 or subject.valid.target.dtype != torch.int64:
        return None
    raw = subject.valid.inputs[0].numpy()
    same = 0
    for start in range(0, len(raw), 256):
        given = packed.program(raw[start : start + 256])
        output = subject.combine(torch.from_numpy(given)).numpy()
        same += int((output.argmax(-1) == valid[start : start + 256].argmax(-1).numpy()).sum())
    return same / len(raw)


def _correct(output: Tensor, subject: Subject) -> NDArray[np.uint8] | None:
    target = subject.test.target
    if subject.metric_name != "accuracy" or output.shape[:-1] != target.shape:
        return None
    correct: NDArray[np.uint8] = (output.argmax(-1) == target).to(torch.uint8).numpy().reshape(-1)
    return correct
