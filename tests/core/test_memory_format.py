"""A memory format that breaks the process is kept away from the models that it breaks."""

import subprocess
import sys

import pytest
from torch import nn

from whit.core.memory_format import suits_channels_last


@pytest.mark.parametrize(
    ("model", "suits"),
    [
        (nn.Linear(3, 2), False),
        (nn.Conv1d(3, 4, 1, stride=2), False),
        (nn.Conv2d(3, 4, 3, stride=2), True),
        (nn.Conv2d(3, 4, 1), True),
        (nn.Conv2d(4, 8, 1, stride=2), False),
        (nn.Conv2d(32, 64, 1, stride=2), True),
        (nn.Conv2d(32, 64, 1, stride=2, groups=8), False),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 1, stride=(1, 2))), False),
    ],
)
def test_strided_pointwise_convolutions_of_few_channels_are_left_alone(model, suits):
    assert suits_channels_last(model) is suits


def test_a_narrow_residual_network_trains():
    code = """
import whit
from whit.core.execution import Conditions, train
from whit.core.technique import Technique
task = whit.task("digits(model='resnet8', width=0.25)")
run = train(task, Technique(), task.settings.changed(epochs=1), Conditions(seed=0))
print(run.run.evaluate(run.model))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    assert 0 < float(done.stdout) <= 1
