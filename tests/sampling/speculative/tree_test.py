# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from jdistill import types
from jdistill.sampling.speculative.tree import BestTree, Tree


def test_a_chain_is_a_tree_of_single_children():
  tree = Tree.chain(3)
  assert tree.parents == (0, 1, 2)
  assert tree.is_chain
  assert (tree.num_nodes, tree.depth, tree.fan, tree.width) == (4, 3, 1, 1)
  np.testing.assert_array_equal(tree.seen, np.tri(4, dtype=bool))


def test_branching_counts_children_by_depth():
  tree = Tree.branching((2, 1, 2))
  assert tree.parents == (0, 0, 1, 2, 3, 3, 4, 4)
  assert not tree.is_chain
  assert tree.depths.tolist() == [0, 1, 1, 2, 2, 3, 3, 3, 3]
  assert tree.ranks.tolist() == [0, 0, 1, 0, 0, 0, 1, 0, 1]
  assert (tree.depth, tree.fan, tree.width) == (3, 2, 2)


def test_a_node_sees_its_way_from_the_root():
  tree = Tree((0, 0, 1, 1, 2))
  seen = {n: np.flatnonzero(row).tolist() for n, row in enumerate(tree.seen)}
  assert seen == {
    0: [0],
    1: [0, 1],
    2: [0, 2],
    3: [0, 1, 3],
    4: [0, 1, 4],
    5: [0, 2, 5],
  }
  assert tree.children.tolist()[:3] == [[1, 2], [3, 4], [5, -1]]
  assert (tree.children[3:] == -1).all()


def test_only_nodes_with_children_are_continued():
  inner = Tree((0, 0, 0, 2, 4)).inner
  assert inner.columns.tolist() == [0, -1, 0, -1, 0, -1]
  assert inner.rank.tolist() == [[0], [1], [0]]
  assert inner.there.all()


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: Tree(()), "at least one"),
    (lambda: Tree((1,)), "the first 0"),
    (lambda: Tree((0, 2)), "node 2 has the parent 2"),
    (lambda: Tree((0, 1, 0)), "ascending"),
    (lambda: Tree.chain(0), "draft_tokens=0"),
    (lambda: Tree.branching((2, 0)), "numbers of children"),
    (lambda: BestTree(guesses=13, width=3, depth=2), "1 to 12 guesses"),
    (lambda: BestTree(guesses=1, width=0), "width and depth from 1"),
  ],
)
def test_faults_are_named(make, message):
  with pytest.raises(types.UserError, match=message):
    make()
