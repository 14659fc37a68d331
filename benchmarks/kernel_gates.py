"""The goals of the native kernels, measured: each with its gate, its moonshot and a verdict.

    python benchmarks/kernel_gates.py results/kernel_gates.jsonl
    python benchmarks/kernel_gates.py --only binary,sparse --turns 5

Every goal is a ratio of times that were taken in turns in this process, at the same number of
threads: of medians, and of minima beside it. The peers are those of `whit bench`: one linear layer
or convolution in torch and ONNX Runtime, float32 and int8. Single matrices go through
`whit._native.Matrix`, whole networks through packed files with random weights. Binary convolutions
are timed inside of a network: five of them against one, so what is counted is one layer from bits
to bits.

Goals that were set for AVX-512 are no gates on other machines: they are printed with what they
would say there. Where the kernels run on AVX2, so does torch: that goal has a line of its own.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from torch import nn

import whit
from whit.benchmarking.float_twin import float_twin
from whit.benchmarking.machine import about_machine, look, measure_peak, native_function
from whit.benchmarking.peers import (
    FLOAT,
    INTEGER,
    ORT_DYNAMIC,
    ORT_STATIC,
    PEERS,
    TORCH,
    build_peers,
)
from whit.benchmarking.torch_threads import torch_threads
from whit.benchmarking.turns import Times, time_in_turns
from whit.measure.provenance import git_state
from whit.packing import pack
from whit.parts.straight_through import Sign
from whit.runtime import Program, load, native

OWN = "whit"
FLOATS = tuple(name for name in PEERS if "int8" not in name)
AVX512 = ("avx512bw", "avx512vnni", "avx512vpopcntdq")
COLD_BYTES = 256 << 20
LAYERS = 4  # how many more convolutions the longer network has

# Vector instructions for each vector of products of two signs. AVX-512: an exclusive or and a
# carry-save adder, two instructions since three inputs fit in one. AVX2 looks four bits of two rows
# up in a table: 9 instructions for 3 vectors (see csrc/kernels/avx2/binary.cpp).
CARRY_SAVE, TABLE = 3, 3


@dataclass(frozen=True)
class Goal:
    """One goal.

    Attributes:
        name: of the goal.
        measured: the number, None where it was not measured.
        gate: least number (most, for `lower`).
        moonshot: what we want.
        unit: behind the numbers.
        lower: whether less is better.
        levels: instruction sets for which the gate holds; empty for all.
        about: single times and who the peers are.
        why: why it was not measured.
    """

    name: str
    measured: float | None
    gate: float
    moonshot: float | None
    unit: str = "x"
    lower: bool = False
    levels: tuple[str, ...] = ()
    about: dict = field(default_factory=dict)
    why: str = ""

    def verdict(self, level: str, disturbed: bool) -> str:
        if self.measured is None:
            return f"not measured: {self.why}"
        good = self.measured <= self.gate if self.lower else self.measured >= self.gate
        if disturbed:
            return "disturbed"
        if self.levels and level not in self.levels:
            return f"not applicable on {level} (would {'pass' if good else 'miss'})"
        reached = self.moonshot is not None and (
            self.measured <= self.moonshot if self.lower else self.measured >= self.moonshot
        )
        return "moonshot" if reached else "pass" if good else "miss"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="?", help="file to write")
    parser.add_argument("--only", default=",".join(GROUPS), help="groups of goals")
    parser.add_argument("--turns", type=int, default=15)
    options = parser.parse_args()
    if native_function("Matrix") is None:
        print("whit was built without native kernels: nothing to measure")
        return 2
    machine, peak = about_machine(), measure_peak()
    level = native.isa()
    if peak is not None:
        print(f"{machine['cpu']}, kernels {level}, {peak.gflops:.0f} GFLOP/s ({peak.source})")
    lines, missed = [], 0
    for group in options.only.split(","):
        before = look(1, peak)
        with tempfile.TemporaryDirectory() as folder:
            goals = list(GROUPS[group](Lab(Path(folder), options.turns, level)))
        after = look(1, peak)
        disturbed = before.disturbed or after.disturbed
        for goal in goals:
            verdict = goal.verdict(level, disturbed)
            missed += verdict == "miss"
            print(text_of(goal, verdict), flush=True)
            lines.append(
                {
                    "group": group,
                    **asdict(goal),
                    "verdict": verdict,
                    "level": level,
                    "reference_share": [before.share, after.share],
                    "peak": None if peak is None else asdict(peak),
                    "machine": machine,
                    "command": "python benchmarks/kernel_gates.py",
                    **git_state(),
                }
            )
    if options.results:
        options.results.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"{len(lines)} goals, {missed} of them missed")
    return bool(missed)


def text_of(goal: Goal, verdict: str) -> str:
    if goal.measured is None:
        return f"{goal.name:58} {verdict}"
    sign = "<=" if goal.lower else ">="
    moonshot = "" if goal.moonshot is None else f", moonshot {goal.moonshot:g}"
    minimum = goal.about.get("minimum_ratio")
    beside = f" (minima {minimum:.2f})" if minimum else ""
    peer = f" [{goal.about['peer']}]" if "peer" in goal.about else ""
    wanted = f"{sign} {goal.gate:g}{moonshot}"
    return f"{goal.name:58} {goal.measured:8.2f}{goal.unit}{beside}, {wanted}: {verdict}{peer}"


class Lab:
    """What all groups use: peers, packed matrices, timing."""

    def __init__(self, folder: Path, turns: int, level: str) -> None:
        self.folder, self.turns, self.level = folder, turns, level
        self.random = np.random.default_rng(0)
        torch.manual_seed(0)
        self._count = 0

    def path(self) -> Path:
        self._count += 1
        path = self.folder / str(self._count)
        path.mkdir()
        return path

    def matrix(self, kind: str, values: np.ndarray, threads: int = 1):
        return native_function("Matrix")(kind, values, threads=threads)

    def signs(self, n: int, k: int, threads: int = 1):
        """Return a packed matrix of random signs."""
        drawn = self.random.integers(0, 2, (n, k), dtype=np.int8)
        return self.matrix("signs", (2 * drawn - 1).astype(np.int8), threads)

    def sign_rows(self, m: int, k: int) -> np.ndarray:
        return self.random.integers(0, 1 << 32, (m, k // 32), dtype=np.uint32)

    def floats(self, *shape: int) -> np.ndarray:
        return self.random.normal(size=shape).astype(np.float32)

    def peers(self, model: nn.Module, x: np.ndarray, names=PEERS, threads: int = 1) -> dict:
        """Return calls of the peers of a float32 model on a batch, by name."""
        path = self.path()
        example = torch.from_numpy(x[:2] if len(x) > 1 else np.concatenate([x, x]))
        pack(model.eval(), example).save(path / "float.whit")
        twin = float_twin(load(path / "float.whit", backend="reference"))
        built = build_peers(twin, np.concatenate([x, x])[:16], path, names)
        return {peer.name: peer.prepare(x, threads) for peer in built.built}

    def time(self, calls: dict, threads: int = 1) -> dict[str, Times]:
        with torch_threads(threads):
            return time_in_turns(calls, self.turns, threads=threads)


def multiply(matrix, left: np.ndarray, n: int, dtype=np.int32) -> Callable[[], None]:
    out = np.empty((len(left), n), dtype=dtype)
    return partial(matrix.multiply, left, out)


def kind_of(name: str) -> str:
    return INTEGER if "int8" in name else FLOAT


def best(times: dict[str, Times], kind: str, only=PEERS) -> str:
    found = [name for name in times if name in only and kind_of(name) == kind]
    return min(found, key=lambda name: times[name].median_ms)


def against(times: dict[str, Times], peer: str, own: str = OWN) -> tuple[float, dict]:
    """Return the ratio of medians to a peer, and what lies behind it."""
    mine, other = times[own], times[peer]
    about = {
        "peer": peer,
        "minimum_ratio": other.minimum_ms / mine.minimum_ms,
        "times": {name: asdict(found) for name, found in times.items()},
    }
    return other.median_ms / mine.median_ms, about


def gops(m: int, n: int, k: int, times: Times) -> float:
    return 2 * m * n * k / times.median_ms / 1e6


def binary(lab: Lab) -> Iterator[Goal]:
    """Products of signs; the peer is one float32 linear layer."""
    gates = {
        (256, 4096, 4096): (TORCH, 12, 15),
        (64, 4096, 4096): (TORCH, None, None),
        (256, 1024, 1024): (TORCH, 7, 10),
        (64, 1024, 1024): (TORCH, None, None),
        (256, 256, 256): (TORCH, None, None),
        (8, 4096, 4096): ("best", 16, 25),
    }
    for (m, k, n), (peer, gate, moonshot) in gates.items():
        calls = {OWN: multiply(lab.signs(n, k), lab.sign_rows(m, k), n)}
        calls |= lab.peers(nn.Linear(k, n, bias=False), lab.floats(m, k), FLOATS)
        times = lab.time(calls)
        peer = best(times, FLOAT) if peer == "best" else peer
        ratio, about = against(times, peer)
        about |= {"gops": gops(m, n, k, times[OWN]), "best": against(times, best(times, FLOAT))[0]}
        who = "torch fp32" if peer == TORCH else "the best fp32 peer"
        name = f"binary GEMM {m},{k},{n} to {who}"
        yield Goal(name, ratio, gate or 0, moonshot, levels=AVX512 if gate else (), about=about)
        if (m, k) == (256, 4096):
            # torch computes with the same instruction set as the kernels on such a machine.
            if lab.level == "avx2":
                yield Goal(f"AVX2: {name} on AVX2", ratio, 8, 11, about=about)
            yield csa_share(lab, times[OWN], (m, n, k))


def csa_share(lab: Lab, times: Times, shape: tuple[int, int, int]) -> Goal:
    name = "same, share of the carry-save bound"
    instructions = CARRY_SAVE if lab.level in AVX512 else TABLE
    rate = native.peak_logic_gbits()
    bound = 2 * rate / instructions
    share = 100 * gops(*shape, times) / bound
    about = {"bound_gops": bound, "logic_gbits": rate, "gops": gops(*shape, times)}
    return Goal(name, share, 70, 88, "%", levels=AVX512, about=about)


def gemv(lab: Lab) -> Iterator[Goal]:
    """Products of one row of signs: warm, and cold."""
    size = 4096
    x = lab.floats(1, size)
    for threads, gate, moonshot in ((1, 35, 60), (2, 35, 60)):
        calls = {OWN: multiply(lab.signs(size, size, threads), lab.sign_rows(1, size), size)}
        calls |= lab.peers(nn.Linear(size, size, bias=False), x, FLOATS, threads)
        times = lab.time(calls, threads)
        ratio, about = against(times, TORCH)
        name = f"binary GEMV {size}x{size}, in the cache, threads {threads}, to torch"
        yield Goal(name, ratio, gate, moonshot, about=about)
    yield cold_gemv(lab, size)


def cold_gemv(lab: Lab, size: int) -> Goal:
    first = lab.signs(size, size)
    copies = [first, *(lab.signs(size, size) for _ in range(COLD_BYTES // first.bytes + 1))]
    left, out = lab.sign_rows(1, size), np.empty((1, size), np.int32)
    matrices, weights = cycle(copies), cycle(torch.randn(6, size, size).unbind())
    x = torch.from_numpy(lab.floats(1, size))

    def in_torch() -> object:
        with torch.inference_mode():
            return nn.functional.linear(x, next(weights))

    calls = {OWN: lambda: next(matrices).multiply(left, out), TORCH: in_torch}
    ratio, about = against(lab.time(calls), TORCH)
    return Goal(f"same, over {COLD_BYTES >> 20} MiB of weights (cold)", ratio, 22, 29, about=about)


def convolutions(lab: Lab) -> Iterator[Goal]:
    """Binary 3x3 convolutions from bits to bits."""
    for channels, side in ((64, 56), (128, 28), (256, 14), (512, 7)):
        x = lab.floats(1, channels, side, side)
        calls = {
            "one": network_call(lab, conv_net(channels, 1), x),
            "more": network_call(lab, conv_net(channels, 1 + LAYERS), x),
        }
        calls |= lab.peers(nn.Conv2d(channels, channels, 3, padding=1, bias=False), x)
        times = lab.time(calls)
        own = Times(
            (times["more"].median_ms - times["one"].median_ms) / LAYERS,
            (times["more"].minimum_ms - times["one"].minimum_ms) / LAYERS,
            0.0,
            times["more"].calls,
        )
        times[OWN] = own
        ratio, about = against(times, best(times, FLOAT))
        about["gops"] = gops(side * side, channels, 9 * channels, own)
        about["int8_ratio"] = against(times, best(times, INTEGER))[0]
        name = f"binary 3x3 conv, C {channels}, {side}x{side}, to the best fp32 peer"
        gated = channels >= 128
        yield Goal(name, ratio, 9 if gated else 0, 14 if gated else None, about=about,
                   levels=AVX512 if gated else ())  # fmt: skip


def conv_net(channels: int, layers: int) -> nn.Module:
    parts: list[nn.Module] = [Sign()]
    for _ in range(layers):
        parts += [
            nn.ConstantPad2d(1, 1.0),
            nn.Conv2d(channels, channels, 3, bias=False),
            nn.BatchNorm2d(channels),
            Sign(),
        ]
    return nn.Sequential(*parts, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def with_signs(model: nn.Module) -> nn.Module:
    """Give all matrices weights of +1 and -1, and batch norms thresholds that matter."""
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.Linear | nn.Conv2d):
                part.weight.copy_(torch.where(part.weight < 0, -1.0, 1.0))  # sign(0) would be 0
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.running_mean.normal_()
                part.bias.normal_()
    return model.eval()


def packed(lab: Lab, model: nn.Module, example: np.ndarray, threads: int = 1) -> Program:
    path = lab.path() / "network.whit"
    two = torch.from_numpy(np.concatenate([example, example])[:2])
    pack(with_signs(model), two).save(path)
    return load(path, threads=threads)


def network_call(lab: Lab, model: nn.Module, x: np.ndarray) -> Callable[[], object]:
    return partial(packed(lab, model, x), x)


def ternary(lab: Lab) -> Iterator[Goal]:
    """Ternary weights times bytes."""
    vnni = AVX512[1:]
    for m, gate, moonshot in ((256, 4, 5.2), (64, None, None), (8, None, None), (1, 14, 30)):
        size = 4096
        values = lab.random.integers(-1, 2, (size, size), dtype=np.int8)
        left = lab.random.integers(0, 256, (m, size), dtype=np.uint8)
        matrix = lab.matrix("ternary", values)
        calls = {OWN: multiply(matrix, left, size)}
        calls |= lab.peers(nn.Linear(size, size, bias=False), lab.floats(m, size))
        times = lab.time(calls)
        ratio, about = against(times, TORCH)
        about["gops"] = gops(m, size, size, times[OWN])
        name = f"ternary x int8 {m},{size},{size} to torch fp32"
        yield Goal(name, ratio, gate or 0, moonshot, levels=vnni if m > 1 else (), about=about)
        if m in (1, 256):
            ratio, about = against(times, best(times, INTEGER))
            about["weight_bytes_ratio"] = size * size / matrix.bytes
            needed, wanted = (1.0, 1.25) if m == 256 else (0, None)
            name = f"same to the best int8 peer, at 1/{about['weight_bytes_ratio']:.1f} its bytes"
            yield Goal(name, ratio, needed, wanted, about=about, levels=vnni if m > 1 else ())
    no_ggml = "ggml is not installed here"
    yield Goal("ternary GEMV batch 1 to ggml tq2_0", None, 1.2, 2, why=no_ggml)


def two_four(lab: Lab) -> Iterator[Goal]:
    """2:4 sparse floats, one row: bound by bytes."""
    size = 4096
    values = lab.floats(size, size).reshape(-1, 4)
    values[np.arange(len(values)), np.abs(values).argmin(1)] = 0
    smallest = np.where(values == 0, np.inf, np.abs(values)).argmin(1)
    values[np.arange(len(values)), smallest] = 0
    matrix, x = lab.matrix("two_four", values.reshape(size, size)), lab.floats(1, size)
    calls = {OWN: multiply(matrix, x, size, np.float32)}
    calls |= lab.peers(nn.Linear(size, size, bias=False), x, FLOATS)
    ratio, about = against(lab.time(calls), TORCH)
    limit = 4 * size * size / matrix.bytes
    about |= {"ratio": ratio, "bytes_ratio": limit}
    yield Goal("2:4 fp32 GEMV, share of its byte limit", 100 * ratio / limit, 90, None, "%",
               about=about)  # fmt: skip


def sparse(lab: Lab) -> Iterator[Goal]:
    """Unstructured sparse floats against the dense product."""
    size = 2048
    for share, gates in ((0.9, {64: (5, 7)}), (0.95, {64: (9, 13)})):
        values = lab.floats(size, size)
        values[lab.random.random((size, size)) < share] = 0
        matrix = lab.matrix("sparse", values)
        for m in (1, 64, 256):
            x = lab.floats(m, size)
            calls = {OWN: multiply(matrix, x, size, np.float32)}
            calls |= lab.peers(nn.Linear(size, size, bias=False), x, FLOATS)
            ratio, about = against(lab.time(calls), TORCH)
            gate, moonshot = gates.get(m, (0, None))
            name = f"CSR {share:.0%}, {size}x{size}, M {m}, to dense torch fp32"
            yield Goal(name, ratio, gate, moonshot, about=about)


def mnist_mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 4096, bias=False), nn.BatchNorm1d(4096), Sign(),
        nn.Linear(4096, 4096, bias=False), nn.BatchNorm1d(4096), Sign(), nn.Linear(4096, 10),
    )  # fmt: skip


def cifar_net() -> nn.Module:
    parts: list[nn.Module] = []
    widths = (3, 128, 128, 256, 256, 512, 512)
    for number, (inputs, outputs) in enumerate(zip(widths, widths[1:], strict=False)):
        if number:
            parts.append(nn.ConstantPad2d(1, 1.0))
        parts.append(nn.Conv2d(inputs, outputs, 3, padding=0 if number else 1, bias=False))
        if number % 2:
            parts.append(nn.MaxPool2d(2))
        parts += [nn.BatchNorm2d(outputs), Sign()]
    parts.append(nn.Flatten())
    for inputs in (8192, 1024):
        parts += [nn.Linear(inputs, 1024, bias=False), nn.BatchNorm1d(1024), Sign()]
    return nn.Sequential(*parts, nn.Linear(1024, 10))


class Bytes(nn.Module):
    """A network of raw bytes, as of images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x.float())


def networks(lab: Lab) -> Iterator[Goal]:
    """Whole binary networks against their float32 twins."""
    shapes = {"MNIST MLP": (mnist_mlp, (784,)), "CIFAR network": (cifar_net, (3, 32, 32))}
    gates = {
        ("MNIST MLP", 1): ((20, 45), (5, 11), ()),
        ("MNIST MLP", 16): ((0, None), (0, None), ()),
        ("MNIST MLP", 256): ((9, 12), (2.8, 4), AVX512),
        ("CIFAR network", 1): ((11, 18), (3.5, 6), AVX512),
        ("CIFAR network", 16): ((0, None), (0, None), ()),
    }
    for network, (make, shape) in shapes.items():
        path = lab.path() / "network.whit"
        example = lab.random.integers(0, 256, (2, *shape), dtype=np.uint8)
        pack(with_signs(Bytes(make())), torch.from_numpy(example)).save(path)
        program = load(path)
        twin = float_twin(program)
        size = path.stat().st_size
        yield Goal(f"{network}: bytes, fp32 to packed", twin.weight_bytes / size, 26, 31)
        calibration = example.astype(np.float32)
        peers = build_peers(twin, calibration, path.parent, PEERS)
        for (name, batch), (to_float, to_int8, levels) in gates.items():
            if name != network:
                continue
            x = lab.random.integers(0, 256, (batch, *shape), dtype=np.uint8)
            calls: dict = {OWN: partial(program, x)}
            floats = x.astype(np.float32)
            calls |= {peer.name: peer.prepare(floats, 1) for peer in peers.built}
            times = lab.time(calls)
            ratio, about = against(times, best(times, FLOAT))
            about["to_torch"] = against(times, TORCH)[0]
            about["own_ms"] = times[OWN].median_ms
            title = f"{network}, batch {batch}, to the best fp32 peer"
            yield Goal(title, ratio, *to_float, levels=levels, about=about)
            ratio, about = against(times, best(times, INTEGER, (ORT_DYNAMIC, ORT_STATIC)))
            yield Goal(f"{network}, batch {batch}, to ONNX Runtime int8", ratio, *to_int8,
                       levels=levels, about=about)  # fmt: skip


def scaling(lab: Lab) -> Iterator[Goal]:
    """One thread against two."""
    for m, k, n in ((64, 1024, 1024), (256, 1024, 1024), (64, 4096, 4096), (256, 4096, 4096)):
        left = lab.sign_rows(m, k)
        calls = {str(t): multiply(lab.signs(n, k, t), left, n) for t in (1, 2)}
        times = lab.time(calls, threads=2)
        ratio, about = against(times, "1", own="2")
        yield Goal(f"2 threads, binary GEMM {m},{k},{n}, to 1", ratio, 1.8, 1.95, about=about)


def overhead(lab: Lab) -> Iterator[Goal]:
    """What calling a network from Python costs: the time of the smallest network."""
    x = lab.floats(1, 8)
    times = lab.time({OWN: network_call(lab, nn.Linear(8, 4), x)})
    about = {"times": {OWN: asdict(times[OWN])}}
    microseconds = 1000 * times[OWN].median_ms
    yield Goal("whole call of a network of 8 inputs, 4 outputs", microseconds, 5, 1, " us",
               lower=True, about=about)  # fmt: skip


GROUPS = {
    "binary": binary,
    "gemv": gemv,
    "convolutions": convolutions,
    "ternary": ternary,
    "two_four": two_four,
    "sparse": sparse,
    "networks": networks,
    "scaling": scaling,
    "overhead": overhead,
}


if __name__ == "__main__":
    print(f"whit {whit.__version__}")
    raise SystemExit(main())
