# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""EAGLE's loss against the formula of the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np

from jdistill import methods, step, types
from jdistill.methods import base

B, T, D, V = 3, 6, 8, 11


def log_softmax(x):
  x = x - x.max(-1, keepdims=True)
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


def authors(hidden, guess, weight, mask):
  """As eagle/train/main.py computes it, in float64.

  Its arrays are one place behind: place i is of the features at i and the
  token i + 1, and is compared with the features at i + 1.
  """
  behind = ((0, 0), (0, 1), (0, 0))
  target = np.pad(hidden[:, 1:], behind)
  predict = np.pad(guess[:, 1:], behind)
  counts = np.pad(mask[:, 1:], behind[:2])[..., None]
  p = np.exp(log_softmax(target @ weight.T))
  ce = -(counts * p * log_softmax(predict @ weight.T)).sum() / counts.sum()
  gap = np.abs(predict - target)
  smooth = np.where(gap < 1, 0.5 * gap**2, gap - 0.5)
  return (counts * smooth).mean(2).sum() / counts.sum() + 0.1 * ce


def test_it_is_the_authors_loss():
  rng = np.random.default_rng(0)
  hidden, guess = 2 * rng.normal(size=(2, B, T, D))
  weight = rng.normal(size=(V, D))
  mask = (rng.random((B, T)) > 0.3).astype(np.float64)
  mask[:, 0] = 0  # there is no place for it in theirs

  def say(guess, hidden):
    ids, ones = jnp.zeros((B, T), jnp.int32), jnp.ones((B, T), jnp.int32)
    view = types.Tokens(ids, ids, jnp.asarray(mask), ids, ones)
    batch = types.Batch({"student": view}, {}, jnp.arange(B))
    head = types.Head(jnp.asarray(weight))

    def speaker(hidden, **features):
      out = types.Outputs(jnp.asarray(hidden), head, features, {})
      return step.Speaker(lambda view, want: out, batch, tuple(features))

    method = methods.EAGLE()
    ctx = base.Context(jnp.int32(0), None, method.norms(batch))
    student = speaker(guess, guess=guess)
    teachers = {"teacher": speaker(hidden)}
    return method.loss({}, student, teachers, batch, ctx)

  with jax.enable_x64(True):
    loss = say(jnp.asarray(guess), jnp.asarray(hidden))
    expected = authors(hidden, guess, weight, mask)
    # Weights, such as 0.1, are float32.
    np.testing.assert_allclose(loss.total, expected, rtol=1e-7)
    means = {k: float(m.sum / m.weight) for k, m in loss.metrics.items()}
    total = means["smooth_l1"] + 0.1 * means["soft_ce"]
    np.testing.assert_allclose(total, expected, rtol=1e-7)
    slope = jax.grad(lambda g: say(g, jnp.asarray(hidden)).total)
    found = slope(jnp.asarray(guess))
    nudge = 1e-6 * rng.normal(size=guess.shape)
    moved = [authors(hidden, guess + s * nudge, weight, mask) for s in (1, -1)]
    np.testing.assert_allclose(
      (found * nudge).sum(), (moved[0] - moved[1]) / 2, rtol=1e-6
    )
    still = jax.grad(lambda h: say(jnp.asarray(guess), h).total)
    # The head reads the same states in both places; its target is still.
    assert not np.any(still(jnp.asarray(hidden)))
