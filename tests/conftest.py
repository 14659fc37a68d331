"""What several test files share: a small task and technique in a user's own file."""

import os

import pytest

# Small networks on a busy machine: a second thread only waits. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

OWN_FILE = '''
import torch
from torch import nn
import whit
from whit.core.technique import technique


def _load():
    generator = torch.Generator().manual_seed(0)
    def split(count):
        inputs = torch.randn(count, 6, generator=generator)
        return whit.Split((inputs,), (inputs[:, :2].sum(1) > 0).long())
    return whit.VectorData(split(128), split(64), split(64), class_names=("low", "high"))


def _build(data, width=1.0):
    hidden = int(16 * width)
    return nn.Sequential(nn.Linear(6, hidden), nn.ReLU(), nn.Linear(hidden, 2))


task = whit.Task("small", _load, _build, settings=whit.Settings(epochs=2, batch_size=32))


def sized(*, width: float = 1.0) -> whit.Task:
    """A task with an option."""
    settings = whit.Settings(epochs=1)
    return whit.Task("small", _load, lambda data: _build(data, width), settings=settings)


def broken():
    return 1 / 0


class _Shrink(whit.Hook):
    def __init__(self, model, rate):
        self.model, self.rate = model, rate

    @torch.no_grad()
    def after_step(self):
        for weight in self.model.parameters():
            weight.mul_(1 - self.rate)


@technique
def shrink(*, rate: float = 0.01) -> whit.Technique:
    """Shrink all weights a little.

    Args:
        rate: share taken away at each step.
    """
    return whit.Technique(hooks=(lambda model, plan: _Shrink(model, rate),))


@technique
def failing(*, rate: float = 0.01):
    raise KeyError("rate")


def undecorated():
    return whit.Technique()
'''


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """A working folder with a user's file `own.py`."""
    (tmp_path / "own.py").write_text(OWN_FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path
