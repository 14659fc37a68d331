"""Make brevitas.npz: the true values of networks of Brevitas, and what it computes with them.

Brevitas brings old setuptools along, so it is no dependency of the tests. To make the file again:

    python -m venv /tmp/brevitas
    /tmp/brevitas/bin/pip install brevitas==0.13.4 torch==2.13.0
    PYTHONPATH=src /tmp/brevitas/bin/python tests/packing/data/make_brevitas.py

It also packs the live modules, and fails where the file differs from Brevitas.
"""

from pathlib import Path

import brevitas.nn as qnn
import numpy as np
import torch
from brevitas.quant import Int8WeightPerChannelFloat
from brevitas.quant.binary import SignedBinaryActPerTensorConst, SignedBinaryWeightPerTensorConst
from brevitas.quant.ternary import SignedTernaryWeightPerTensorConst
from torch import nn

from whit.packing import pack


def signs():
    return qnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst)


def linear(inputs, outputs, quantiser=None, bits=None):
    # A quantiser is an empty injector, which counts as false.
    options = {} if quantiser is None else {"weight_quant": quantiser}
    options |= {} if bits is None else {"weight_bit_width": bits}
    return qnn.QuantLinear(inputs, outputs, bias=False, **options)


def networks():
    binary, ternary = SignedBinaryWeightPerTensorConst, SignedTernaryWeightPerTensorConst
    yield "binary", [signs(), linear(24, 16, binary), nn.BatchNorm1d(16), signs(),
                     linear(16, 5, binary)]  # fmt: skip
    yield "ternary", [signs(), linear(24, 16, ternary), nn.BatchNorm1d(16), signs(),
                      linear(16, 5, ternary)]  # fmt: skip
    relu, channels = (lambda: qnn.QuantReLU(bit_width=4)), Int8WeightPerChannelFloat
    yield "int4", [relu(), linear(24, 16, bits=4), nn.BatchNorm1d(16), relu(),
                   linear(16, 5, channels, 4)]  # fmt: skip


def activation_scale(module):
    if isinstance(module, qnn.QuantReLU):
        return module.act_quant.scale().detach().reshape(()).numpy()
    return np.float32(1.0)  # its signs are -1 and +1


def main():
    torch.manual_seed(0)
    x = torch.randn(60, 24)
    values = {"x": x.numpy()}
    for name, layers in networks():
        model = nn.Sequential(*layers)
        for _ in range(50):
            model.train()(x)
        model.eval()
        output = model(x).detach().numpy()
        found = pack(model, x).program(x.numpy())
        np.testing.assert_allclose(found, output, atol=1e-5 * np.abs(output).max())
        norm = model[2]
        values |= {
            f"{name}.weight1": model[1].quant_weight().value.detach().numpy(),
            f"{name}.weight2": model[4].quant_weight().value.detach().numpy(),
            f"{name}.scale1": np.float32(activation_scale(model[0])),
            f"{name}.scale2": np.float32(activation_scale(model[3])),
            f"{name}.norm": torch.stack(
                [norm.weight, norm.bias, norm.running_mean, norm.running_var]
            ).detach().numpy(),
            f"{name}.output": output,
        }  # fmt: skip
    np.savez_compressed(Path(__file__).parent / "brevitas.npz", **values)


if __name__ == "__main__":
    main()
