"""How the golden artifacts of format version 2 were made; never run it over an existing file.

That of version 1 was made by `binary_network` below at commit 294d429.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

import whit
from whit.packing.formats import storage_candidates
from whit.parts.group import Group
from whit.parts.normalise import Normalise
from whit.parts.route import FeatureRule, GroupSumRule, Route
from whit.parts.straight_through import Sign
from whit.runtime import decode_program
from whit.runtime.artifact import build_artifact
from whit.runtime.data_section import DataWriter
from whit.runtime.layout import ProgramHeader
from whit.runtime.operators import OPERATOR_CODES, Add, Linear
from whit.runtime.storage import FORMATS

HERE = Path(__file__).parent


def binary_network():
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


class Levels(nn.Module):
    """Four levels, 0 to 1.5."""

    def forward(self, x):
        return torch.clamp(torch.round(x * 2), 0, 3) / 2


class Branches(nn.Module):
    """Concatenation, addition, product, and most float operators."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(7, 4, 3, padding=1, groups=1, dilation=1)
        self.norm, self.slope, self.gate = nn.GroupNorm(2, 4), nn.PReLU(4), nn.Conv2d(4, 4, 1)
        self.line, self.last = nn.LayerNorm([4, 4, 4]), nn.Linear(12, 3)

    def forward(self, x):
        x = (x - 8) / 8
        y = torch.cat([x, nn.functional.leaky_relu(self.first(x), 0.2)], 1)
        y = self.slope(self.norm(self.second(y)))
        y = y * torch.sigmoid(self.gate(nn.functional.adaptive_avg_pool2d(y, 1))) + y
        y = self.line(nn.functional.avg_pool2d(y, 2))
        z = nn.functional.gelu(y).mean((2, 3)), torch.tanh(y).amax((2, 3))
        w = nn.functional.hardswish(y.permute(0, 2, 3, 1)).sum((1, 2))
        return self.last(nn.functional.hardtanh(torch.cat([*z, w], 1))).softmax(-1)


def integer_network():
    """Return convolutions of integers from raw bytes to scores."""
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), Levels(), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8), Sign(), nn.Linear(8, 3),
    ).eval()  # fmt: skip
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([0.1, -0.2, 0.05, 0.3]))
        for layer, steps in ((model[0], 7), (model[4], 60), (model[7], 100), (model[9], 1)):
            largest = layer.weight.abs().max()
            layer.weight.copy_(torch.round(layer.weight / largest * steps) / steps)
    return model


def route_network():
    """Return a group, its mean, and a route of which each input runs a part."""
    torch.manual_seed(3)
    members = [nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)) for _ in range(6)]
    rule = GroupSumRule([[0, 1], [2, 3]], 0.25)
    route = Route(members[:3], rule, [(0,), (0, 1), (2,)])
    return nn.Sequential(Group([route, *members[3:5]]), Mean()).eval(), Group(members[4:]).eval()


def rules_network():
    """Return a route by features with a temperature, in it one by groups of classes with one."""
    torch.manual_seed(8)
    members = [nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)) for _ in range(5)]
    groups = GroupSumRule([[0, 1], [2, 3]], 0.125, temperature=0.5)
    inner = Route(members[:2], groups, [(0,), (0, 1), (1,)])
    features = FeatureRule(nn.Linear(5, 3), 4, 0.25, temperature=0.75)
    return Route([members[2], inner, *members[3:]], features, [(0,), (1,), (0, 2), (3,)]).eval()


class Uneven(nn.Module):
    """Three levels: 0, 1 and 4."""

    def forward(self, x):
        return (x >= 0).float() + 3 * (x >= 0.5).float()


class Text(nn.Module):
    """A table of letters, a convolution along a padded text, uneven levels and signs."""

    def __init__(self):
        super().__init__()
        self.table, self.line, self.steps = nn.Embedding(9, 4), nn.Conv1d(4, 6, 3), Uneven()
        self.middle, self.sign, self.last = nn.Linear(12, 5), Sign(), nn.Linear(5, 3)

    def forward(self, x):
        y = nn.functional.pad(self.table(x).transpose(1, 2), (2, 1), value=0.5)
        y = self.line(y).amax(2)
        y = torch.cat([self.steps(y), self.sign(y)], 1) * 0.5 + 1.5
        return self.last(self.sign(torch.tanh(self.middle(y)).square() - 0.1))


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(0)


def every_format():
    """Return the bytes of a program that adds up one matrix in each weight format."""
    random = np.random.default_rng(4)
    kinds = [
        random.choice([-0.5, 0.5], (6, 8)),
        random.choice([-1.0, 0.0, 1.0], (6, 8), p=[0.05, 0.9, 0.05]),
        random.choice([0.25, 0.5, 1.25, 3.0], (6, 8)) * ([1, 0, 0, 1] * 2),
        random.integers(-100, 100, (6, 8)) * 0.125 * ([0, 1, 1, 0] * 2),
        random.choice([-3.0, 0.0, 2.0, 5.0], (6, 8), p=[0.1, 0.7, 0.1, 0.1]),
        random.normal(size=(6, 8)) * ([1, 0, 1, 0] * 2),
        random.choice([1.5, 2.75], (6, 8)),
    ]
    found = {}
    for values in kinds:
        for candidate in storage_candidates(values.astype(np.float32)):
            found.setdefault(candidate.form.name, candidate.weight())
    assert set(found) == {form.name for form in FORMATS.values()}, set(found)
    writer, records, total = DataWriter(), [], 0
    for weight in (found[name] for name in sorted(found)):
        bias = np.arange(6, dtype=np.float32)
        for operator, source, other in ((Linear(weight, bias), 0, 0), (Add(), -1, total)):
            if isinstance(operator, Add) and not total:
                total = len(records)
                continue
            source = len(records) if source else 0
            record = replace(operator.write(writer), kind=OPERATOR_CODES[operator.kind])
            records.append(replace(record, source=source, other=other).to_bytes())
            total = len(records) if isinstance(operator, Add) else total
    header = ProgramHeader(len(records), (8,))
    return build_artifact(header.to_bytes() + b"".join(records), writer.to_bytes(), {})


def save(name, content, inputs, version=2):
    path = HERE / f"{name}_version{version}.whit"
    if path.exists():
        print(f"{path} exists; a golden file is never made again")
        return
    outputs = decode_program(content, "reference")(inputs)
    path.write_bytes(content)
    np.savez_compressed(path.with_suffix(".npz"), inputs=inputs, outputs=outputs)


if __name__ == "__main__":
    generator = torch.Generator().manual_seed(5)
    vectors = torch.randint(0, 17, (64, 8), generator=generator).float()
    images = torch.randint(0, 256, (32, 1, 8, 8), generator=generator).to(torch.uint8)
    colours = torch.randint(0, 17, (16, 3, 8, 8), generator=generator).float()
    six = torch.randn(64, 6, generator=generator)
    route, group = route_network()
    about = {"labels": ["a", "b", "c"], "info": {"task": "golden"}, "input_range": (0, 16)}
    save("binary", whit.pack(binary_network(), vectors, **about).to_bytes(), vectors.numpy())
    integers = nn.Sequential(Normalise(128.0, 128.0), integer_network())
    packed = whit.pack(integers, images, calibration=images)
    save("integer", packed.to_bytes(), images.numpy())
    torch.manual_seed(6)
    save("graph", whit.pack(Branches().eval(), colours).to_bytes(), colours.numpy())
    save("route", whit.pack(route, six).to_bytes(), six.numpy())
    save("group", whit.pack(group, six).to_bytes(), six.numpy())
    torch.manual_seed(7)
    letters = torch.randint(0, 9, (32, 7), generator=generator)
    packed = whit.pack(Text().eval(), letters)
    save("text", packed.to_bytes(), letters.numpy().astype(np.int32))
    save("formats", every_format(), vectors.numpy())
    rules = whit.pack(rules_network(), six).to_bytes()
    save("rules", rules, six.numpy(), version=3)
