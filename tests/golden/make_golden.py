"""How the golden artifact of format version 1 was made; never run it over an existing file."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

import whit
from whit.parts.normalise import Normalise
from whit.parts.straight_through import Sign

HERE = Path(__file__).parent


def binary_network() -> nn.Module:
    """Return a binary 8-6-3 network with every sign of gamma."""
    torch.manual_seed(1)
    model = nn.Sequential(
        Normalise(8.0, 8.0), nn.Linear(8, 6, bias=False), nn.BatchNorm1d(6), Sign(), nn.Linear(6, 3)
    ).eval()
    with torch.no_grad():
        for layer, scale in ((model[1], 1.0), (model[4], 0.25)):
            layer.weight.copy_(torch.where(layer.weight >= 0, scale, -scale))
        model[2].weight.copy_(torch.tensor([1.0, -1.0, 0.0, 0.5, -0.5, 2.0]))
        model[2].bias.copy_(torch.tensor([0.0, 0.5, -1.0, 0.25, 0.0, 0.0]))
    return model


if __name__ == "__main__":
    target = HERE / "binary_version1.whit"
    if target.exists():
        raise SystemExit(f"{target} exists; a golden file is never made again")
    model = binary_network()
    inputs = torch.randint(0, 17, (64, 8)).float()
    with torch.no_grad():
        outputs = model(inputs).numpy()
    info = {"task": "golden"}
    packed = whit.pack(model, inputs, labels=["a", "b", "c"], info=info, input_range=(0, 16))
    packed.save(target)
    np.savez_compressed(HERE / "binary_version1.npz", inputs=inputs.numpy(), outputs=outputs)
