# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Common vocabularies and weights of tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import losses, types

TARGETS = np.array([3, 0, 5])


def draw(vocab=6, teacher_vocab=None):
  rng = np.random.default_rng(9)
  student = rng.normal(size=(3, vocab)).astype(np.float32) * 2
  teacher = rng.normal(size=(3, teacher_vocab or vocab)).astype(np.float32) * 2
  return student, teacher


def softmax(logits):
  e = np.exp(logits - logits.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def test_padding_ids_take_no_part():
  """Cutting equals -inf, and differs from keeping what one side lacks."""
  student, teacher = (jnp.asarray(x) for x in draw(8, 11))
  cut = losses.match_vocab(student, teacher, vocab_size=6)
  assert [x.shape for x in cut] == [(3, 6), (3, 6)]
  value = losses.forward_kl(*cut)
  q, p = softmax(student[:, :6]), softmax(teacher[:, :6])
  np.testing.assert_allclose(value, (p * np.log(p / q)).sum(-1), rtol=1e-5)
  padded = np.pad(np.array(student), ((0, 0), (0, 3)), constant_values=-np.inf)
  padded[:, 6:] = -np.inf
  np.testing.assert_allclose(losses.forward_kl(padded, teacher), value, 1e-5)


@pytest.mark.parametrize("size", [0, 9, 12])
def test_a_vocabulary_that_one_side_lacks_is_refused(size):
  student, teacher = (jnp.asarray(x) for x in draw(8, 11))
  with pytest.raises(types.UserError, match=rf"vocab_size is {size}.*8.*11"):
    losses.match_vocab(student, teacher, vocab_size=size)


def expected_scores(student, teacher, kind):
  q, p = softmax(student.astype(float)), softmax(teacher.astype(float))
  share = -(p * np.log(p)).sum(-1) / np.log(p.shape[-1])
  return {
    "entropy": share,
    "certainty": 1 - share,
    "target_prob": p[np.arange(3), TARGETS],
    "correct": (p.argmax(-1) == TARGETS).astype(float),
    "kl": (p * np.log(p / q)).sum(-1),
  }[kind]


@pytest.mark.parametrize(
  "kind", ["entropy", "certainty", "target_prob", "correct", "kl"]
)
def test_scores(kind):
  student, teacher = draw()
  TARGETS[1] = teacher[1].argmax()
  scores = losses.token_scores(student, teacher, TARGETS, kind=kind)
  expected = expected_scores(student, teacher, kind)
  np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)
  grads = jax.grad(
    lambda *x: losses.token_scores(*x, TARGETS, kind=kind).sum(),
    argnums=(0, 1),
  )(student, teacher)
  assert all(np.all(g == 0) for g in grads)


def test_mean_one_under_the_mask():
  scores = jnp.array([[1.0, 2.0, jnp.inf], [3.0, 6.0, jnp.nan]])
  mask = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
  weights = losses.mean_one(scores, mask)
  np.testing.assert_allclose(weights[:, :2], scores[:, :2] / 3, rtol=1e-6)
  np.testing.assert_array_equal(weights[:, 2], 0)
  np.testing.assert_allclose(weights.sum(), mask.sum(), rtol=1e-6)
  kept = losses.mean_one(jnp.zeros((2, 3)), mask)
  np.testing.assert_array_equal(kept, mask)
  np.testing.assert_array_equal(losses.mean_one(scores, mask > 0), weights)


def test_mean_one_has_no_gradient():
  mask = jnp.ones(3)
  grad = jax.grad(lambda s: (losses.mean_one(s, mask) * s).sum())(
    jnp.array([1.0, 2.0, 3.0])
  )
  np.testing.assert_allclose(grad, [0.5, 1.0, 1.5], rtol=1e-6)


@pytest.mark.parametrize("fraction", [0.05, 0.4, 0.6, 1.0])
def test_top_fraction_is_the_quantile(fraction):
  """As many as are not below NumPy's quantile, masked tokens aside."""
  rng = np.random.default_rng(1)
  for size in range(1, 40):
    scores = np.full(40, np.nan, np.float32)
    scores[:size] = rng.permutation(size)
    mask = np.arange(40) < size
    kept = losses.top_fraction(scores, mask, fraction=fraction)
    # In exact numbers: ranks are whole at (1 - fraction) (n - 1).
    rank = round((1 - fraction) * (size - 1), 6)
    expected = mask & (scores >= np.ceil(rank))
    np.testing.assert_array_equal(kept, expected)


def test_top_fraction_keeps_equals_together():
  scores = jnp.array([[1.0, 2.0, 2.0], [2.0, 3.0, 0.0]])
  kept = losses.top_fraction(scores, jnp.ones((2, 3)), fraction=0.4)
  np.testing.assert_array_equal(kept, [[0, 1, 1], [1, 1, 0]])
  assert not np.any(losses.top_fraction(scores, scores * 0, fraction=0.4))


@pytest.mark.parametrize("fraction", [0.0, 1.5])
def test_a_fraction_outside_its_range_is_refused(fraction):
  with pytest.raises(types.UserError, match="expected more than 0"):
    losses.top_fraction(jnp.ones(3), jnp.ones(3), fraction=fraction)
