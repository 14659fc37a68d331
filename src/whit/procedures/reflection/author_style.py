"""The comparator in the style of the author's public code: clusters of labels, a tree that routes.

    clusters     k-means on the true labels of the training samples that network 0 gets wrong
    specialist   one new network for each cluster, which learns that cluster alone
    router       a decision tree on the raw inputs: 0 where network 0 was right, else the cluster

Read in gaoliyao/ReflectionExperiments; written anew. It is built to be compared with: the clusters
come from labels, which nothing can compute for a new input, and the tree learns almost only "0".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor, nn

from whit.core.data import Split
from whit.core.options import require
from whit.core.run import Run
from whit.procedures.reflection.answers import charged_answers


class TreeRoute(nn.Module):
    """A decision tree on the raw input names the one member that answers.

    It cannot be packed: the tree is scikit-learn's, and runs outside of torch.

    Args:
        members: networks from the inputs to class scores.
        tree: fitted; its classes are member numbers.

    Shapes: inputs [batch, ...] -> [batch, classes].
    """

    def __init__(self, members: Sequence[nn.Module], tree: DecisionTreeClassifier) -> None:
        """Hold members and tree."""
        super().__init__()
        self.members = nn.ModuleList(members)
        self.tree = tree

    def route(self, *inputs: Tensor) -> Tensor:
        """Return the number of the member that answers each input, int64 [batch]."""
        return torch.from_numpy(self.tree.predict(_rows(inputs[0]))).long()

    def forward(self, *inputs: Tensor) -> Tensor:
        """Answer each input by its member."""
        chosen = self.route(*inputs).to(inputs[0].device)
        scores = torch.stack([member(*inputs) for member in self.members])
        return scores[chosen, torch.arange(len(chosen), device=chosen.device)]


def label_clusters(labels: Tensor, clusters: int, seed: int = 0) -> Tensor:
    """Return the k-means cluster of each label, as a number on a line; the lowest is cluster 0.

    Args:
        labels: int64 [samples], of at least `clusters` different classes.
        clusters: >= 1.
        seed: of k-means.

    Shapes: -> int64 [samples].

    Raises:
        SpecError: there are fewer different labels than clusters.
    """
    kinds = len(torch.unique(labels))
    require(
        1 <= clusters <= kinds,
        f"{clusters} clusters were asked of the labels of {len(labels)} wrong samples, which are "
        f"of {kinds} classes; expected at least one class for each. Take fewer clusters, or train "
        "the first network for less long.",
    )
    points = labels.double().cpu().numpy()[:, None]
    means = KMeans(clusters, n_init=10, random_state=seed % 2**32).fit(points)
    rank = np.argsort(np.argsort(means.cluster_centers_.ravel()))
    return torch.from_numpy(rank[means.labels_]).long()


def author_style(run: Run, first: nn.Module, clusters: int = 2, seed: int = 0) -> TreeRoute:
    """Grow a group as the author's code does, on the training split of the run.

    Args:
        run: trains the specialists, each with the run's settings; everything but the tree is
            charged.
        first: trained on that same split.
        clusters: of wrong samples, each with a specialist, >= 1.
        seed: of k-means and of the tree.

    Raises:
        SpecError: the first network is wrong on fewer classes than there are clusters.
        SettingsError: a cluster is so small that a batch norm cannot learn from it.
    """
    split = run.data.train
    answers = charged_answers(run, first, split)
    target = split.target.cpu()
    wrong = answers.scores.argmax(-1) != target
    meant = torch.zeros(len(split), dtype=torch.int64)
    meant[wrong] = 1 + label_clusters(target[wrong], clusters, seed)
    members = [first]
    for cluster in range(1, 1 + clusters):
        places = (meant == cluster).nonzero().flatten()
        members.append(run.fit(run.build(), data=split.subset(places.to(split.target.device))))
    with run.meter.training(nn.Identity()):  # its seconds; a tree has no multiply-accumulates
        rows = np.concatenate([_rows(split.batch(n).inputs[0]) for n in _portions(split)])
        tree = DecisionTreeClassifier(random_state=seed % 2**32).fit(rows, meant.numpy())
    return TreeRoute(members, tree).eval()


def _portions(split: Split) -> tuple[Tensor, ...]:
    return torch.split(torch.arange(len(split), device=split.target.device), 1000)


def _rows(inputs: Tensor) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = inputs.detach().flatten(1).float().cpu().numpy()
    return rows
