import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import whit as package
from whit.runtime import load


def run_folder(working_folder):
    (result,) = working_folder.glob("whit-runs/*/*/result.json")
    return result.parent


def test_predict_prints_label_and_score(whit, finished):
    result = whit("predict", "task.whit", "task-inputs.npy")
    assert result.exit_code == 0, result.stderr
    assert len(result.stdout.splitlines()) == 8
    assert result.stdout.startswith(("0: low (score", "0: high (score"))


def test_predict_agrees_with_the_program(whit, finished):
    inputs = np.load("task-inputs.npy")
    found = json.loads(whit("predict", "task.whit", "task-inputs.npy", "--json").stdout)
    scores = load("task.whit")(inputs)
    assert np.allclose(found["scores"], scores)
    assert found["classes"] == scores.argmax(1).tolist()
    assert found["labels"] == [("low", "high")[c] for c in scores.argmax(1)]


@pytest.mark.parametrize("head", ["", "a,b,c,d,e,f\n"])
def test_csv_gives_the_same_as_npy(whit, finished, head):
    inputs = np.load("task-inputs.npy")
    lines = "\n".join(",".join(repr(float(v)) for v in row) for row in inputs)
    (finished / "inputs.csv").write_text(head + lines + "\n")
    csv = json.loads(whit("predict", "task.whit", "inputs.csv", "--json").stdout)
    npy = json.loads(whit("predict", "task.whit", "task-inputs.npy", "--json").stdout)
    assert np.allclose(csv["scores"], npy["scores"], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.npy", None, "no file"),
        ("bad.npy", b"\x93NUMPY\x01", "cannot be read"),
        ("bad.csv", b"1,2\n3\n", "cannot be read"),
        ("words.csv", b"a,b\nc,d\n", "cannot be read"),
        ("empty.csv", b"", "cannot be read"),
        ("narrow.csv", b"1,2,3\n", "shape"),
        ("nan.csv", b"nan,1,1,1,1,1\n", "NaN"),
    ],
)
def test_bad_inputs_are_said_in_words(whit, finished, name, content, message):
    if content is not None:
        (finished / name).write_bytes(content)
    result = whit("predict", "task.whit", name)
    assert result.exit_code == 2, result.exception
    assert message in result.stderr


def test_pickled_arrays_are_refused(whit, finished):
    np.save(finished / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    result = whit("predict", "task.whit", "objects.npy")
    assert result.exit_code == 2
    assert "cannot be read" in result.stderr


def test_pack_writes_the_same_program(whit, finished):
    result = whit("pack", run_folder(finished), "-o", "packed/again.whit")
    assert result.exit_code == 0, result.stderr
    inputs = np.load("task-inputs.npy")
    assert np.array_equal(load("packed/again.whit")(inputs), load("task.whit")(inputs))
    found = json.loads(whit("pack", run_folder(finished), "--json").stdout)
    assert found["file"] == "task.whit"


def test_inspect_adds_up(whit, finished):
    found = json.loads(whit("inspect", "task.whit", "--json").stdout)
    assert found["stored_bytes"] == (finished / "task.whit").stat().st_size
    assert found["macs_by_width"] == {"w32a32": 6 * 16 + 16 * 2}
    constants = sum(op["weight_bytes"] + op["constant_bytes"] for op in found["operators"])
    assert constants == found["weight_bytes"]
    text = whit("inspect", "task.whit").stdout
    assert "linear" in text
    assert "labels low, high" in text


@pytest.mark.parametrize(
    "words", [["predict", "task.whit", "task-inputs.npy"], ["inspect", "task.whit"]]
)
def test_packed_files_need_no_torch(finished, words):
    code = (
        "import sys\nsys.modules['torch'] = None\nfrom whit.cli.app import main\n"
        f"sys.argv = {['whit', *words]!r}\nmain()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(package.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_pack_replaces_another_file_only_when_told(whit, finished):
    Path("task.whit").write_bytes(b"precious")
    result = whit("pack", run_folder(finished))
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert Path("task.whit").read_bytes() == b"precious"
    assert whit("pack", run_folder(finished), "--force").exit_code == 0
    assert load("task.whit").labels == ("low", "high")


def test_pack_can_round_to_8_bits(whit, finished):
    folder = run_folder(finished)
    plain = json.loads(whit("pack", folder, "-o", "plain.whit", "--json").stdout)
    small = json.loads(whit("pack", folder, "-o", "small.whit", "--int8", "--json").stdout)
    assert small["stored_bytes"] < plain["stored_bytes"]
    assert [layer["format"] for layer in plain["layers"]] == ["float32", "float32"]
    assert [layer["format"] for layer in small["layers"]] == ["int8", "int8"]
    inputs = np.load("task-inputs.npy")
    assert np.allclose(load("plain.whit")(inputs), load("small.whit")(inputs), atol=0.1)


def test_pack_obeys_forced_and_forbidden_formats(whit, finished):
    folder = run_folder(finished)
    words = ["--int8", "--format", "0=planes", "--forbid", "codebook8", "--json"]
    found = json.loads(whit("pack", folder, "-o", "forced.whit", *words).stdout)
    assert [layer["format"] for layer in found["layers"]] == ["planes", "int8"]
    text = whit("pack", folder, "-o", "report.whit").stdout
    assert "0 (linear): 384 => 384 bytes, float32" in text


def test_predict_uses_fewer_planes_where_there_are_some(whit, finished):
    whit("pack", run_folder(finished), "-o", "planes.whit", "--int8", "--format", "0=planes")
    inputs = np.load("task-inputs.npy")
    words = ["predict", "planes.whit", "task-inputs.npy", "--json"]
    whole = json.loads(whit(*words).stdout)["scores"]
    coarse = json.loads(whit(*words, "--planes", "2").stdout)["scores"]
    assert np.allclose(coarse, load("planes.whit")(inputs, planes=2))
    assert not np.allclose(coarse, whole)
    for file, planes, said in (
        ("task.whit", "2", "bit planes"),
        ("planes.whit", "0", "planes is 0"),
    ):
        result = whit("predict", file, "task-inputs.npy", "--planes", planes)
        assert result.exit_code == 2 and said in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "0:planes"], "expected module=format"),
        (["--format", "0=bits"], "bits"),
        (["--format", "0=bit"], "there is no weight format 'bit'"),
        (["--format", "head=bits"], "no module with a weight"),
        (["--forbid", "float"], "there is no weight format 'float'"),
    ],
)
def test_pack_says_what_is_wrong_with_a_format(whit, finished, words, message):
    result = whit("pack", run_folder(finished), "-o", "wrong.whit", *words)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not Path("wrong.whit").exists()
