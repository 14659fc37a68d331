"""Layers of whole numbers in ONNX: QDQ patterns, and exactly the integers of the file."""

from dataclasses import replace

import numpy as np
import pytest

from whit.runtime.operators import (
    Add,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    Quantize,
    Requantize,
)
from whit.runtime.weights import StoredWeight

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx_programs import (  # noqa: E402
    BYTES,
    NAMES,
    both,
    inputs_for,
    operators_of,
    program_of,
    weight,
)

from whit.export import onnx_build  # noqa: E402
from whit.export.onnx_build import build  # noqa: E402
from whit.export.onnx_check import Disagreement, session_of  # noqa: E402
from whit.export.onnx_export import export_onnx  # noqa: E402
from whit.export.onnx_model import model_of  # noqa: E402


def integer_network(exponent=36, limits=(0, 255), bias=True, low=-100):
    random = np.random.default_rng(3)
    first = weight("int8", 8, 4 * 9, low=low, high=100, taps=9)
    factors = random.integers(2**20, 2**21, 8).astype(np.int32) | 1
    offsets = random.integers(-900, 900, 8) * factors + 12345 if bias else None
    second = weight("int8", 10, 8 * 16, low=-90, high=90, seed=1)
    head = weight("int8", 6, 10, 1, low=-90, high=90, seed=2)
    return [
        BYTES,
        Conv2d(first, None, (3, 3), (1, 1), (1, 1), 3),
        Requantize(factors, offsets, exponent - 7, *limits),
        MaxPool2d((2, 2), (2, 2)),
        Flatten(),
        Linear(second, None),
        Requantize(np.array([(3333 << 18) + 1], np.int32), None, exponent, *limits),
        Linear(head, np.zeros(6, np.float32)),
    ]


@pytest.mark.parametrize("limits", [(0, 255), (0, 15), (-128, 127), (-100, 90)])
@pytest.mark.parametrize("bias", [True, False])
def test_integer_layers_become_qdq_patterns(limits, bias):
    program = program_of(integer_network(limits=limits, bias=bias), (4, 8, 8))
    built = build(program, "qdq")
    assert built.merged == {2, 6}
    assert operators_of(program).count("QuantizeLinear") == 2
    expected, found = both(program, 40)
    assert np.abs(expected - found).max() <= 0.02 * np.abs(expected).max()
    assert np.array_equal(expected.argmax(1), found.argmax(1))


@pytest.mark.parametrize("limits", [(0, 255), (-100, 90), (-300, 700)])
def test_exact_integer_layers_are_bit_for_bit(limits):
    program = program_of(integer_network(limits=limits), (4, 8, 8))
    assert build(program, "exact").merged == set()
    expected, found = both(program, 40, "exact")
    assert np.array_equal(expected, found)


def test_onnx_runtime_takes_the_pattern_as_integer_kernels(tmp_path):
    import onnxruntime

    program = program_of(integer_network(), (4, 8, 8))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    content = model_of(program, build(program, "qdq")).SerializeToString()
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    kernels = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert "QLinearConv" in kernels
    assert "QGemm" in kernels


def test_a_maximum_may_stand_before_the_requantize():
    network = integer_network()
    network[2], network[3] = network[3], network[2]
    program = program_of(network, (4, 8, 8))
    built = build(program, "qdq")
    assert built.merged == {3, 6}
    written = [node.operator for node in built.graph.nodes]
    assert written.index("QuantizeLinear") < written.index("MaxPool")
    expected, found = both(program, 40)
    assert np.abs(expected - found).max() <= 0.02 * np.abs(expected).max()
    assert np.array_equal(both(program, 40, "exact")[0], both(program, 40, "exact")[1])


def test_the_check_looks_inside_of_patterns(tmp_path, monkeypatch):
    network = integer_network()
    network[2], network[3] = network[3], network[2]
    program = program_of(network, (4, 8, 8))
    assert export_onnx(program, tmp_path / "right.onnx", inputs_for(program, 40)).merged == 2
    right = onnx_build.write_max_pool2d
    monkeypatch.setattr(
        onnx_build,
        "write_max_pool2d",
        lambda graph, operator, x, result: right(graph, replace(operator, size=(1, 1)), x, result),
    )
    with pytest.raises(Disagreement, match="something else is requantize_3"):
        export_onnx(program, tmp_path / "wrong.onnx", inputs_for(program, 40))


@pytest.mark.parametrize("exponent", [21, 23])
@pytest.mark.parametrize("offset", [None, 0, 3])
@pytest.mark.parametrize("quantized", ["qdq", "exact"])
def test_exact_halves_go_to_the_even_number_in_both_forms(exponent, offset, quantized):
    """A power of two as the factor makes halves common."""
    offsets = None if offset is None else np.array([offset << 20], np.int64)
    steps = [
        Linear(weight("int8", 5, 20, low=-1, high=1), None),
        Requantize(np.array([1 << 20], np.int32), offsets, exponent, -128, 127),
    ]
    program = program_of(steps, (20,), "uint8")
    assert build(program, quantized).merged == ({1} if quantized == "qdq" else set())
    expected, found = both(program, 200, quantized)
    assert np.array_equal(expected, found)


@pytest.mark.parametrize("exponent", [1, 2, 31, 62])
def test_exact_requantize_at_both_ends_of_the_shift(exponent):
    offsets = np.array([-(1 << 60), 1 << 60, 1, -1, (1 << exponent) >> 2], np.int64)
    factors = np.array([0, 1, 3, 1 << 29, (1 << 30) - 1], np.int32)
    steps = [
        Linear(weight("int8", 5, 20, low=-3, high=3), None),
        Requantize(factors, offsets, exponent, -30000, 30000),
    ]
    expected, found = both(program_of(steps, (20,), "uint8"), 200, "exact")
    assert np.array_equal(expected, found)


def offset_program(low, high, step, offsets):
    """A linear layer where so many sums make a step."""
    exponent = 24
    factors = np.array([(1 << exponent) // step | 1], np.int32)
    steps = [
        Linear(weight("int8", 5, 20, low=low, high=high), None),
        Requantize(factors, np.array(offsets) * (1 << exponent) // 1000, exponent, -128, 127),
    ]
    return program_of(steps, (20,), "uint8")


def test_offsets_between_sums_stay_close_to_the_file():
    offsets = [123_456, -7_777, 571, -353, 79]  # thousandths of a step
    fine = offset_program(-90, 90, 300, offsets)
    few_bits = offset_program(-3, 3, 5, offsets)  # weights times 16: a step has 80 sums
    for program in (fine, few_bits):
        built = build(program, "qdq")
        assert built.merged == {1}
        expected, found = both(program, 500)
        assert np.abs(expected - found).max() <= 1
        assert (expected != found).mean() < 0.01
    coarse = offset_program(-90, 90, 5, offsets)
    assert build(coarse, "qdq").merged == set()
    expected, found = both(coarse, 500)
    assert np.array_equal(expected, found)


def test_channels_that_no_input_changes():
    """A multiplier of 0, and an offset far beyond all sums, are constants."""
    factors = np.array([0, 1 << 12, 1, 1 << 12, 1 << 12], np.int32)
    offsets = np.array([7 << 20, 0, 5 << 20, 1 << 60, -(1 << 60)], np.int64)
    steps = [
        Linear(weight("int8", 5, 20, low=-90, high=90), None),
        Requantize(factors, offsets, 20, -100, 100),
    ]
    program = program_of(steps, (20,), "uint8")
    assert build(program, "qdq").merged == {1}
    expected, found = both(program, 100)
    assert np.array_equal(expected, found)
    assert found[0, [0, 2, 3, 4]].tolist() == [7, 5, 100, -100]


def test_requantize_of_channels_that_are_no_rows_of_the_weight():
    factors = np.array([301, 507, 1001], np.int32)
    steps = [
        Linear(weight("int8", 3, 20, low=-90, high=90), None),
        Requantize(factors, np.array([5, -9, 70]) * factors, 20, -128, 127),
    ]
    program = program_of(steps, (3, 20), "uint8")
    assert build(program, "qdq").merged == set()
    expected, found = both(program, 50)
    assert np.array_equal(expected, found)
    scalar = replace(steps[1], multipliers=factors[:1], offsets=None)
    program = program_of([steps[0], scalar], (3, 20), "uint8")
    assert build(program, "qdq").merged == {1}
    expected, found = both(program, 50)
    assert np.abs(expected - found).max() <= 1


def test_sums_that_two_operators_read_stay_exact():
    steps = [
        (Linear(weight("int8", 5, 20, low=-90, high=90), None), 0),
        (Requantize(np.array([333], np.int32), None, 20, -128, 127), 1),
        (Add(), 1, 2),
    ]
    program = program_of(steps, (20,), "uint8")
    assert build(program, "qdq").merged == set()
    expected, found = both(program, 50)
    assert np.array_equal(expected, found)


@pytest.mark.parametrize("first", [Quantize(0, 1, 0, 255), Quantize(0, 1, -128, 127)])
def test_x86_kernels_cannot_saturate(first):
    """255 * 127 + 255 * 127 passes 16 bits, where uint8 times int8 is summed without VNNI."""
    steps = [
        first,
        Linear(StoredWeight(NAMES["int8"], np.full((4, 64), 127, np.int8)), None),
        Requantize(np.array([1001], np.int32), None, 23, 0, 255),
    ]
    program = program_of(steps, (64,))
    for quantized in ("qdq", "exact"):
        model = model_of(program, build(program, quantized))
        x = np.full((1, 64), 255, np.float32)
        (found,) = session_of(model.SerializeToString()).run(["output"], {"input": x})
        assert np.array_equal(found, program(x))


def tipping_network():
    """Whole steps, and a head for which each of a few steps can mean another class."""
    first = StoredWeight(NAMES["int8"], np.eye(4, dtype=np.int8))
    head = weight("int8", 4, 4, 1, low=-90, high=90)
    steps = [
        Linear(first, None),
        Requantize(np.array([1 << 20], np.int32), None, 20, 0, 255),
        Linear(head, np.zeros(4, np.float32)),
    ]
    return program_of(steps, (4,), "uint8")


def moved(monkeypatch, amount):
    """Make patterns give so many steps more than the file."""
    right = onnx_build.write_quantized

    def write(graph, operator, follower, x, result):
        offsets = np.full(1, amount << follower.exponent, np.int64)
        return right(graph, operator, replace(follower, offsets=offsets), x, result)

    monkeypatch.setattr(onnx_build, "write_quantized", write)


def test_patterns_one_step_apart_are_reported_and_not_refused(tmp_path, monkeypatch):
    moved(monkeypatch, 1)
    program = tipping_network()
    x = np.full((50, 4), 20, np.uint8)
    x[np.arange(50), np.arange(50) % 4] = 200  # one step changes no class
    done = export_onnx(program, tmp_path / "net.onnx", x)
    assert (done.merged, done.beyond, done.same_classes) == (1, 50, 50)
    assert "50 beyond float rounding (layers may round one step apart)" in done.report()


def test_a_class_that_patterns_would_change_brings_the_exact_integers(tmp_path, monkeypatch):
    moved(monkeypatch, 1)
    program = tipping_network()
    drawn = np.random.default_rng(0).integers(0, 6, (400, 4)).astype(np.uint8)
    tipped = program(drawn).argmax(-1) != program(drawn + 1).argmax(-1)
    x = np.full((50, 4), 20, np.uint8)
    x[np.arange(50), np.arange(50) % 4] = 200
    x[7] = drawn[np.flatnonzero(tipped)[0]]
    done = export_onnx(program, tmp_path / "net.onnx", x)
    assert (done.merged, done.same_classes, done.changed_by_qdq) == (0, 50, 1)
    assert done.largest_difference == 0
    assert "QDQ would have changed the class of 1: the exact integers were written" in done.report()
    kept = export_onnx(program, tmp_path / "qdq.onnx", x, quantized="qdq")
    assert (kept.merged, kept.same_classes, kept.changed_by_qdq) == (1, 49, 0)


def test_patterns_two_steps_apart_are_named(tmp_path, monkeypatch):
    moved(monkeypatch, 2)
    with pytest.raises(Disagreement, match=r"something else is requantize_1\. No file") as caught:
        export_onnx(tipping_network(), tmp_path / "net.onnx", np.full((9, 4), 20, np.uint8))
    assert "Try quantized='exact'" in str(caught.value)
    assert "Try --exact, another version" in caught.value.said("--exact")


def test_many_other_classes_are_refused(tmp_path, monkeypatch):
    moved(monkeypatch, 1)
    x = np.random.default_rng(0).integers(0, 6, (400, 4)).astype(np.uint8)
    with pytest.raises(Disagreement, match="get another class.*most often requantize_1 is") as told:
        export_onnx(tipping_network(), tmp_path / "net.onnx", x)
    assert "no single operator is more than one step apart" in str(told.value)
    assert not list(tmp_path.iterdir())


def test_a_quantised_network_of_several_layers_is_exported(tmp_path):
    """Single steps apart in merged layers of random weights are no reason to refuse."""
    torch = pytest.importorskip("torch")
    from torch import nn

    from whit.packing import pack

    class Quantiser(nn.Module):
        def forward(self, x):
            return torch.clamp(torch.round(x / 0.05), 0, 255) * 0.05

    def layer(inputs, outputs):
        return [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU(), Quantiser()]

    torch.manual_seed(0)
    model = nn.Sequential(Quantiser(), *layer(20, 64), *layer(64, 64), nn.Linear(64, 10)).eval()
    for module in model:
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.running_var, 0.1, 1)
            nn.init.normal_(module.bias)
        elif isinstance(module, nn.Linear):
            module.weight.data = torch.clamp(torch.round(module.weight / 0.05), -7, 7) * 0.05
    x = 3 * torch.rand(40, 20)
    program = pack(model, x).program
    done = export_onnx(program, tmp_path / "net.onnx", x.numpy())
    assert (done.merged, done.checked) == (2, 40)
    exact = export_onnx(program, tmp_path / "exact.onnx", x.numpy(), quantized="exact")
    assert (exact.merged, exact.same_classes, exact.beyond) == (0, 40, 0)
