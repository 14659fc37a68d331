"""Kinds of input that a network is unsure of: groups of classes that it confuses, or clusters.

Shapes: chances [samples, classes]; target int64 [samples]; confusion float64 [classes, classes].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import squareform
from sklearn.cluster import KMeans
from torch import Tensor, nn

from whit.core.options import nearest, require

CUTS = ("spectral", "linkage")
# A little of everything: classes that are never confused still belong somewhere.
FLOOR = 1e-6


def soft_confusion(chances: Tensor, target: Tensor) -> Tensor:
    """Return S_ij = sum over x of class i of p_j(x) + sum over x of class j of p_i(x); S_ii = 0."""
    classes = chances.shape[-1]
    sums = torch.zeros(classes, classes, dtype=torch.float64)
    sums.index_add_(0, target.cpu(), chances.detach().double().cpu())
    both = sums + sums.T
    return both.fill_diagonal_(0)


def cut_classes(confusion: Tensor, groups: int, method: str = "spectral") -> list[list[int]]:
    """Cut the classes into disjoint, non-empty groups of those that are confused with each other.

    "spectral": average linkage of the rows of the leading eigenvectors of D^-1/2 S D^-1/2, so that
    no random start decides. "linkage": average linkage of 1 - D^-1/2 S D^-1/2 itself.

    Args:
        confusion: S, symmetric and non-negative.
        groups: K, 1..classes.
        method: "spectral" or "linkage".

    Returns:
        Sorted lists of class numbers, ordered by their first class.

    Raises:
        SpecError: too many groups, or an unknown method.
    """
    classes = len(confusion)
    require(method in CUTS, f"The method was given as {method!r}. {nearest(str(method), CUTS)}")
    require(
        isinstance(groups, int) and 1 <= groups <= classes,
        f"{classes} classes were to be cut into {groups!r} groups; expected a whole number from 1 "
        f"to {classes}.",
    )
    if groups == classes:
        return [[label] for label in range(classes)]
    near = _normalised(confusion)
    if method == "spectral":
        vectors = np.linalg.eigh(near)[1][:, -groups:]
        rows = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
        tree = linkage(rows, "average")
    else:
        distance = 1 - near / near.max()
        np.fill_diagonal(distance, 0)
        tree = linkage(squareform(distance, checks=False), "average")
    part_of = cut_tree(tree, n_clusters=groups).ravel()
    found = [np.flatnonzero(part_of == part).tolist() for part in range(groups)]
    return sorted(found)


def _normalised(confusion: Tensor) -> NDArray[Any]:
    matrix = confusion.double().cpu().numpy().copy()
    largest = matrix.max()
    matrix += FLOOR * (largest if largest > 0 else 1.0)
    np.fill_diagonal(matrix, 0)
    root = 1 / np.sqrt(matrix.sum(1))
    scaled: NDArray[Any] = matrix * root[:, None] * root[None, :]
    return scaled


def group_chances(chances: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    """Return q_k = sum of p_j over the classes j of group k: -> [samples, groups]."""
    return torch.stack([chances[:, list(group)].sum(1) for group in groups], 1)


def centroid_head(features: Tensor, clusters: int, seed: int) -> nn.Linear:
    """Return the layer whose largest output names the nearest of k-means' centroids.

    Its weights are the centroids c and its biases -|c|^2 / 2, since
    |h - c|^2 = |h|^2 - 2 (c h - |c|^2 / 2).

    Args:
        features: h [samples, d], at least as many samples as clusters.
        clusters: >= 1.
        seed: of k-means.

    Raises:
        SpecError: there are fewer samples than clusters.
    """
    require(
        1 <= clusters <= len(features),
        f"{clusters} clusters were asked of {len(features)} uncertain samples; expected at least "
        "one sample for each. Take fewer groups, more samples, or a higher precision.",
    )
    means = KMeans(clusters, n_init=10, random_state=seed % 2**32).fit(features.cpu().numpy())
    centroids = torch.from_numpy(means.cluster_centers_).float()
    head = nn.Linear(features.shape[1], clusters)
    with torch.no_grad():
        head.weight.copy_(centroids)
        head.bias.copy_(-centroids.square().sum(1) / 2)
    return head.requires_grad_(False)


def situation_name(
    confusion: Tensor, class_names: Sequence[str], group: Sequence[int] | None = None
) -> str:
    """Name a situation by the pair of classes that is confused most, such as "4 or 9".

    Args:
        confusion: S of its samples.
        class_names: in the order of the classes.
        group: only pairs of these classes; None for all. A group of one is named by its class.
    """
    chosen = list(range(len(confusion)) if group is None else group)
    if len(chosen) == 1:
        return class_names[chosen[0]]
    inner = confusion[chosen][:, chosen].triu(1)
    first, second = divmod(int(inner.argmax()), len(chosen))
    if first == second:  # nothing was confused at all
        first, second = 0, 1
    return f"{class_names[chosen[first]]} or {class_names[chosen[second]]}"
