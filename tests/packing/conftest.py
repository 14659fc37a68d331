"""The first torch.export of a process imports its compiler for seconds: not inside a test."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _import_export():
    torch.export.export(torch.nn.ReLU(), (torch.zeros(2, 3),), strict=False)
