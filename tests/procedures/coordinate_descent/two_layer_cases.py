"""Small two-layer networks for the tests of the whole-neighbourhood scorer."""

import torch

from whit.procedures.coordinate_descent.input_block import InputBlock, InputLevels
from whit.procedures.coordinate_descent.two_layer import TwoLayer, Weights

TERNARY = (-1.0, 0.0, 1.0)
SAMPLES, INPUTS, HIDDEN, OUTPUTS = 40, 8, 3, 4


def inputs_of(kind, samples=SAMPLES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (samples, INPUTS)
    on = torch.rand(shape, generator=generator) < 0.3
    # Neighbouring columns are alike, as in images, so that chains of differences are used.
    on[:, 1::2] = on[:, ::2]
    return {
        "binary": on.double(),
        "signs": on.double() * 2 - 1,
        "few": torch.randint(0, 4, shape, generator=generator).double() / 2 - 0.5,
        "real": torch.randn(shape, generator=generator, dtype=torch.float64),
        "many": torch.rand(shape, generator=generator, dtype=torch.float64) * on * 2 - 0.5,
    }[kind]


def weights_of(outputs, inputs, bias, values, scales, generator, fixed=False):  # noqa: PLR0917
    table = torch.tensor(values, dtype=torch.float64)
    index = torch.randint(0, len(values), (outputs, inputs + bias), generator=generator)
    real = torch.randn(outputs, generator=generator, dtype=torch.float64) if fixed else None
    scale = torch.full((outputs,), 0.25, dtype=torch.float64)
    if scales == "channel":
        scale = torch.rand(outputs, generator=generator, dtype=torch.float64) + 0.25
    return Weights(table, index, scale, bias, real)


def network_of(
    activation=torch.relu,
    bias=True,
    values=TERNARY,
    scales="layer",
    criterion="cross_entropy",
    dtype=torch.float64,
    seed=0,
):
    generator = torch.Generator().manual_seed(seed)
    fixed = bias == "fixed"
    bias = bias is True
    first = weights_of(HIDDEN, INPUTS, bias, values, scales, generator, fixed)
    second = weights_of(OUTPUTS, HIDDEN, bias, values, scales, generator, fixed)
    return TwoLayer(first, second, activation, criterion, dtype)


def block_of(inputs, bias, grid=3):
    levels = InputLevels.of(inputs, grid)
    return InputBlock(inputs, levels.values, levels.base, bias is True)


def target_of(criterion, samples=SAMPLES, seed=1):
    generator = torch.Generator().manual_seed(seed)
    if criterion == "mse":
        return torch.randn(OUTPUTS, samples, generator=generator, dtype=torch.float64)
    return torch.randint(0, OUTPUTS, (samples,), generator=generator)


def fresh_loss(network, inputs, target):
    """The loss by plain torch from the real weights: nothing of the scorer's caches."""

    def layer(x, weights):
        real = weights.real(torch.float64)
        y = x @ real[:, : x.shape[1]].t()
        if weights.bias:
            y = y + real[:, -1]
        return y if weights.fixed is None else y + weights.fixed

    logits = layer(network.activation(layer(inputs, network.first)), network.second)
    if network.criterion == "mse":
        return float((logits - target.t()).square().mean())
    return float(torch.nn.functional.cross_entropy(logits, target))


def every_change(network, weights, inputs, target):
    """Brute force: the change of the loss by every move of one layer, [values, out, in]."""
    before = fresh_loss(network, inputs, target)
    changes = torch.full((len(weights.values), *weights.index.shape), torch.inf).double()
    for row in range(len(weights.index)):
        for column in range(weights.index.shape[1]):
            old = int(weights.index[row, column])
            for new in range(len(weights.values)):
                if new != old:
                    weights.index[row, column] = new
                    change = fresh_loss(network, inputs, target) - before
                    changes[new, row, column] = change
            weights.index[row, column] = old
    return changes
