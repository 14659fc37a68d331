"""Control models of the toy tasks whose data are sequences, frames or a graph."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from whit.core.data import Data
from whit.tasks.models import hidden_width


class NeighbourTagger(nn.Module):
    """Tag each token by its embedding and those of the tokens before and after it.

    Shapes: int64 [batch, time] -> [batch, time, classes].

    Args:
        tokens: size of the vocabulary.
        hidden: width of the embedding and of the hidden layer.
        classes: number of tags.
    """

    def __init__(self, tokens: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, hidden)
        self.linear1 = nn.Linear(3 * hidden, hidden)
        self.relu1 = nn.ReLU()
        self.linear2 = nn.Linear(hidden, hidden)
        self.relu2 = nn.ReLU()
        self.head = nn.Linear(hidden, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the scores of each tag at each time."""
        here = self.embedding(tokens)
        edge = torch.zeros_like(here[:, :1])
        before = torch.cat([edge, here[:, :-1]], 1)
        after = torch.cat([here[:, 1:], edge], 1)
        joined = torch.cat([before, here, after], 2)
        hidden = self.relu2(self.linear2(self.relu1(self.linear1(joined))))
        scores: Tensor = self.head(hidden)
        return scores


class MeanAggregation(nn.Module):
    """Classify nodes from their own features and the mean of their neighbours', in two rounds.

    Shapes: nodes int64 [batch], features [all nodes, width], edges int64 [2, edges] (from, to)
    -> [batch, classes].

    Args:
        features: width of the node features.
        hidden: width between the rounds.
        classes: number of classes.
    """

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(2 * features, hidden)
        self.relu1 = nn.ReLU()
        self.linear2 = nn.Linear(2 * hidden, hidden)
        self.relu2 = nn.ReLU()
        self.head = nn.Linear(hidden, classes)

    def forward(self, nodes: Tensor, features: Tensor, edges: Tensor) -> Tensor:
        """Return the class scores of these nodes."""
        hidden = self.relu1(self.linear1(_with_neighbours(features, edges)))
        hidden = self.relu2(self.linear2(_with_neighbours(hidden, edges)))
        scores: Tensor = self.head(hidden.index_select(0, nodes))
        return scores


def _with_neighbours(features: Tensor, edges: Tensor) -> Tensor:
    total = torch.zeros_like(features).index_add(0, edges[1], features.index_select(0, edges[0]))
    ones = torch.ones(edges.shape[1], dtype=features.dtype, device=features.device)
    degree = torch.zeros(len(features), dtype=features.dtype, device=features.device)
    degree = degree.index_add(0, edges[1], ones).clamp_min(1)
    return torch.cat([features, total / degree.unsqueeze(1)], 1)


def neighbour_tagger(data: Data, width: float) -> nn.Module:
    """Build a `NeighbourTagger` with 24 hidden units times the width.

    Args:
        data: tokens int64 and the tags' names.
        width: multiplies the hidden size, > 0.
    """
    tokens = int(data.train.inputs[0].max()) + 1
    return NeighbourTagger(tokens, hidden_width(24, width), data.output_size)


def frame_model(data: Data, width: float) -> nn.Module:
    """Build three 3 x 3 convolutions over the stacked frames, 16 channels times the width.

    Shapes: [batch, time, height, width] -> [batch, 1, height, width].

    Args:
        data: frames float32.
        width: multiplies the channels, > 0.
    """
    size = hidden_width(16, width)
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(data.input_shape[0], size, 3, padding=1, bias=False),
            norm1=nn.BatchNorm2d(size),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(size, size, 3, padding=1, bias=False),
            norm2=nn.BatchNorm2d(size),
            relu2=nn.ReLU(),
            head=nn.Conv2d(size, 1, 3, padding=1),
        )
    )


def node_model(data: Data, width: float) -> nn.Module:
    """Build a `MeanAggregation` with 16 hidden units times the width.

    Args:
        data: a graph, `shared` is (features, edges).
        width: multiplies the hidden size, > 0.
    """
    features = data.train.shared[0].shape[1]
    return MeanAggregation(features, hidden_width(16, width), data.output_size)
