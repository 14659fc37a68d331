"""Gradients and curvatures that guide, against autograd's own."""

import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian, jacobian

from whit.errors import NotApplicable
from whit.procedures.coordinate_descent.guidance import (
    downhill,
    gradients,
    predicted_changes,
    unit_slope,
)
from whit.procedures.coordinate_descent.moves import every_move, positions_of_unit
from whit.procedures.coordinate_descent.network import DiscreteNetwork
from whit.procedures.coordinate_descent.scoring import ExactScorer


def dense():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), (4,)


def images():
    return nn.Sequential(
        nn.Conv2d(2, 4, 2, padding=1, groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3)
    ), (2, 3, 3)


def made(make, criterion="cross_entropy"):
    model, shape = make()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(7, *shape, generator=generator, dtype=torch.float64)
    target = torch.randint(3, (7,), generator=generator)
    if criterion == "mse":
        target = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    network = DiscreteNetwork.from_model(model, generator=generator)
    return ExactScorer(network, inputs, target, criterion)


@pytest.mark.parametrize("make", [dense, images])
def test_slopes_are_those_of_autograd(make):
    scorer = made(make)
    network = scorer.network
    network.write_back()
    model = network.model.double()
    for layer in network.layers:
        layer.module.weight.data = layer.weight()
        layer.module.bias.data = layer.bias()
    nn.functional.cross_entropy(model(scorer.inputs), scorer.target).backward()
    slopes, _ = gradients(scorer)
    for number, (layer, slope) in enumerate(zip(network.layers, slopes, strict=True)):
        expected = torch.cat([layer.module.weight.grad.flatten(), layer.module.bias.grad])
        assert torch.allclose(slope, expected, rtol=1e-9, atol=1e-12)
        for unit in range(len(layer.index)):
            positions = positions_of_unit(layer, unit)
            assert torch.allclose(
                unit_slope(scorer, number, unit), expected[positions], rtol=1e-9, atol=1e-12
            )


@pytest.mark.parametrize("make", [dense, images])
@pytest.mark.parametrize("criterion", ["cross_entropy", "mse"])
def test_curvature_is_the_diagonal_of_the_gauss_newton_matrix(make, criterion):
    scorer = made(make, criterion)
    model = scorer.network.model.double()
    scorer.network.write_back()
    for layer in scorer.network.layers:
        layer.module.weight.data = layer.weight()
        layer.module.bias.data = layer.bias()
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    sizes = {name: p for name, p in model.named_parameters()}

    def output(vector, sample):
        parts = torch.split(vector, [p.numel() for p in sizes.values()])
        chosen = {k: v.reshape(p.shape) for (k, p), v in zip(sizes.items(), parts, strict=True)}
        return torch.func.functional_call(model, chosen, sample.unsqueeze(0)).squeeze(0)

    def loss(z, t):
        if criterion == "mse":
            return (z - t).square().mean()
        return nn.functional.cross_entropy(z, t)

    expected = torch.zeros_like(flat)
    for sample, answer in zip(scorer.inputs, scorer.target, strict=True):
        slope = jacobian(lambda vector, x=sample: output(vector, x), flat)
        z = output(flat, sample).detach()
        bend = hessian(lambda scores, t=answer: loss(scores, t), z)
        expected += torch.einsum("cp,cd,dp->p", slope, bend, slope) / len(scorer.target)
    found = torch.cat(gradients(scorer, curvature=True)[1])  # weight, bias, weight, bias
    assert torch.allclose(found, expected, rtol=1e-8, atol=1e-12)


def test_predictions_of_a_linear_model_with_mean_square_are_exact():
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    target = torch.randn(9, 2, generator=generator, dtype=torch.float64)
    scorer = ExactScorer(
        DiscreteNetwork.from_model(nn.Linear(4, 2), generator=generator), inputs, target, "mse"
    )
    curvature = gradients(scorer, curvature=True)[1][0]
    for unit in (0, 1):
        moves, changes = predicted_changes(scorer, 0, unit, curvature)
        assert torch.allclose(scorer.loss + changes, scorer.score(moves), rtol=1e-10)


def test_the_rule_gradient_goes_one_value_downhill():
    scorer = made(dense)
    slopes, _ = gradients(scorer)
    moves = every_move(scorer.network)
    kept = downhill(scorer, moves, slopes)
    assert 0 < len(kept) < len(moves)
    for layer, position, level in zip(kept.layer, kept.position, kept.level, strict=True):
        la = scorer.network.layers[layer]
        now = torch.cat([la.index.flatten(), la.bias_index])[position]
        assert int(level) - int(now) == -int(slopes[layer][position].sign())


@pytest.mark.parametrize("of", [lambda s: gradients(s), lambda s: unit_slope(s, 0, 0)])
def test_a_criterion_without_a_gradient_guides_nobody(of):
    scorer = made(dense, lambda output, target: (output.argmax(1) != target).double())
    with pytest.raises(NotApplicable, match="guided=0"):
        of(scorer)
