"""Invalid filters and entropies of a network's layers, before and after, as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from whit.atomic_files import write_atomically
from whit.errors import MissingExtra, SpecError
from whit.parts.filter_statistics import filter_entropy, invalid_filters
from whit.parts.grafting import INVALID_NORM


def filter_page(
    before: nn.Module, after: nn.Module, path: str | Path, threshold: float = INVALID_NORM
) -> Path:
    """Write a page with two charts over the layers, and return its path.

    The page holds plotly.js (about 5 MB) and asks for nothing from the network.

    Args:
        before: a network, for example a copy of it as it was built.
        after: a network of the same layers.
        path: of the page, such as "filters.html".
        threshold: a filter whose L1 norm is smaller is invalid, > 0.

    Raises:
        MissingExtra: plotly is not installed.
        SpecError: the networks have other layers.
        NoEffect: they have neither a convolution nor a linear layer.
    """
    path = Path(path)
    figure = filter_figure(before, after, threshold)
    page = figure.to_html(include_plotlyjs=True)
    write_atomically(path, lambda file: file.write_text(page, encoding="utf-8"))
    return path


def filter_figure(before: nn.Module, after: nn.Module, threshold: float = INVALID_NORM) -> Any:
    """Return the charts of `filter_page` as a plotly figure, for a notebook.

    Args:
        before: a network.
        after: a network of the same layers.
        threshold: > 0.

    Raises:
        MissingExtra: plotly is not installed.
        SpecError: the networks have other layers.
        NoEffect: they have neither a convolution nor a linear layer.
    """
    try:
        from plotly import graph_objects
        from plotly.subplots import make_subplots
    except ImportError:
        raise MissingExtra("train", "plotly") from None
    titles = (f"filters with an L1 norm below {threshold:g}", "entropy of the weights, nats")
    figure = make_subplots(2, 1, shared_xaxes=True, subplot_titles=titles)
    layers: list[str] | None = None
    for name, network, colour in (("before", before, "#9a9a9a"), ("after", after, "#1f77b4")):
        rows = invalid_filters(network, threshold)
        entropies = filter_entropy(network)
        if layers not in (None, list(entropies)):
            raise SpecError(
                f"The two networks have other layers: {layers} and {list(entropies)}. Compare "
                "states of one network."
            )
        layers = list(entropies)
        bars = graph_objects.Bar(
            x=layers,
            y=[row.invalid for row in rows],
            customdata=[row.filters for row in rows],
            hovertemplate="%{x}: %{y} of %{customdata}",
            name=name,
            marker_color=colour,
        )
        line = graph_objects.Scatter(
            x=layers,
            y=list(entropies.values()),
            mode="lines+markers",
            name=name,
            showlegend=False,
            line_color=colour,
        )
        figure.add_trace(bars, 1, 1)
        figure.add_trace(line, 2, 1)
    figure.update_xaxes(type="category")
    return figure
