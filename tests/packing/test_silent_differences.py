"""Networks that a packer can get wrong without a word: they are equal to torch, or refused."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from packing_networks import Function, check
from torch import nn

from whit.errors import CannotPack, WhitError
from whit.packing import pack
from whit.packing.formats import choose_storage


class Parts(nn.Module):
    """A forward function with modules."""

    def __init__(self, forward, **modules):
        super().__init__()
        self.function = forward
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.function(self, x)


def signs(module, size=1.0):
    with torch.no_grad():
        module.weight.copy_(torch.where(module.weight >= 0, size, -size))
    return module


def quantiser(step, low, high):
    return Function(lambda x: torch.clamp(torch.round(x / step), low, high) * step)


def test_ties_of_many_steps_are_those_of_torch():
    torch.manual_seed(0)
    layers = [quantiser(0.25, -127, 127)]
    for inputs in (12, 32):
        linear = signs(nn.Linear(inputs, 32, bias=False), 0.5)
        layers += [linear, nn.ReLU(), quantiser(0.25, 0, 255)]
    model = nn.Sequential(*layers, signs(nn.Linear(32, 10, bias=False), 0.5))
    packed = check(model, torch.randn(2000, 12) * 3, exact=True)
    assert [s.operator.kind for s in packed.program.steps].count("requantize") == 2


def test_a_negative_scale_before_a_pool():
    torch.manual_seed(0)

    def forward(parts, x):
        x = F.max_pool2d(parts.conv(torch.clamp(torch.round(x), -3, 3) * -0.5), 2)
        return parts.head(torch.where(x >= 0.7, 1.0, -1.0).flatten(1))

    model = Parts(forward, conv=signs(nn.Conv2d(3, 4, 3)), head=nn.Linear(48, 5))
    check(model.eval(), torch.randn(20, 3, 9, 11) * 2)


LIMITS = {
    "between": lambda x: torch.clamp(torch.round(x), -20.7, 20.4),
    "scaled": lambda x: torch.clamp(torch.round(x * 4) / 4, -3, 3),
    "floor": lambda x: torch.clamp(torch.floor(x * 4) + 0.5, -8, 7),
    "pixels": lambda x: (x >= torch.linspace(-1, 1, 12)).float(),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits_and_thresholds(name):
    check(Function(LIMITS[name]), torch.randn(200, 12) * 8, tolerance=1e-6)


def test_a_layer_that_always_gives_the_same():
    norm = nn.BatchNorm1d(4)
    nn.init.zeros_(norm.weight)
    nn.init.constant_(norm.bias, 0.3)
    step = Function(lambda x: torch.where(x >= 0, 1.0, -1.0))
    check(nn.Sequential(nn.Linear(12, 4), norm, step, nn.Linear(4, 3)).eval(), torch.randn(20, 12))


@pytest.mark.parametrize("kind", [nn.Dropout1d, nn.AlphaDropout, nn.FeatureAlphaDropout])
def test_dropout_of_every_kind_does_nothing(kind):
    model = nn.Sequential(nn.Conv1d(3, 4, 3), kind(), nn.Flatten(), nn.Linear(20, 2))
    check(model.eval(), torch.randn(6, 3, 7))


def test_a_module_that_keeps_its_output():
    def forward(parts, x):
        parts.last = parts.linear(x)
        return parts.last

    model = Parts(forward, linear=nn.Linear(12, 3)).eval()
    model(torch.randn(2, 12))
    check(model, torch.randn(20, 12))


def test_saturating_activations_do_not_make_an_8_bit_file_larger():
    torch.manual_seed(0)
    wide = nn.Linear(64, 64)
    model = nn.Sequential(nn.Linear(12, 64), nn.Sigmoid(), wide, nn.Sigmoid(), nn.Linear(64, 3))
    x = torch.randn(64, 12)
    assert pack(model, x, calibration=x).nbytes < 0.4 * pack(model, x).nbytes


def test_plain_integers_are_found_beside_other_grids():
    values = np.zeros((3, 6), np.float32)
    values[1, 2], values[1, 4] = 10099, -2421
    assert choose_storage(values, whole=True).weight.scale.size == 0


def in_place_behind_dropout(parts, x):
    hidden = parts.linear(x)
    return hidden + parts.relu(parts.dropout(hidden))


def counting(parts, x):
    parts.count += 1
    return x * parts.count


BYTES = torch.randint(0, 256, (8, 12), dtype=torch.uint8)
WHOLE = torch.randint(0, 2**27, (8, 12), dtype=torch.int32)
REALS = torch.randn(8, 12)
REFUSED = {
    "bool": (Function(lambda x: x.bool().float()), BYTES),
    "int8": (Function(lambda x: x.to(torch.int8).float()), BYTES),
    "power": (Function(lambda x: (x**2).float()), BYTES),
    "clamp": (Function(lambda x: x.clamp(min=-5).float()), BYTES),
    "below": (Function(lambda x: (x >= -1).float()), BYTES),
    "int32": (Function(lambda x: (x > 2**25 + 1).float()), WHOLE),
    "random": (Function(lambda x: x + torch.randn(12)), REALS),
    "batch": (Function(lambda x: x * x.shape[0]), REALS),
    "buffer": (Parts(counting, count=nn.Buffer(torch.zeros(()))), REALS),
    "in_place": (
        Parts(
            in_place_behind_dropout,
            linear=nn.Linear(12, 12),
            dropout=nn.Dropout(0.3),
            relu=nn.ReLU(inplace=True),
        ),
        REALS,
    ),
    "function": (lambda x: x, REALS),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_file_cannot_say_is_refused(name):
    model, x = REFUSED[name]
    with pytest.raises(CannotPack):
        pack(model.eval() if isinstance(model, nn.Module) else model, x)


@pytest.mark.parametrize(
    "options",
    [{"input_range": 5}, {"input_range": ("a", "b")}, {"labels": ["a"] * 8}, {"info": {1: "a"}},
     {"forbid": "float32"}],
)  # fmt: skip
def test_options_that_do_not_fit_are_said_in_words(options):
    with pytest.raises(WhitError, match="give|expected"):
        pack(nn.Linear(12, 3), REALS, **options)
