import sys

import pytest
import torch
from torch import nn

from whit.diagnostics.filters import filter_figure, filter_page
from whit.errors import MissingExtra, SpecError
from whit.parts.filter_statistics import filter_entropy


def network(seed, scale=1.0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv1d(1, 3, 2), nn.ReLU(), nn.Conv1d(3, 2, 2))
    with torch.no_grad():
        model[0].weight[0] *= scale
    return model


def test_the_charts_show_both_networks():
    pytest.importorskip("plotly")
    before, after = network(0, 1e-6), network(1)
    bars_before, line_before, bars_after, line_after = filter_figure(before, after).data
    assert list(bars_before.x) == ["0", "2"] and list(bars_before.y) == [1, 0]
    assert list(bars_after.y) == [0, 0] and list(bars_after.customdata) == [3, 2]
    assert list(line_before.y) == list(filter_entropy(before).values())
    assert list(line_after.y) == list(filter_entropy(after).values())


def test_the_page_is_written(tmp_path):
    pytest.importorskip("plotly")
    path = filter_page(network(0), network(1), tmp_path / "filters.html")
    assert "entropy of the weights" in path.read_text()


def test_refusals(monkeypatch):
    pytest.importorskip("plotly")
    with pytest.raises(SpecError, match="other layers"):
        filter_figure(network(0), nn.Sequential(nn.Conv1d(1, 1, 1)))
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(MissingExtra, match="whit.train"):
        filter_figure(network(0), network(1))
