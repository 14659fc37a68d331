"""`whit bench` on the command line."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from whit.packing import pack


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    pack(model, torch.randn(4, 8)).save(tmp_path / "m.whit")
    return tmp_path / "m.whit"


def test_a_file_against_torch(whit, file):
    found = whit(
        "bench", "m.whit", "--batch", "2", "--repetitions", 1, "--peers", "torch",
        "--json", "b.json", "--report", "b.html",
    )  # fmt: skip
    assert found.exit_code == 0, found.stderr
    assert "64 of 64 classes as in NumPy" in " ".join(found.stdout.split())
    assert "torch fp32" in found.stdout
    assert "Report: b.html" in found.stdout
    stored = json.loads((file.parent / "b.json").read_text())
    (row,) = stored["rows"]
    assert [c["name"] for c in row["candidates"]][1:] == ["torch fp32"]
    assert row["best_int8"] is None
    assert "<svg" in (file.parent / "b.html").read_text()


def test_json_on_stdout_is_all_there(whit, file):
    found = whit(
        "bench", "m.whit", "--batch", 1, "--repetitions", 1, "--peers", "none", "--json", "-"
    )
    assert found.exit_code == 0
    assert json.loads(found.stdout)["rows"][0]["batch"] == 1


def test_bad_input(whit, file):
    cases = [
        (["bench", "missing.whit"], "There is no file"),
        (["bench", "m.whit", "--batch", "many"], "--batch was given as 'many'"),
        (["bench", "m.whit", "--threads", "0"], "--threads was given as '0'"),
        (["bench", "m.whit", "--peers", "tensorflow"], "give all, none, or some of torch"),
        (["bench", "m.whit", "m.whit", "--inputs", "x.npy"], "belongs to one file"),
        (["bench", "m.whit", "--inputs", "x.npy"], "There is no file 'x.npy'"),
        (
            ["bench", "m.whit", "--peers", "none", "--repetitions", "1", "--json", "no/b.json"],
            "cannot be written",
        ),
    ]
    for words, said in cases:
        found = whit(*words)
        assert found.exit_code == 2, words
        assert said in " ".join(found.stderr.split()), words


def test_it_works_without_torch(file):
    code = (
        "import sys\nsys.modules['torch'] = None\nfrom whit.cli.app import main\n"
        "sys.argv = ['whit', 'bench', 'm.whit', '--repetitions', '1', '--peers', 'torch,onnx']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=file.parent
    )
    assert done.returncode == 0, done.stderr
    assert "torch is not installed" in done.stdout
    assert "ORT fp32" in done.stdout
