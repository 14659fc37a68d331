import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import whit as package
from whit.cli import exporting
from whit.runtime import load
from whit.runtime.artifact import build_artifact
from whit.runtime.data_section import DataWriter
from whit.runtime.layout import ProgramHeader
from whit.runtime.operators import OPERATOR_CODES, Linear, Relu
from whit.runtime.storage import FORMATS
from whit.runtime.weights import StoredWeight

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a packed file `own-net.whit` and inputs for it."""
    random = np.random.default_rng(0)
    steps = [
        Linear(StoredWeight(FORMATS[0], random.normal(size=(5, 6)).astype(np.float32)), None),
        Relu(),
        Linear(StoredWeight(FORMATS[0], random.normal(size=(2, 5)).astype(np.float32)), None),
    ]
    writer, records = DataWriter(), b""
    for index, operator in enumerate(steps):
        code = OPERATOR_CODES[operator.kind]
        records += replace(operator.write(writer), kind=code, source=index).to_bytes()
    header = ProgramHeader(3, (6,)).to_bytes()
    content = build_artifact(header + records, writer.to_bytes(), {"labels": ",low,high"})
    (tmp_path / "own-net.whit").write_bytes(content)
    np.save(tmp_path / "inputs.npy", random.normal(size=(9, 6)).astype(np.float32))
    np.save(tmp_path / "narrow.npy", np.ones((9, 5), np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_onnx_is_written_and_checked_on_given_inputs(whit, folder):
    result = whit("export", "own-net.whit", "--to", "onnx", "--check", "inputs.npy")
    assert result.exit_code == 0, result.stderr
    assert "Saved: own-net.onnx" in result.stdout
    assert "9 given inputs" in result.stdout
    assert "same class for 9 of 9" in result.stdout
    onnx.checker.check_model(onnx.load("own-net.onnx"), full_check=True)


def test_onnx_says_that_inputs_were_drawn(whit, folder):
    result = whit("export", "own-net.whit", "--to", "onnx", "-o", "out/x.onnx", "--exact")
    assert result.exit_code == 0, result.stderr
    assert "16 drawn inputs: give real ones" in result.stdout
    assert Path("out/x.onnx").exists()


def test_onnx_as_json(whit, folder):
    words = ["export", "own-net.whit", "--to", "onnx", "--name", "other", "--json"]
    found = json.loads(whit(*words).stdout)
    assert found["path"] == "other.onnx"
    assert found["nbytes"] == Path("other.onnx").stat().st_size
    assert (found["checked"], found["drawn"], found["same_classes"]) == (16, True, 16)


@pytest.mark.parametrize(("patterns", "way"), [(True, "Try --exact, another"), (False, "Try an")])
def test_a_disagreement_names_the_option(whit, folder, monkeypatch, patterns, way):
    from whit.export import onnx_export
    from whit.export.onnx_check import Disagreement

    def disagree(*arguments):
        raise Disagreement("the first operator that computes something else is relu_1", patterns)

    monkeypatch.setattr(onnx_export, "check", disagree)
    result = whit("export", "own-net.whit", "--to", "onnx")
    assert result.exit_code == 2
    assert f"relu_1. No file was written. {way}" in result.stderr
    assert "quantized=" not in result.stderr
    assert not Path("own-net.onnx").exists()


def test_c_prints_files_and_sizes(whit, folder):
    result = whit("export", "own-net.whit", "--to", "c", "-o", "firmware")
    assert result.exit_code == 0, result.stderr
    assert "firmware/own_net.c and firmware/own_net.h" in result.stdout
    assert "bytes of constants" in result.stdout
    assert "own_net_predict" in Path("firmware/own_net.h").read_text()
    if shutil.which("cc") and shutil.which("size"):
        assert "cc -Os makes these bytes" in result.stdout


def test_c_as_json_and_without_a_compiler(whit, folder, monkeypatch):
    monkeypatch.setattr(exporting.shutil, "which", lambda name: None)
    words = ["export", "own-net.whit", "--to", "c", "--name", "net"]
    found = json.loads(whit(*words, "--json").stdout)
    assert (found["source"], found["header"], found["sections"]) == ("net.c", "net.h", None)
    assert found["constant_bytes"] >= 4 * (5 * 6 + 2 * 5)
    assert "No C compiler" in whit(*words).stdout


@pytest.mark.parametrize(
    ("stem", "name"), [("own-net", "own_net"), ("3 nets", "model_3_nets"), ("möwe", "m_we")]
)
def test_a_file_name_becomes_a_c_name(stem, name):
    assert exporting._identifier(stem) == name


BAD = [
    (["own-net.whit", "--to", "onxx"], "Did you mean 'onnx'?"),
    (["own-net.whit", "--to", "tflite"], "There is no export to 'tflite'"),
    (["missing.whit", "--to", "onnx"], "There is no file 'missing.whit'"),
    (["inputs.npy", "--to", "c"], "not a valid .whit file"),
    (["own-net.whit", "--to", "onnx", "--check", "narrow.npy"], "has shape [9, 5]"),
    (["own-net.whit", "--to", "onnx", "--check", "none.npy"], "There is no file 'none.npy'"),
    (["own-net.whit", "--to", "c", "--check", "inputs.npy"], "belong to --to onnx"),
    (["own-net.whit", "--to", "c", "--exact"], "belong to --to onnx"),
    (["own-net.whit", "--to", "c", "--name", "int"], "keyword"),
    (["own-net.whit", "--to", "onnx", "-o", "."], "is a folder"),
    (["own-net.whit", "--to", "onnx", "-o", "inputs.npy/x.onnx"], "cannot be written"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_one_paragraph_and_exit_code_2(whit, folder, words, message):
    before = sorted(path.name for path in folder.iterdir())
    result = whit("export", *words)
    assert result.exit_code == 2, (result.stdout, result.exception)
    assert message in result.stderr
    assert result.stderr.startswith("whit: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize(("target", "path"), [("onnx", "own-net.onnx"), ("c", "own_net.h")])
def test_another_file_is_replaced_only_when_told(whit, folder, target, path):
    Path(path).write_bytes(b"precious")
    words = ["export", "own-net.whit", "--to", target]
    result = whit(*words)
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert Path(path).read_bytes() == b"precious"
    assert whit(*words, "--force").exit_code == 0
    assert Path(path).read_bytes() != b"precious"
    assert whit(*words).exit_code == 0  # the same content is no other file


def test_a_missing_package_names_the_extra(whit, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = whit("export", "own-net.whit", "--to", "onnx")
    assert result.exit_code == 2
    assert "pip install 'whit[onnx]'" in result.stderr
    assert not Path("own-net.onnx").exists()


@pytest.mark.parametrize("target", ["c", "onnx"])
def test_export_needs_no_torch(folder, target):
    words = ["whit", "export", "own-net.whit", "--to", target]
    code = (
        "import sys\nsys.modules['torch'] = None\nfrom whit.cli.app import main\n"
        f"sys.argv = {words!r}\nmain()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(package.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "Saved" in done.stdout
    assert load("own-net.whit").labels == ("low", "high")


def test_help_imports_neither_onnx_nor_the_exporters():
    code = (
        "import sys\nfrom whit.cli.app import app\n"
        "loaded = {'onnx', 'onnxruntime', 'numpy', 'whit.export'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(package.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=environment)
