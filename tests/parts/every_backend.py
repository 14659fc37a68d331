"""Run a packed network everywhere: NumPy, C++ and the C source, each from the bytes of its file."""

import importlib.util
from pathlib import Path

import numpy as np
import torch

from whit.packing import pack
from whit.runtime import decode_program, native

_FILE = Path(__file__).parents[1] / "export" / "conftest.py"


def _c_model(program, folder):
    spec = importlib.util.spec_from_file_location("c_models", _FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CModel(program, folder)


def everywhere(model, x, folder):
    """Return (packed, torch's output, {backend: output}); the model is put into eval mode."""
    with torch.no_grad():
        expected = model.eval()(x).numpy()
    packed = pack(model, x[:2])
    content, raw = packed.to_bytes(), x.numpy()
    found = {"reference": decode_program(content, "reference")(raw)}
    if native.available():
        found["native"] = decode_program(content, "native")(raw)
    for number, output in enumerate(_c_model(decode_program(content, "reference"), folder).run(x)):
        found[f"C, compiler {number}"] = output
    return packed, expected, found


def check_bits(model, x, folder):
    """Check that all give torch's very numbers; return the packed network."""
    packed, expected, found = everywhere(model, x, folder)
    for backend, output in found.items():
        np.testing.assert_array_equal(output, expected, err_msg=backend)
    return packed


def kinds(packed):
    """Return the operators of a packed network."""
    return [step.operator.kind for step in packed.program.steps]
