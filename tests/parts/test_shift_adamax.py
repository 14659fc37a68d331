import copy
import math

import pytest
import torch
from torch import nn

from whit.errors import SpecError
from whit.parts.shift_adamax import ShiftAdaMax


def ap2(z):
    return math.copysign(2.0 ** round(math.log2(abs(z))), z) if z else 0.0


def test_three_steps_by_the_formula():
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    optimizer = ShiftAdaMax([weight])
    expected, mean, largest = weight.tolist(), [0.0] * 3, [0.0] * 3
    for t, gradient in enumerate([[0.3, -1.0, 0.0], [0.1, 2.0, 0.0], [-0.7, 0.01, 0.0]], 1):
        weight.grad = torch.tensor(gradient)
        optimizer.step()
        rate = ap2(2.0**-10 / (1 - (1 - 2.0**-3) ** t))
        for i, g in enumerate(gradient):
            mean[i] += 2.0**-3 * (g - mean[i])
            largest[i] = max((1 - 2.0**-10) * largest[i], abs(g))
            if largest[i]:
                expected[i] -= rate * mean[i] * ap2(1 / largest[i])
        assert torch.allclose(weight.detach(), torch.tensor(expected), atol=1e-8)
    assert float(weight.detach()[2]) == 0.5, "without a gradient nothing moves, and nothing is NaN"


def test_every_factor_is_a_power_of_two():
    weight = nn.Parameter(torch.zeros(50))
    optimizer = ShiftAdaMax([weight], lr=0.003)
    weight.grad = torch.randn(50, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    factors = weight.detach() / (weight.grad / 8)
    assert torch.equal(factors.abs().log2(), factors.abs().log2().round())


def test_it_trains_and_its_state_goes_on():
    torch.manual_seed(0)
    x, y = torch.randn(200, 6), torch.randn(200)
    y = (x[:, 0] + 0.1 * y > 0).float()

    def fit(steps, model, optimizer):
        for _ in range(steps):
            optimizer.zero_grad()
            loss = nn.functional.binary_cross_entropy_with_logits(model(x)[:, 0], y)
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    model = nn.Linear(6, 1)
    optimizer = ShiftAdaMax(model.parameters(), lr=2.0**-4)
    start = fit(1, model, optimizer)
    saved = {k: v.clone() for k, v in model.state_dict().items()}, optimizer.state_dict()
    twin = nn.Linear(6, 1)
    other = ShiftAdaMax(twin.parameters(), lr=2.0**-4)
    twin.load_state_dict(saved[0])
    other.load_state_dict(copy.deepcopy(saved[1]))
    assert fit(40, model, optimizer) < 0.5 * start
    fit(40, twin, other)
    assert torch.equal(model.weight, twin.weight)


@pytest.mark.parametrize("options", [{"lr": 0}, {"lr": math.inf}, {"shares": (0.5,)},
                                     {"shares": (0.0, 0.5)}], ids=str)  # fmt: skip
def test_bad_options(options):
    with pytest.raises(SpecError):
        ShiftAdaMax([nn.Parameter(torch.zeros(1))], **options)


def test_a_closure_gives_its_loss():
    weight = nn.Parameter(torch.ones(1))
    optimizer = ShiftAdaMax([weight])

    def closure():
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert float(optimizer.step(closure).detach()) == 1.0
