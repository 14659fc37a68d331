"""The first torch.export of a process imports its compiler for seconds: not inside a test."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # for bench_networks, which the tests here share


@pytest.fixture(scope="session", autouse=True)
def _import_export():
    torch.export.export(torch.nn.ReLU(), (torch.zeros(2, 3),), strict=False)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(3)
