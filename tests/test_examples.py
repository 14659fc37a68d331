"""Every example runs as its own words say."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import whit
from whit.methods.low_bit.binarized_network import binarize
from whit.parts.normalise import Normalise

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_own_task_is_learnt():
    task = whit.task(f"{EXAMPLES / 'own_task.py'}:rings")
    for text in ("plain()", "one_cycle_pruning(sparsity=0.8)"):
        result = whit.execute(task, whit.spec(text))
        assert result.scorecard.valid_score > 0.9, text
        assert result.packed is not None


def test_own_arrays_are_learnt_in_few_lines():
    task = whit.task(f"{EXAMPLES / 'own_arrays.py'}:waves")
    assert task.load().class_names == ("fast", "slow")
    settings = task.settings.changed(epochs=8)
    for text in ("plain()", "one_cycle_pruning(sparsity=0.8)"):
        result = whit.execute(task, whit.spec(text), settings)
        assert result.scorecard.valid_score > 0.8, text
        assert result.packed is not None
    assert len(code_lines((EXAMPLES / "own_arrays.py").read_text())) < 20


def code_lines(text):
    """Lines that are no imports, docstrings, comments or blank."""
    tree = ast.parse(text)
    skipped = set()
    for node in ast.walk(tree):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if docstring or isinstance(node, ast.Import | ast.ImportFrom):
            skipped |= set(range(node.lineno, node.end_lineno + 1))
    lines = enumerate(text.splitlines(), start=1)
    return [n for n, line in lines if n not in skipped and line.split("#")[0].strip()]


def test_an_own_table_is_learnt_and_new_rows_are_answered(tmp_path):
    answers = example("own_table").main(tmp_path)
    assert answers == ["grower a", "grower b"]


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def image_network(low_bit):
    torch.manual_seed(0)
    model = nn.Sequential(
        Normalise(8.0, 8.0),
        nn.Conv2d(1, 6, 3, padding=1, bias=False),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 20),
        nn.ReLU(),
        nn.Linear(20, 4),
    )
    if low_bit:
        binarize(model)
    if low_bit == "ternary":
        for layer in (model[1], model[6], model[8]):
            layer.parametrizations.weight.append(Hole())
    return model.eval()


class Hole(nn.Module):
    def forward(self, weight):
        return weight * (torch.arange(weight.numel()) % 3 > 0).reshape(weight.shape)


@pytest.mark.parametrize("low_bit", ["", "binary", "ternary"])
def test_a_strangers_reader_gives_the_same(low_bit, tmp_path):
    images = torch.randint(0, 17, (32, 1, 8, 8), dtype=torch.uint8)
    packed = whit.pack(image_network(low_bit), images)
    path = packed.save(tmp_path / "model.whit")
    expected = packed.program(images.numpy())
    scale = np.abs(expected).max()
    assert (
        np.abs(example("read_whit").predict(path, images.numpy()) - expected).max() <= 1e-5 * scale
    )


def test_the_strangers_reader_runs_alone_and_reads_every_golden_chain(tmp_path):
    golden = Path(__file__).parent / "golden"
    for path in sorted(golden.glob("binary_version*.whit")):
        known = np.load(path.with_suffix(".npz"))
        np.save(tmp_path / "inputs.npy", known["inputs"])
        command = [sys.executable, str(EXAMPLES / "read_whit.py"), path, tmp_path / "inputs.npy"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert said.split() == str(known["outputs"].argmax(-1)).split()


def test_the_strangers_reader_is_independent_and_short():
    text = (EXAMPLES / "read_whit.py").read_text()
    tree = ast.parse(text)
    modules = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or node.names[0].name]
    }
    assert modules == {"json", "pathlib", "struct", "sys", "zlib", "numpy"}
    code = [line for line in text.split('"""', 2)[2].splitlines() if line.strip()]
    assert len([line for line in code if not line.startswith("import ")]) <= 60


def test_every_example_is_tested():
    assert sorted(p.stem for p in EXAMPLES.glob("*.py")) == [
        "own_arrays",
        "own_table",
        "own_task",
        "read_whit",
    ]
