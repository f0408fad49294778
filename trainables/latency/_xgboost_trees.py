"""Boosted trees, evaluated without XGBoost: its call costs more than a simulated iteration may.

All thresholds of a feature are sorted. A batch is then known by how many of them each of its
values has passed, and what the trees say of such a tuple is computed once. It is computed as in
QuickScorer (Lucchese et al., SIGIR 2015): every node that is passed excludes the leaves on its
left, and in each tree the first leaf that is not excluded is the one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.latency._features import FEATURES, Table

MAX_LEAVES = 16
_ALL = (1 << MAX_LEAVES) - 1
_MOST_KNOWN = 100_000
_EXACT = 2**23
"""From here on single precision, in which XGBoost compares, does not have all halves."""
_WORDS = np.arange(_ALL + 1)
_FIRST = np.log2(np.maximum(_WORDS & -_WORDS, 1)).astype(np.int64)
"""Lowest bit of every word that is set."""


@dataclass(frozen=True)
class Tree:
    """One tree; nodes by number, the root is 0.

    Attributes:
        left, right: Children of each node, -1 at a leaf. Right is where the value of the node's
            feature is ``threshold`` or more.
        feature: Index of the feature.
        threshold: Where the node splits; at a leaf, its value.
    """

    left: tuple[int, ...]
    right: tuple[int, ...]
    feature: tuple[int, ...]
    threshold: tuple[float, ...]


def trees_from(documents: Any) -> tuple[Tree, ...]:
    """Read what :meth:`Forest.document` made.

    Raises ``ValueError``, ``KeyError`` or ``TypeError`` when it is none.
    """
    trees = tuple(
        Tree(
            tuple(int(child) for child in one["left"]),
            tuple(int(child) for child in one["right"]),
            tuple(int(index) for index in one["feature"]),
            tuple(float(value) for value in one["threshold"]),
        )
        for one in documents
    )
    for tree in trees:
        _check(tree)
    return trees


def trees_of(model: Any) -> tuple[Tree, ...]:
    """The trees of a model as XGBoost saves it in JSON: its numbers have single precision."""
    return trees_from(
        {
            "left": tree["left_children"],
            "right": tree["right_children"],
            "feature": tree["split_indices"],
            "threshold": np.array(tree["split_conditions"], np.float32),
        }
        for tree in model["learner"]["gradient_booster"]["model"]["trees"]
    )


class Forest:
    """The sum of trees.

    Raises ``ValueError`` when a tree has more than ``MAX_LEAVES`` leaves.
    """

    def __init__(self, trees: Sequence[Tree]) -> None:
        self.trees = tuple(trees)
        nodes: list[list[tuple[float, int, int]]] = [[] for _ in FEATURES]
        self._leaves = np.zeros((len(self.trees), MAX_LEAVES))
        for number, tree in enumerate(self.trees):
            self._walk(tree, number, nodes)
        self.thresholds = [sorted({threshold for threshold, _, _ in found}) for found in nodes]
        self._rows = np.arange(len(self.trees))
        self._masks = [
            self._masks_of(found, thresholds)
            for found, thresholds in zip(nodes, self.thresholds, strict=True)
        ]
        self._known: dict[tuple[int, ...], float] = {}

    def document(self) -> list[dict[str, Any]]:
        """As JSON."""
        return [asdict(tree) for tree in self.trees]

    def passed(self, values: Sequence[float]) -> tuple[int, ...]:
        """How many thresholds each value of one batch has passed."""
        if max(values) >= _EXACT:
            values = np.array(values, np.float32).tolist()
        return tuple(map(bisect_right, self.thresholds, values))

    def value(self, passed: tuple[int, ...]) -> float:
        """What the trees say of such a batch."""
        known = self._known.get(passed)
        if known is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            alive = self._masks[0][passed[0]]
            for masks, count in zip(self._masks[1:], passed[1:], strict=True):
                alive = alive & masks[count]
            known = self._known[passed] = float(self._leaves[self._rows, _FIRST[alive]].sum())
        return known

    def of(self, table: Table) -> NDArray[np.float64]:
        """What they say of many batches, shape (batches,)."""
        return np.array([self.value(self.passed(row)) for row in table.tolist()])

    def _walk(self, tree: Tree, number: int, nodes: list[list[tuple[float, int, int]]]) -> None:
        """Number the leaves from left to right; note each node with the leaves it keeps."""
        count = 0

        def leaves_below(node: int) -> int:
            nonlocal count
            if tree.left[node] < 0:
                if count == MAX_LEAVES:
                    raise ValueError(f"tree {number} has more than {MAX_LEAVES} leaves")
                self._leaves[number, count] = tree.threshold[node]
                count += 1
                return 1 << (count - 1)
            left = leaves_below(tree.left[node])
            right = leaves_below(tree.right[node])
            nodes[tree.feature[node]].append((tree.threshold[node], number, _ALL & ~left))
            return left | right

        leaves_below(0)

    def _masks_of(
        self, nodes: list[tuple[float, int, int]], thresholds: list[float]
    ) -> NDArray[np.uint16]:
        """Leaves that are left when so many thresholds are passed, shape (passed, trees)."""
        masks = np.full((len(thresholds) + 1, len(self.trees)), _ALL, np.uint16)
        place = {threshold: index + 1 for index, threshold in enumerate(thresholds)}
        for threshold, number, keeps in nodes:
            masks[place[threshold], number] &= keeps
        return np.asarray(np.bitwise_and.accumulate(masks, axis=0), np.uint16)


def _check(tree: Tree) -> None:
    """Every node but the root is the child of one node before it."""
    size = len(tree.left)
    if not size or {len(tree.right), len(tree.feature), len(tree.threshold)} != {size}:
        raise ValueError("a tree's lists differ in length")
    children = []
    for node in range(size):
        left, right = tree.left[node], tree.right[node]
        if left < 0 and right < 0:
            continue
        if not (node < left < size and node < right < size):
            raise ValueError("a tree's node has a child that is none")
        if not 0 <= tree.feature[node] < len(FEATURES):
            raise ValueError("a tree splits by a feature that is none")
        children += [left, right]
    if sorted(children) != list(range(1, size)):
        raise ValueError("a tree's nodes are no tree")
    if not np.isfinite(tree.threshold).all():
        raise ValueError("a tree has a value that is no number")
