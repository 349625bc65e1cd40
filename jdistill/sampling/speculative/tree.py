# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Shapes of guesses: how many continuations are tried at each depth."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from jdistill.types import UserError


class Inner:
  """Where a tree's inner nodes, those with children, are; K are the most of a
  depth, and a column is a node's place among those of its depth.

  Attributes:
    columns: [N] each node's column, -1 for leaves.
    parent: [D, K] of the inner nodes at each depth the parent's column, one
      depth above.
    rank: [D, K] which of its parent's children it is.
    there: [D, K] bool, false where a depth has fewer than K.
  """

  def __init__(self, tree: "Tree"):
    nodes = [
      [n for n in sorted({*tree.parents}) if tree.depths[n] == d]
      for d in range(tree.depth)
    ]
    shape = (tree.depth, max(map(len, nodes)))
    self.columns = np.full(tree.num_nodes, -1, np.int32)
    self.parent = np.zeros(shape, np.int32)
    self.rank = np.zeros(shape, np.int32)
    self.there = np.zeros(shape, bool)
    for depth, level in enumerate(nodes):
      for column, node in enumerate(level):
        self.columns[node] = column
        self.there[depth, column] = True
        if depth:
          self.parent[depth, column] = self.columns[tree.parents[node - 1]]
          self.rank[depth, column] = tree.ranks[node]

  @property
  def width(self) -> int:
    return self.there.shape[1]


@dataclasses.dataclass(frozen=True)
class Tree:
  """A tree of guesses of a fixed shape.

  Node 0 is the newest token of the text, the root; nodes 1, 2, ... are guesses
  of what follows, each the next token after its parent.

  Attributes:
    parents: of nodes 1, 2, ...; ascending, so that nodes are in order of depth
      and children of one parent side by side.
  """

  parents: tuple[int, ...]

  def __post_init__(self):
    parents = self.parents
    if not parents or parents[0] != 0 or list(parents) != sorted(parents):
      raise UserError(
        f"Tree: found parents={parents}, expected at least one, the first 0,"
        " in ascending order"
      )
    for node, parent in enumerate(parents, 1):
      if parent >= node:
        raise UserError(
          f"Tree: node {node} has the parent {parent}, expected one before it"
        )

  @classmethod
  def chain(cls, length: int) -> "Tree":
    """One guess after the other."""
    if length < 1:
      raise UserError(
        f"found draft_tokens={length}, expected at least 1 guess for each pass"
        " of the target"
      )
    return cls(tuple(range(length)))

  @classmethod
  def branching(cls, children: Sequence[int]) -> "Tree":
    """Every node at depth d has `children[d]` children."""
    parents: list[int] = []
    level = [0]
    for count in children:
      if count < 1:
        raise UserError(
          f"Tree.branching: found {tuple(children)}, expected numbers of"
          " children from 1"
        )
      first = len(parents) + 1
      parents += [node for node in level for _ in range(count)]
      level = list(range(first, len(parents) + 1))
    return cls(tuple(parents))

  @property
  def num_nodes(self) -> int:
    """The root included."""
    return len(self.parents) + 1

  @functools.cached_property
  def depths(self) -> np.ndarray:
    """[N] int32, 0 for the root."""
    depths = [0]
    for parent in self.parents:
      depths.append(depths[parent] + 1)
    return np.array(depths, np.int32)

  @functools.cached_property
  def ranks(self) -> np.ndarray:
    """[N] int32, each node's place among its parent's children."""
    parents = self.parents
    return np.array(
      [0] + [n - parents.index(p) for n, p in enumerate(parents)], np.int32
    )

  @property
  def depth(self) -> int:
    """Of the deepest node."""
    return int(self.depths[-1])

  @property
  def fan(self) -> int:
    """The most children that a node has."""
    return int(self.ranks.max()) + 1

  @property
  def is_chain(self) -> bool:
    return self.fan == 1

  @functools.cached_property
  def children(self) -> np.ndarray:
    """[N, C] int32 numbers of children, -1 where there are fewer."""
    table = np.full((self.num_nodes, self.fan), -1, np.int32)
    for node, parent in enumerate(self.parents, 1):
      table[parent, self.ranks[node]] = node
    return table

  @functools.cached_property
  def seen(self) -> np.ndarray:
    """[N, N] bool, whether a node sees another: its ancestors and itself."""
    seen = np.eye(self.num_nodes, dtype=bool)
    for node, parent in enumerate(self.parents, 1):
      seen[node] |= seen[parent]
    return seen

  @functools.cached_property
  def inner(self) -> Inner:
    return Inner(self)

  @property
  def width(self) -> int:
    """The most nodes of one depth that a draft continues."""
    return self.inner.width


@dataclasses.dataclass(frozen=True)
class BestTree:
  """A tree that follows the draft: of all its guesses the likeliest.

  At each depth the draft continues the `width` guesses that it finds likeliest,
  with all that came before them, each by its `width` likeliest tokens; of all
  these guesses the `guesses` likeliest are asked. They are chosen, not drawn:
  a draw that had to be likely to be kept would no longer be one of its law.

  References: EAGLE-2, Li et al., 2024, arXiv:2406.16858.
  """

  guesses: int = 24
  width: int = 6
  depth: int = 4

  def __post_init__(self):
    most = self.width * (1 + (self.depth - 1) * self.width)
    if min(self.width, self.depth) < 1 or not 1 <= self.guesses <= most:
      raise UserError(
        f"BestTree: found {self}, expected a width and depth from 1, and 1 to"
        f" {most} guesses, which is all that are made"
      )

  @property
  def num_nodes(self) -> int:
    """The root included."""
    return self.guesses + 1

  @property
  def fan(self) -> int:
    return self.width

  @property
  def is_chain(self) -> bool:
    return False


Shape: TypeAlias = Tree | BestTree
