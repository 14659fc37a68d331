"""Two hidden tasks in one, told apart by a hidden variable that the inputs show.

    python benchmarks/cnng_mnist.py --two-tasks --seeds 5
    whit run benchmarks/two_tasks.py:own_classes cnng --seed 0 --out runs

The hidden variable h is 0 or 1. Four inputs lie around -1 or 1, and h is the sign of their mean;
eight more, z, are drawn evenly.
With h = 0 the class is the sign of the sum of the first four z, with h = 1 that of the last four.

    own_classes      each task has two classes of its own, so the scores tell the tasks apart. Two
                     linear layers with two units between them: these can carry h and one sum, not
                     both sums.
    shared_classes   both tasks have the same two classes, so only the inputs tell. One linear
                     layer, which can learn one of the two tasks.

Networks without a nonlinearity, so that what the first network misses is out of its reach, and no
matter of a lucky start.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from whit import Settings, Task
from whit.core.data import Data, Split, VectorData

SIZES = (6000, 2000, 4000)
SIGNS, VALUES = 4, 8
NOISE = 0.5
NAMES = {
    True: ("below", "above"),
    False: ("first below", "first above", "second below", "second above"),
}


def hidden_variable(inputs: Tensor) -> Tensor:
    """Return h, int64 [samples]: the sign of the mean of the first four inputs."""
    return (inputs[:, :SIGNS].mean(1) > 0).long()


def _samples(count: int, seed: int, shared: bool) -> Split:
    draws = torch.Generator().manual_seed(seed)
    side = 2.0 * torch.randint(2, (count, 1), generator=draws) - 1
    signs = side + NOISE * torch.randn(count, SIGNS, generator=draws)
    z = 2 * torch.rand(count, VALUES, generator=draws) - 1
    hidden = hidden_variable(signs)
    sums = torch.where(hidden == 0, z[:, :4].sum(1), z[:, 4:].sum(1))
    target = (sums > 0).long() + (0 if shared else 2 * hidden)
    return Split((torch.cat([signs, z], 1),), target)


def _load(shared: bool) -> Data:
    splits = [_samples(count, seed, shared) for seed, count in enumerate(SIZES)]
    return VectorData(*splits, class_names=NAMES[shared])


def _build(data: Data) -> nn.Module:
    inputs, outputs = SIGNS + VALUES, data.output_size
    if outputs == 2:
        return nn.Sequential(nn.Linear(inputs, outputs))
    return nn.Sequential(nn.Linear(inputs, 2), nn.Linear(2, outputs))


def _task(name: str, shared: bool) -> Task:
    load: Callable[[], Data] = lambda: _load(shared)  # noqa: E731
    settings = Settings(epochs=4, batch_size=64, learning_rate=3e-2)
    return Task(name=name, load=load, build=_build, settings=settings)


own_classes = _task("two-tasks-own-classes", shared=False)
shared_classes = _task("two-tasks-shared-classes", shared=True)
