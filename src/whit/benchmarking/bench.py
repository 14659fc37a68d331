"""`whit bench`: a packed network and its peers, timed in turns in one process."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whit.benchmarking.float_twin import FloatTwin, NoTwin, drawn_inputs, float_twin, twin_inputs
from whit.benchmarking.machine import Check, Peak, about_machine, look, measure_peak
from whit.benchmarking.peers import FLOAT, INTEGER, PEERS, TORCH, Call, Peer, Peers, build_peers
from whit.benchmarking.turns import Times, time_in_turns
from whit.errors import WhitError
from whit.runtime import Program, load

SCHEMA = 1
EQUAL = 0.03  # ratios nearer to 1 are called equal
CALIBRATION = 64
COMPARED = 64  # samples on which native kernels and NumPy are compared
MOST_BATCH = 4096
WARM, COLD = "warm", "cold"
AHEAD, LEVEL, BEHIND, DISTURBED, ALONE = "faster", "equal", "slower", "disturbed", "no peer"

Array = NDArray[Any]


@dataclass(frozen=True)
class Plan:
    """What is to be timed.

    Attributes:
        batches: samples of one call.
        threads: that every candidate may use.
        turns: how often every candidate has its turn.
        cold: also with empty caches.
        peers: names out of `PEERS`.
    """

    batches: tuple[int, ...] = (1, 64)
    threads: tuple[int, ...] = (1,)
    turns: int = 15
    cold: bool = False
    peers: tuple[str, ...] = PEERS

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, numbers, most in (
            ("batch", self.batches, MOST_BATCH),
            ("threads", self.threads, 1024),
            ("repetitions", (self.turns,), 100_000),
        ):
            if not numbers or not all(1 <= number <= most for number in numbers):
                given = ",".join(map(str, numbers))
                raise WhitError(
                    f"--{name} was given as '{given}'; give whole numbers from 1 to {most:,}."
                )


@dataclass(frozen=True)
class Candidate:
    """One way to run the network, timed.

    Attributes:
        name: "whit native", "whit reference" or a name of `PEERS`.
        kind: "whit", "float32" or "int8".
        stored_bytes: of its file or weights.
        times: of one call.
    """

    name: str
    kind: str
    stored_bytes: int
    times: Times


@dataclass(frozen=True)
class BenchRow:
    """All candidates at one batch size, number of threads and state of the caches.

    Attributes:
        file: as it was given.
        batch: samples of one call.
        threads: that every candidate could use.
        caches: "warm" or "cold".
        candidates: whit first.
        verdict: against the quickest peer: "faster", "equal", "slower"; "no peer" without one;
            "disturbed" where the machine was not quiet before or after.
    """

    file: str
    batch: int
    threads: int
    caches: str
    candidates: tuple[Candidate, ...]
    verdict: str

    @property
    def whit(self) -> Candidate:
        """The packed network."""
        return self.candidates[0]

    def peer(self, name: str) -> Candidate | None:
        """Return the peer of a name, None when it was not timed."""
        return next((c for c in self.candidates[1:] if c.name == name), None)

    def best(self, kind: str | None = None) -> Candidate | None:
        """Return the peer of the lowest median, None when there is none.

        Args:
            kind: "float32" or "int8"; None for both.
        """
        peers = [c for c in self.candidates[1:] if kind is None or c.kind == kind]
        return min(peers, key=lambda peer: peer.times.median_ms, default=None)

    def ratio(self, peer: Candidate | None, of: str = "median_ms") -> float | None:
        """Return how many times quicker than a peer the packed network is."""
        if peer is None:
            return None
        return float(getattr(peer.times, of) / getattr(self.whit.times, of))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        found: dict[str, Any] = {
            "file": self.file,
            "batch": self.batch,
            "threads": self.threads,
            "caches": self.caches,
            "verdict": self.verdict,
            "candidates": [
                {"name": c.name, "kind": c.kind, "stored_bytes": c.stored_bytes, **asdict(c.times)}
                for c in self.candidates
            ],
        }
        compared = {
            "torch": self.peer(TORCH),
            "best_float32": self.best(FLOAT),
            "best_int8": self.best(INTEGER),
        }
        for name, peer in compared.items():
            found[name] = None if peer is None else peer.name
            found[f"{name}_ratio"] = self.ratio(peer)
            found[f"{name}_minimum_ratio"] = self.ratio(peer, "minimum_ms")
        return found


@dataclass(frozen=True)
class Network:
    """A packed network as it was benchmarked.

    Attributes:
        file: as it was given.
        stored_bytes: of the file.
        backend: "native" or "reference".
        isa: instruction set of the kernels.
        spec: technique that made it, as the file states.
        samples: inputs on which classes were compared.
        same_class: of these, how many have the same class in NumPy; None when there are no classes.
        largest_difference: of an output from NumPy's.
        twin_bytes: of the float twin's weights; None when there is no twin.
        twin_same: whether the twin computes the same as the file.
        missing: peers that could not be built, and why.
    """

    file: str
    stored_bytes: int
    backend: str
    isa: str
    spec: str
    samples: int
    same_class: int | None
    largest_difference: float
    twin_bytes: int | None = None
    twin_same: bool | None = None
    missing: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """The result of one benchmark.

    Attributes:
        machine: processor, versions, time.
        peak: of one core in float32; None when it could not be measured.
        checks: by number of threads, the look at the machine before and after.
        networks: one a file.
        rows: the timings.
        command: that was given.
    """

    machine: dict[str, Any]
    peak: Peak | None
    checks: dict[int, tuple[Check, Check]]
    networks: tuple[Network, ...]
    rows: tuple[BenchRow, ...]
    command: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "schema": SCHEMA,
            "command": self.command,
            "machine": self.machine,
            "peak": None if self.peak is None else asdict(self.peak),
            "checks": {
                str(threads): [{**asdict(check), "disturbed": check.disturbed} for check in pair]
                for threads, pair in self.checks.items()
            },
            "networks": [asdict(network) for network in self.networks],
            "rows": [row.as_dict() for row in self.rows],
        }


@dataclass
class _Subject:
    """One file with its programs, inputs and peers."""

    file: str
    path: Path
    inputs: Array
    peers: Peers
    twin: FloatTwin | None
    network: Network


def run_bench(
    files: Sequence[Path],
    plan: Plan,
    *,
    inputs: Array | None = None,
    command: str = "",
    tell: Callable[[str], None] = lambda text: None,
) -> Bench:
    """Benchmark packed networks against their peers.

    Args:
        files: .whit files.
        plan: batch sizes, threads, turns, peers.
        inputs: raw samples [n, ...] for all files, for agreement, calibration and timing; drawn
            ones within the range that a file states when None.
        command: to be kept with the result.
        tell: called with a line on what begins.

    Raises:
        WhitError: a file cannot be read, or the inputs do not fit.
    """
    rows: list[BenchRow] = []
    checks: dict[int, tuple[Check, Check]] = {}
    with tempfile.TemporaryDirectory() as place:
        subjects = []
        for number, path in enumerate(files):
            tell(f"{path}: building the peers")
            subjects.append(_subject(path, inputs, plan, Path(place, str(number))))
        peak = measure_peak()
        for threads in plan.threads:
            before = look(threads, peak)
            found = []
            for subject in subjects:
                tell(f"{subject.file}: timing at {_counted(threads, 'thread')}")
                found += _rows(subject, plan, threads)
            checks[threads] = (before, look(threads, peak))
            disturbed = any(check.disturbed for check in checks[threads])
            rows += [_judged(row, disturbed) for row in found]
    networks = tuple(subject.network for subject in subjects)
    return Bench(about_machine(), peak, checks, networks, tuple(rows), command)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _subject(path: Path, given: Array | None, plan: Plan, folder: Path) -> _Subject:
    folder.mkdir()
    program = load(path)
    samples = max(CALIBRATION, *plan.batches)
    inputs = drawn_inputs(program, samples) if given is None else _repeated(given, samples)
    twin, peers = None, Peers()
    try:
        twin = float_twin(program)
        like = twin_inputs(twin.program, inputs[:CALIBRATION])
        peers = build_peers(twin, like, folder, plan.peers)
    except NoTwin as error:
        peers.missing = dict.fromkeys(plan.peers, f"no float twin: {error}")
    network = _network(path, program, inputs, twin, peers)
    return _Subject(str(path), path, inputs, peers, twin, network)


def _repeated(given: Array, samples: int) -> Array:
    """Return so many samples, the given ones over and over."""
    return np.ascontiguousarray(np.resize(given, (max(samples, len(given)), *given.shape[1:])))


def _network(
    path: Path, program: Program, inputs: Array, twin: FloatTwin | None, peers: Peers
) -> Network:
    compared = inputs[:COMPARED]
    found, expected = program(compared), load(path, backend="reference")(compared)
    same = None
    if expected.ndim == 2 and expected.shape[1] > 1:
        same = int((found.argmax(-1) == expected.argmax(-1)).sum())
    return Network(
        file=str(path),
        stored_bytes=path.stat().st_size,
        backend=program.info["backend"],
        isa=isa_of(program),
        spec=program.info.get("spec", ""),
        samples=len(compared),
        same_class=same,
        largest_difference=float(np.abs(found - expected).max(initial=0.0)),
        twin_bytes=None if twin is None else twin.weight_bytes,
        twin_same=None if twin is None else twin.same,
        missing=peers.missing,
    )


def isa_of(program: Program) -> str:
    """Return the instruction set that a program's kernels use."""
    if program.info["backend"] != "native":
        return "NumPy"
    return program.info.get("isa", "unknown")


def _rows(subject: _Subject, plan: Plan, threads: int) -> list[BenchRow]:
    rows = []
    program = load(subject.path, threads=threads)
    with _torch_threads(threads), _blas_threads(threads):
        for batch in plan.batches:
            names, calls = _calls(subject, program, batch, threads)
            for caches in (WARM, COLD) if plan.cold else (WARM,):
                times = time_in_turns(calls, plan.turns, cold=caches == COLD, threads=threads)
                candidates = tuple(
                    Candidate(name, kind, size, times[name]) for name, kind, size in names
                )
                rows.append(BenchRow(subject.file, batch, threads, caches, candidates, ""))
    return rows


def _calls(
    subject: _Subject, program: Program, batch: int, threads: int
) -> tuple[list[tuple[str, str, int]], dict[str, Call]]:
    raw = np.ascontiguousarray(subject.inputs[:batch])
    name = f"whit {subject.network.backend}"
    names = [(name, "whit", subject.network.stored_bytes)]
    calls: dict[str, Call] = {name: lambda: program(raw)}
    if subject.twin is not None:
        floats = twin_inputs(subject.twin.program, raw)
        for peer in subject.peers.built:
            names.append((peer.name, peer.kind, peer.stored_bytes))
            calls[peer.name] = _prepared(peer, floats, threads)
    return names, calls


def _prepared(peer: Peer, inputs: Array, threads: int) -> Call:
    return peer.prepare(inputs, threads)


def _judged(row: BenchRow, disturbed: bool) -> BenchRow:
    ratio = row.ratio(row.best())
    if disturbed:
        verdict = DISTURBED
    elif ratio is None:
        verdict = ALONE
    elif ratio > 1 + EQUAL:
        verdict = AHEAD
    else:
        verdict = LEVEL if ratio >= 1 - EQUAL else BEHIND
    return BenchRow(row.file, row.batch, row.threads, row.caches, row.candidates, verdict)


def _torch_threads(threads: int) -> AbstractContextManager[object]:
    """Let torch use so many threads, where it is installed."""
    try:
        from whit.benchmarking.torch_threads import torch_threads
    except ImportError:
        return nullcontext()
    return torch_threads(threads)


def _blas_threads(threads: int) -> AbstractContextManager[object]:
    """Hold NumPy to so many threads, where the library for that is installed."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return nullcontext()
    limits: AbstractContextManager[object] = threadpool_limits(threads, user_api="blas")
    return limits
