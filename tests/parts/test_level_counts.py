import torch
from torch import nn

from whit.parts.level_counts import level_summary, most_levels, takes_few_values
from whit.parts.levels import Levels, add_levels, leveled_layers


def test_the_summary_counts_values_not_names():
    model = nn.Sequential(nn.Linear(20, 4), nn.ReLU(), nn.Conv1d(4, 5, 3), nn.Linear(300, 2))
    add_levels(model[0], Levels("ternary", "channel"))
    assert [path for path, _ in leveled_layers(model)] == ["0"]
    ternary, few, real = level_summary(model)
    assert (ternary.levels, ternary.bits, ternary.weights) == (3, 2, 80)
    assert (few.levels, few.bits) == (12, 4)
    assert (real.levels, real.bits) == (None, 32)
    assert "0: 80 weights of 3 values a channel, 2 bits" in str(ternary)
    with torch.no_grad():
        model[2].weight.copy_(model[2].weight.sign())
    assert level_summary(model)[1].bits == 1


def test_few_values_a_channel_are_told_from_what_pruning_left():
    torch.manual_seed(0)
    ternary = torch.randint(-1, 2, (10, 4)) * torch.linspace(0.1, 1, 10)[:, None]
    assert takes_few_values(ternary, 2) and most_levels(ternary) <= 3
    real = torch.randn(10, 64)
    assert not takes_few_values(real, 2) and not takes_few_values(real, 256)
    pruned = real * (torch.rand(10, 64) < 0.04)
    assert not takes_few_values(pruned, 8)
    assert takes_few_values(torch.zeros(3, 5), 2)
