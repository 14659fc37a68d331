"""The ONNX file as a whole: what it says, how it is checked, and what goes wrong in words."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from whit.errors import MissingExtra, WhitError
from whit.runtime import decode_program
from whit.runtime.artifact import build_artifact
from whit.runtime.data_section import DataWriter
from whit.runtime.layout import ProgramHeader
from whit.runtime.operators import OPERATOR_CODES, Affine, Embedding, Flatten, Linear, Relu, Sign
from whit.runtime.storage import FORMATS
from whit.runtime.weights import StoredWeight

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from whit.export import onnx_build  # noqa: E402
from whit.export.onnx_check import drawn_inputs  # noqa: E402
from whit.export.onnx_export import export_onnx  # noqa: E402

TEXTS = {"labels": ",cat,dog,möwe", "task": "toy", "spec": "plain()"}


def program_of(operators, shape, dtype="float32", known=(float("nan"),) * 2, texts=TEXTS):
    writer, records = DataWriter(), b""
    for index, operator in enumerate(operators):
        code = OPERATOR_CODES[operator.kind]
        records += replace(operator.write(writer), kind=code, source=index).to_bytes()
    header = ProgramHeader(len(operators), shape, dtype, *known)
    content = build_artifact(header.to_bytes() + records, writer.to_bytes(), texts)
    return decode_program(content, "reference")


def classifier():
    random = np.random.default_rng(0)
    first = StoredWeight(FORMATS[0], random.normal(size=(5, 6)).astype(np.float32))
    second = StoredWeight(FORMATS[1], np.where(random.random((3, 5)) < 0.5, -1, 1).astype(np.int8))
    steps = [Flatten(), Linear(first, np.ones(5, np.float32)), Relu(), Linear(second, None)]
    return program_of(steps, (2, 3), known=(0.0, 16.0))


def test_the_file_describes_itself(tmp_path):
    program = classifier()
    done = export_onnx(program, tmp_path / "toy.onnx")
    model = onnx.load(done.path)
    onnx.checker.check_model(model, full_check=True)
    texts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(texts["labels"]) == ["cat", "dog", "möwe"]
    assert texts["task"] == "toy"
    assert texts["spec"] == "plain()"
    assert json.loads(texts["input_range"]) == [0, 16]
    assert "backend" not in texts
    assert "0 to 16" in model.doc_string
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert done.nbytes == done.path.stat().st_size
    (source,), (result,) = model.graph.input, model.graph.output
    sizes = [d.dim_param or d.dim_value for d in source.type.tensor_type.shape.dim]
    assert (source.name, sizes) == ("input", ["batch", 2, 3])
    sizes = [d.dim_param or d.dim_value for d in result.type.tensor_type.shape.dim]
    assert (result.name, sizes) == ("output", ["batch", 3])


def test_shape_inference_knows_every_tensor(tmp_path):
    done = export_onnx(classifier(), tmp_path / "toy.onnx")
    inferred = onnx.shape_inference.infer_shapes(onnx.load(done.path), strict_mode=True)
    known = {entry.name for entry in [*inferred.graph.value_info, *inferred.graph.output]}
    assert {name for node in inferred.graph.node for name in node.output} <= known


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int32"])
def test_the_raw_input_dtype_stays(tmp_path, dtype):
    done = export_onnx(program_of([Flatten()], (2, 3), dtype), tmp_path / "raw.onnx")
    (source,) = onnx.load(done.path).graph.input
    found = onnx.helper.tensor_dtype_to_np_dtype(source.type.tensor_type.elem_type)
    assert found == np.dtype(dtype)


def test_drawn_inputs_say_so_and_given_ones_too(tmp_path):
    program = classifier()
    drawn = export_onnx(program, tmp_path / "a.onnx")
    assert (drawn.checked, drawn.drawn) == (16, True)
    assert "16 drawn inputs: give real ones" in drawn.report()
    given = export_onnx(program, tmp_path / "b.onnx", np.ones((70, 2, 3)))
    assert (given.checked, given.drawn, given.same_classes) == (70, False, 70)
    assert "70 given inputs" in given.report()
    assert given.largest_difference < 1e-5
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_drawn_inputs_stay_within_the_range():
    assert drawn_inputs(classifier()).min() >= 0
    assert 2 < drawn_inputs(classifier()).max() <= 16
    raw = drawn_inputs(program_of([], (400,), "uint8", (3, 7)))
    assert sorted(np.unique(raw)) == [3, 4, 5, 6, 7]
    table = StoredWeight(FORMATS[0], np.ones((4, 2), np.float32))
    indices = drawn_inputs(program_of([Embedding(table)], (200,), "int32"))
    assert sorted(np.unique(indices)) == [0, 1, 2, 3]
    assert indices.dtype == np.int32


def test_no_classes_where_the_output_is_no_row_of_scores(tmp_path):
    done = export_onnx(program_of([Relu()], (2, 3)), tmp_path / "image.onnx")
    assert done.same_classes is None
    assert "class" not in done.report()


def test_the_first_wrong_operator_is_named_and_no_file_left(tmp_path, monkeypatch):
    def wrong(graph, operator, x, result):
        return replace(x, tensor=graph.node("Abs", x.tensor))

    monkeypatch.setitem(onnx_build.ONE_INPUT, "relu", wrong)
    (tmp_path / "toy.onnx").write_bytes(b"older")
    with pytest.raises(WhitError, match="computes something else is relu_2") as caught:
        export_onnx(classifier(), tmp_path / "toy.onnx", np.linspace(-9, 9, 60).reshape(-1, 2, 3))
    assert "of 10 inputs" in str(caught.value)
    assert (tmp_path / "toy.onnx").read_bytes() == b"older"
    assert [path.name for path in tmp_path.iterdir()] == ["toy.onnx"]


def shifted(amount):
    def write(graph, operator, x, result):
        number = graph.node("Add", x.tensor, graph.number(amount))
        return replace(x, tensor=number)

    return write


def test_a_number_on_a_threshold_may_fall_either_way(tmp_path, monkeypatch):
    """What float sums in another order do: invisible before the sign, a jump behind it."""
    monkeypatch.setitem(onnx_build.ONE_INPUT, "affine", shifted(1e-6))
    program = program_of([Affine(None, None), Sign()], (3,))
    inputs = np.array([[1, -1, -1e-7]] + [[1, 0.5, -0.5]] * 20, np.float32)
    done = export_onnx(program, tmp_path / "sign.onnx", inputs)
    assert (done.beyond, done.same_classes) == (1, 21)
    assert "1 beyond float rounding (a number on a threshold)" in done.report()
    with pytest.raises(WhitError, match="for 3 of 3 inputs.*small roundings add up"):
        export_onnx(program, tmp_path / "other.onnx", inputs[[0, 0, 0]])
    assert not (tmp_path / "other.onnx").exists()


def test_a_jump_without_a_threshold_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setitem(onnx_build.ONE_INPUT, "affine", shifted(1.0))
    with pytest.raises(WhitError, match="something else is affine_0"):
        export_onnx(program_of([Affine(None, None)], (3,)), tmp_path / "x.onnx", np.ones((1, 3)))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.ones((4, 3, 2)), "has shape"),
        (np.ones((2, 3)), "batch axis"),
        (np.ones((0, 2, 3)), "0 inputs"),
        (np.full((1, 2, 3), np.nan), "NaN"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(tmp_path, inputs, message):
    with pytest.raises(WhitError, match=message):
        export_onnx(classifier(), tmp_path / "toy.onnx", inputs)
    assert not list(tmp_path.iterdir())


def test_unknown_ways_and_folders_that_cannot_be_written_are_refused(tmp_path):
    with pytest.raises(WhitError, match="'qdq' or 'exact'"):
        export_onnx(classifier(), tmp_path / "toy.onnx", quantized="int4")
    (tmp_path / "file").write_text("")
    with pytest.raises(WhitError, match="cannot be written"):
        export_onnx(classifier(), tmp_path / "file" / "toy.onnx")


def test_a_version_that_does_not_take_the_model_is_said_in_words(tmp_path, monkeypatch):
    import onnxruntime

    def refuse(*args, **options):
        raise ValueError("NOT_IMPLEMENTED")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(WhitError, match="does not take the model .NOT_IMPLEMENTED.*newer"):
        export_onnx(classifier(), tmp_path / "toy.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_names_the_extra(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"'{package}' is needed.*whit\[onnx\]"):
        export_onnx(classifier(), tmp_path / "toy.onnx")
    assert not list(tmp_path.iterdir())
