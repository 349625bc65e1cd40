# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a draft is worth, against all texts of a small world."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import losses

V, GUESSES = 3, 3


def chains():
  """Next-token tables [V, V] of a target and its draft, float64."""
  rng = np.random.default_rng(0)
  return [rng.dirichlet(np.full(V, 0.7), size=V) for _ in range(2)]


def exact(p, q, last, guesses):
  """Expected tokens of a pass, by the tree of what may be accepted."""
  if guesses == 0:
    return 1.0
  both = np.minimum(p[last], q[last])
  return 1 + sum(
    both[v] * exact(p, q, v, guesses - 1) for v in range(V)
  )  # fmt: skip


def test_acceptance_is_the_shared_mass():
  p, q = chains()
  found = losses.acceptance(jnp.log(q), jnp.log(p))
  expected = np.minimum(p, q).sum(-1)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("first", range(V))
def test_blocks_are_exact_on_average_over_the_targets_texts(first):
  """Not the value under independent acceptances, which is another."""
  p, q = chains()
  texts = np.array(list(itertools.product(range(V), repeat=GUESSES)))
  before = np.column_stack([np.full(len(texts), first), texts[:, :-1]])
  accepted = np.minimum(p, q).sum(-1)[before]  # [texts, T]
  log_ratio = np.log(q[before, texts]) - np.log(p[before, texts])
  chance = p[before, texts].prod(-1)
  tokens, weight = losses.block_efficiency(
    jnp.asarray(accepted),
    jnp.asarray(log_ratio),
    jnp.ones(texts.shape),
    guesses=GUESSES,
  )
  np.testing.assert_array_equal(weight, [[1, 0, 0]] * len(texts))
  found = float((np.asarray(tokens)[:, 0] * chance).sum())
  assert found == pytest.approx(exact(p, q, first, GUESSES), rel=1e-5)
  alone = accepted[0, 0]
  independent = (1 - alone ** (GUESSES + 1)) / (1 - alone)
  assert abs(found - independent) > 0.01


def test_blocks_stay_within_a_document_and_the_mask():
  sure = jnp.ones((2, 6))
  mask = jnp.array([[1.0, 1, 1, 1, 1, 1], [0, 1, 1, 1, 0, 0]])
  ids = jnp.array([[1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 1, 1]])
  tokens, weight = losses.block_efficiency(sure, 0 * sure, mask, ids, guesses=2)
  there = [[1, 1, 0, 1, 1, 0], [0, 1, 1, 0, 0, 0]]
  np.testing.assert_array_equal(weight, there)
  np.testing.assert_array_equal(tokens, 3 * np.array(there))
