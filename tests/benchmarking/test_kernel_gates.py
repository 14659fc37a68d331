"""The script of the kernels' goals: verdicts, random networks, the tables made from its lines."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from whit.packing import pack

ROOT = Path(__file__).parents[2]


def script(folder, name):
    spec = importlib.util.spec_from_file_location(name, ROOT / folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


gates, tables = script("benchmarks", "kernel_gates"), script("docs", "performance_tables")


@pytest.mark.parametrize(
    ("measured", "options", "level", "disturbed", "verdict"),
    [
        (12.5, {}, "avx2", False, "pass"),
        (15.0, {}, "avx2", False, "moonshot"),
        (11.9, {}, "avx2", False, "miss"),
        (11.9, {}, "avx2", True, "disturbed"),
        (11.9, {"levels": gates.AVX512}, "avx2", False, "not applicable on avx2 (would miss)"),
        (12.5, {"levels": gates.AVX512}, "avx2", False, "not applicable on avx2 (would pass)"),
        (11.9, {"levels": gates.AVX512}, "avx512bw", False, "miss"),
        (None, {"why": "no ggml"}, "avx2", False, "not measured: no ggml"),
    ],
)
def test_verdicts(measured, options, level, disturbed, verdict):
    assert gates.Goal("g", measured, 12, 15, **options).verdict(level, disturbed) == verdict


def test_less_is_better_for_times():
    goals = [gates.Goal("g", value, 5, 1, " us", lower=True) for value in (0.9, 4.0, 6.0)]
    assert [goal.verdict("avx2", False) for goal in goals] == ["moonshot", "pass", "miss"]


def test_the_random_network_is_as_small_as_its_bits():
    example = torch.randint(0, 256, (2, 784), dtype=torch.uint8)
    found = pack(gates.with_signs(gates.Bytes(gates.mnist_mlp())), example)
    assert {layer.format for layer in found.layers} == {"bits"}
    kinds = [step.operator.kind for step in found.program.steps]
    assert kinds == ["linear", "threshold", "linear", "threshold", "linear"]


def test_a_chain_of_convolutions_stays_in_bits():
    example = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 32, 6, 6))).float()
    found = pack(gates.with_signs(gates.conv_net(32, 3)), example)
    steps = found.program.steps
    assert [step.result.domain for step in steps if step.operator.kind == "threshold"] == [
        "sign"
    ] * 3
    assert {layer.format for layer in found.layers} == {"bits"}


def test_the_table_of_the_page_is_made_from_the_lines(tmp_path, monkeypatch):
    goal = gates.Goal("binary GEMM", 12.5, 12, 15, about={"minimum_ratio": 12.0})
    unmeasured = gates.Goal("to ggml", None, 1.2, 2, why="it is not here")
    machine = {"cpu": "A CPU", "versions": {"torch": "2"}}
    lines = [
        {**vars(g), "verdict": g.verdict("avx2", False), "level": "avx2", "machine": machine,
         "command": "python x", "commit": "0123456789ab"}
        for g in (goal, unmeasured)
    ]  # fmt: skip
    path = tmp_path / "kernel_gates.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    text = tables.gates_table()
    assert "| binary GEMM | 12.5x | 12x | ≥ 12x | ≥ 15x | pass |" in text
    assert "| to ggml | - | - | ≥ 1.2x | ≥ 2x | not measured: it is not here |" in text
    assert "A CPU, kernels avx2, torch 2" in text
    assert tables.everyday_table() == tables.MISSING
