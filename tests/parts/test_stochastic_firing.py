import math

import pytest
import torch
from torch import nn

from whit.errors import SpecError
from whit.parts.stochastic_firing import (
    FIRES_FROM,
    StochasticFire,
    TernaryInput,
    firing_probabilities,
    stochastic_fire,
)

DRAWS = 100_000


@pytest.mark.parametrize("rho", [-1.0, -0.7, -0.5, 0.0, 0.3, 1.0])
def test_the_mean_of_many_firings_is_rho(rho):
    fired = stochastic_fire(torch.full((DRAWS,), rho), torch.Generator().manual_seed(1))
    deviation = math.sqrt(abs(rho) * (1 - abs(rho)) / DRAWS)
    assert abs(float(fired.mean()) - rho) <= 4 * deviation  # exact at -1, 0 and 1
    assert set(fired.tolist()) <= {-1.0, 0.0, 1.0}


def test_probabilities_by_hand():
    found = firing_probabilities(torch.tensor([-1.0, -0.25, 0.0, 0.5]))
    expected = [[1, 0.25, 0, 0], [0, 0.75, 1, 0.5], [0, 0, 0, 0.5]]
    assert found.tolist() == expected


def test_the_evaluation_has_strict_thresholds():
    fire = StochasticFire("hardtanh").eval()
    x = torch.tensor([-9.0, -0.5001, -0.5, 0.0, 0.5, 0.5001, 9.0])
    assert fire(x).tolist() == [-1, -1, 0, 0, 0, 1, 1]
    edge = FIRES_FROM["tanh"]
    squashed = StochasticFire("tanh").eval()(
        torch.tensor([-edge - 1e-3, -edge + 1e-3, edge + 1e-3])
    )
    assert squashed.tolist() == [-1, 0, 1]


@pytest.mark.parametrize("training", [True, False])
def test_the_gradient_is_that_of_the_squashing_function(training):
    x = torch.tensor([-2.0, -0.3, 0.4, 3.0], requires_grad=True)
    StochasticFire("tanh").train(training)(x).sum().backward()
    assert torch.allclose(x.grad, 1 - torch.tanh(x.detach()).square())
    x.grad = None
    StochasticFire("hardtanh").train(training)(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0]


def test_it_runs_under_vmap():
    fire = StochasticFire()
    weight = torch.randn(3, 5, requires_grad=True)
    per_member = torch.func.vmap(torch.func.grad(lambda w: fire(w).sum()), randomness="different")(
        weight
    )
    assert torch.allclose(per_member, 1 - torch.tanh(weight.detach()).square())


def test_inputs_by_hand():
    x = torch.tensor([-2.0, -0.6, -0.4, 0.0, 0.26, 0.7, 9.0])
    assert TernaryInput("ternary")(x).tolist() == [-1, -1, 0, 0, 0, 1, 1]
    assert TernaryInput("ternary", 0.25)(x).tolist() == [-1, -1, -1, 0, 1, 1, 1]
    assert TernaryInput("binary", 0.25)(x).tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert TernaryInput("integer")(x).tolist() == [-64, -19, -13, 0, 8, 22, 127]


def test_bad_options():
    with pytest.raises(SpecError, match="squash"):
        StochasticFire("sigmoid")
    with pytest.raises(SpecError, match="kind"):
        TernaryInput("bytes")
    with pytest.raises(SpecError, match="threshold"):
        TernaryInput("ternary", 0.0)


def test_a_network_learns_through_firings():
    torch.manual_seed(0)
    x = torch.randn(256, 6)
    y = (x[:, 0] * x[:, 1] > 0).long()
    model = nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), StochasticFire(), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert float((model.eval()(x).argmax(1) == y).float().mean()) > 0.85
