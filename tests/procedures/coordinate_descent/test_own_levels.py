"""The few values that a trained weight holds are found exactly, and real ones are not taken."""

import pytest
import torch

from whit.parts.bit_planes import quantised
from whit.procedures.coordinate_descent.own_levels import own_levels


def weight(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def exact(found, shape):
    scale = torch.full((shape[0],), found.scale, dtype=torch.float64)
    scale = scale if found.channel_scale is None else scale * found.channel_scale
    levels = found.values[found.index.long()]
    return (scale.reshape(-1, *[1] * (len(shape) - 1)) * levels).float()


@pytest.mark.parametrize("step", ["channel", "layer", "power_of_two"])
@pytest.mark.parametrize("bits", [1, 2, 4, 7])
def test_bit_layers_are_found_to_the_last_bit(step, bits):
    integers, size = quantised(weight(20, 30), bits, step)
    rounded = integers * size
    found = own_levels(rounded)
    assert torch.equal(exact(found, rounded.shape), rounded)
    assert len(found.values) <= 2 ** (bits + 1)


def test_levels_of_a_channel_are_no_wider_than_those_of_the_others():
    integers = torch.tensor([[7.0, 3.0, -5.0, 1.0], [6.0, 2.0, -4.0, 6.0], [4.0, -4.0, 0.0, 4.0]])
    size = torch.tensor([[0.1], [0.3], [0.7]])
    found = own_levels(integers * size)
    assert torch.equal(exact(found, integers.shape), integers * size)
    assert float(found.values.abs().max()) == 7
    widest = found.channel_scale * found.values.abs().max()
    assert bool((widest <= 2 * (integers * size).abs().max(1).values).all())


def test_signs_of_any_scale_need_one_level_each_way():
    signs = weight(10, 12).sign() * weight(10, 1).abs()
    for dtype in (torch.float32, torch.float64):
        found = own_levels(signs.to(dtype) / 3)
        assert found.values.tolist() == [-1.0, 1.0]


def test_a_code_book_of_the_layer_is_taken_as_it_is():
    book = weight(12)
    shared = book[torch.randint(12, (8, 9), generator=torch.Generator().manual_seed(1))]
    found = own_levels(shared)
    assert len(found.values) == 12 and torch.equal(exact(found, shared.shape), shared)
    # As many values as weights are a code book only where that is known.
    assert own_levels(weight(3, 4)) is None
    assert torch.equal(exact(own_levels(weight(3, 4), chosen=True), (3, 4)), weight(3, 4))


@pytest.mark.parametrize("kept", [0.02, 0.1, 0.3, 1.0])
def test_real_weights_are_no_set_of_values_however_few_are_left(kept):
    for seed in range(20):
        chance = torch.Generator().manual_seed(seed)
        pruned = weight(20, 16, seed=seed) * (torch.rand(20, 16, generator=chance) < kept)
        assert own_levels(pruned) is None


def test_planes_are_whole_steps_only_and_zeros_hold_nothing():
    assert own_levels(weight(3, 4), chosen=True, planes=True) is None
    assert own_levels(torch.zeros(3, 4)) is None
    assert own_levels(torch.full((3, 4), 0.5)) is None
