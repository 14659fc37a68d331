"""The float32 network beside a packed one, in NumPy and in torch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from bench_networks import Residual, binary_conv, binary_mlp, float_chain, inputs_of, packed
from torch import nn

from whit.benchmarking.float_twin import NoTwin, drawn_inputs, float_twin, twin_inputs
from whit.benchmarking.torch_twin import check_torch_twin, torch_twin
from whit.packing import pack
from whit.parts.route import MarginRule, Route
from whit.runtime import load


def twin_of(model, shape, tmp_path, **options):
    program = load(packed(model, shape, tmp_path / "m.whit", **options), backend="reference")
    return program, float_twin(program)


def kinds(program):
    return [step.operator.kind for step in program.steps]


@pytest.mark.parametrize(("make", "shape"), [(float_chain, (1, 8, 8)), (Residual, (2, 6, 6))])
def test_a_float_network_is_its_own_twin(make, shape, tmp_path):
    torch.manual_seed(0)
    model = make().eval()
    program, twin = twin_of(model, shape, tmp_path)
    assert twin.same
    x = inputs_of(shape, 5, seed=1)
    expected = model(x).detach().numpy()
    np.testing.assert_allclose(twin.program(x.numpy()), expected, rtol=1e-4, atol=1e-5)
    module = torch_twin(twin.program)
    np.testing.assert_allclose(module(x).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_binary_network_gets_relu_float_weights_and_a_bias(tmp_path):
    program, twin = twin_of(binary_mlp(), (64,), tmp_path)
    assert kinds(program).count("threshold") == 2
    assert [k for k in kinds(twin.program) if k != "flatten"] == [
        "linear", "relu", "linear", "relu", "linear",
    ]  # fmt: skip
    assert not twin.same
    assert twin.replaced["threshold"] == 2
    layers = [m for m in torch_twin(twin.program) if isinstance(m, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in layers] == [(32, 64), (16, 32), (4, 16)]
    assert all(layer.bias is not None for layer in layers)
    assert twin.weight_bytes == 4 * sum(layer.weight.numel() + len(layer.bias) for layer in layers)
    # Values neither vanish nor grow.
    sizes = [np.abs(v).mean() for v in twin.program.trace(inputs_of((64,)).numpy())]
    assert 0.05 < min(sizes) and max(sizes) < 20


def test_a_binary_convolution_pads_zeros_and_keeps_its_shapes(tmp_path):
    program, twin = twin_of(binary_conv(), (1, 8, 8), tmp_path)
    module = torch_twin(twin.program)
    convolutions = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    assert [tuple(c.weight.shape) for c in convolutions] == [(8, 1, 3, 3), (8, 8, 3, 3)]
    assert twin.program.output_shape == program.output_shape
    check_torch_twin(module, twin.program, inputs_of((1, 8, 8)).numpy())


def test_rounding_to_eight_bits_leaves_no_trace(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    program, twin = twin_of(model, (16,), tmp_path, calibration=inputs_of((16,), 64))
    assert "requantize" in kinds(program)
    assert kinds(twin.program) == ["linear", "relu", "linear"]


def test_raw_bytes_reach_the_twin_as_floats(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()

    class Bytes(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            return self.inner(x.float() / 255)

    x = torch.randint(0, 256, (4, 4, 4), dtype=torch.uint8)
    path = pack(Bytes().eval(), x).save(tmp_path / "m.whit")
    program = load(path, backend="reference")
    twin = float_twin(program).program
    assert twin.input.dtype == "float32"
    given = drawn_inputs(program, 6)
    assert given.dtype == np.uint8
    found = twin(twin_inputs(twin, given))
    np.testing.assert_allclose(found, program(given), rtol=1e-3, atol=1e-4)


def test_what_chooses_among_networks_has_no_twin(tmp_path):
    members = [nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)) for _ in range(2)]
    route = Route(members, MarginRule(0.1), [(0,), (0, 1)])
    program = load(packed(route, (6,), tmp_path / "m.whit"))
    with pytest.raises(NoTwin, match="chooses among member networks"):
        float_twin(program)


def test_drawn_inputs_are_the_same_every_time_and_in_range(tmp_path):
    path = packed(float_chain(), (1, 8, 8), Path(tmp_path, "m.whit"), input_range=(-2.0, 3.0))
    first, second = (drawn_inputs(load(path), 7) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.shape == (7, 1, 8, 8)
    assert -2 <= first.min() < 0 < first.max() <= 3
