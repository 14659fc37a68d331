import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from whit.errors import NoEffect, SpecError
from whit.parts.channel_gates import ChannelGate, RealToBinary, gate_convolutions
from whit.parts.straight_through import Sign, binary_sign

sys.path.insert(0, str(Path(__file__).parent))
from every_backend import everywhere, kinds  # noqa: E402


def test_the_gate_is_its_formula_and_starts_at_a_half():
    torch.manual_seed(0)
    gate = ChannelGate(32, 6, reduction=8)
    x = torch.randn(3, 32, 4, 5)
    assert torch.equal(gate(x), torch.full((3, 6, 1, 1), 0.5))
    nn.init.normal_(gate.excite.weight)
    nn.init.normal_(gate.excite.bias)
    means = x.flatten(2).mean(2)
    hidden = (means @ gate.squeeze.weight.T + gate.squeeze.bias).clamp_min(0)
    expected = 1 / (1 + torch.exp(-(hidden @ gate.excite.weight.T + gate.excite.bias)))
    assert torch.allclose(gate(x).flatten(1), expected, atol=1e-6)
    assert gate.squeeze.out_features == 4
    assert gate(torch.randn(2, 32, 7)).shape == (2, 6, 1)


@pytest.mark.parametrize("reduction", [0, 1.5])
def test_bad_reductions(reduction):
    with pytest.raises(SpecError, match="reduction"):
        ChannelGate(4, 4, reduction)


def test_a_gated_convolution_scales_the_binary_sums():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(binary_sign(conv.weight))
    layer = RealToBinary(conv, Sign(), -1.0)
    nn.init.normal_(layer.gate.excite.weight)
    x = torch.randn(2, 3, 5, 5)
    padded = nn.functional.pad(binary_sign(x), (1, 1, 1, 1), value=-1.0)
    sums = nn.functional.conv2d(padded, conv.weight)
    assert torch.equal(sums, sums.round())
    assert torch.allclose(layer(x), sums * layer.gate(x))
    zero = RealToBinary(nn.Conv2d(3, 4, 3, padding=1), Sign(), 0.0)
    assert zero.conv.padding == (1, 1) and isinstance(zero.pad, nn.Identity)


def test_layers_without_maps_get_a_sign_and_no_gate():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Flatten(), nn.Linear(64, 3)
    )
    chosen = [model[1], model[3]]
    assert gate_convolutions(model, chosen, Sign(0.5), 1.0) == ["1"]
    assert isinstance(model[1], RealToBinary) and model[1].sign.window == 0.5
    assert isinstance(model[3][0], Sign) and model[3][1] is chosen[1]
    assert model[1].sign is not model[3][0]
    assert model(torch.randn(2, 1, 6, 6)).shape == (2, 3)
    with pytest.raises(NoEffect, match="no convolution"):
        gate_convolutions(nn.Sequential(nn.Linear(2, 2)), [nn.Linear(2, 2)], Sign(), 1.0)


def test_it_packs_with_binary_sums_and_answers_the_same_everywhere(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6 * 36, 4),
    )  # fmt: skip
    with torch.no_grad():
        for layer in (model[2], model[5]):
            layer.weight.copy_(binary_sign(layer.weight))
    gate_convolutions(model, [model[2], model[5]], Sign(), -1.0)
    nn.init.normal_(model[2].gate.excite.weight)
    x = torch.randint(-8, 9, (20, 1, 6, 6)) / 8
    model(x)
    packed, expected, found = everywhere(model, x, tmp_path)
    for backend, output in found.items():
        np.testing.assert_allclose(output, expected, atol=1e-4, err_msg=backend)
    binary = [step for step in packed.program.steps if step.result.domain == "int32"]
    assert [step.operator.kind for step in binary] == ["conv2d"]
    assert {"reduce", "curve", "multiply"} <= set(kinds(packed))
    formats = {layer.module: layer.format for layer in packed.layers}
    assert formats["2.conv"] == "bits", formats
