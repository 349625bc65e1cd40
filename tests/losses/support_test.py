# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Divergences on a part of the vocabulary, against sorting in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import losses

C, V, K = 4, 30, 6
RNG = np.random.default_rng(0)
Z, ZT = RNG.normal(size=(C, V)), 2 * RNG.normal(size=(C, V))
Y = np.array([3, 0, 29, 11])


def softmax(z):
  e = np.exp(z - z.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def kept(probs, of, rest):
  """The probabilities of the K most probable ids of `of`, and the others'."""
  ids = np.argsort(-of, axis=-1)[:, :K]
  found = np.take_along_axis(probs, ids, -1)
  if rest == "drop":
    return found / found.sum(-1, keepdims=True)
  return np.concatenate([found, 1 - found.sum(-1, keepdims=True)], -1)


@pytest.mark.parametrize("rest", ["drop", "bucket"])
@pytest.mark.parametrize("of", ["student", "teacher"])
def test_on_top(of, rest, x64):
  q, p = softmax(Z), softmax(ZT)
  judge = q if of == "student" else p
  a, b = kept(q, judge, rest), kept(p, judge, rest)

  def value(z):
    pair = losses.on_top(z, ZT, top=K, rest=rest, of=of)
    return losses.reverse_kl(*pair)

  expected = (a * np.log(a / b)).sum(-1)
  np.testing.assert_allclose(value(Z), expected, rtol=1e-9)
  grad = np.asarray(jax.grad(lambda z: value(z).sum())(Z))
  for c, v in ((0, 0), (1, 7), (2, 29)):
    step = np.zeros((C, V))
    step[c, v] = 1e-5
    slope = (value(Z + step)[c] - value(Z - step)[c]) / 2e-5
    np.testing.assert_allclose(grad[c, v], slope, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("rest", ["drop", "bucket"])
def test_all_ids_are_the_whole(rest):
  student, teacher = jnp.asarray(Z), jnp.asarray(ZT)
  found = losses.jsd(*losses.on_top(student, teacher, top=V + 5, rest=rest))
  np.testing.assert_allclose(found, losses.jsd(student, teacher), rtol=1e-6)
  grad = jax.grad(
    lambda z: losses.jsd(*losses.on_top(z, teacher, top=V, rest=rest)).sum()
  )(student)
  assert np.isfinite(grad).all()


def test_removed_ids_stay_removed():
  student = jnp.asarray(Z).at[:, 5].set(-jnp.inf)
  pair = losses.on_top(student, jnp.asarray(ZT), top=K, rest="bucket")
  assert np.isfinite(losses.forward_kl(*pair)).all()
  grad = jax.grad(
    lambda z: losses.forward_kl(
      *losses.on_top(z, jnp.asarray(ZT), top=K, rest="bucket")
    ).sum()
  )(student)
  assert np.isfinite(grad).all()


def gate(top, low, high, width=0.05):
  """By a full sort."""
  p, out = softmax(ZT), np.zeros((C, V))
  for c in range(C):
    order = np.argsort(-p[c])
    mass = np.cumsum(p[c][order])
    mass[top:] = (mass[top - 1] + 1) / 2
    soft = lambda x: 1 / (1 + np.exp(-x / width))  # noqa: E731
    out[c][order] = soft(mass - low[c]) * soft(high[c] - mass)
    out[c][Y[c]] = 1
  return out


@pytest.mark.parametrize("top", [K, V])
def test_mass_gate(top, x64):
  low, high = RNG.uniform(0, 0.3, C), RNG.uniform(0.6, 1, C)
  found = losses.mass_gate(ZT, Y, low, high, top=top, width=0.05)
  np.testing.assert_allclose(jnp.exp(found), gate(top, low, high), rtol=1e-9)
  # Gradients of the bounds, against differences; none of the logits.
  of = lambda low, high: losses.mass_gate(ZT, Y, low, high, top=top).sum()  # noqa: E731
  for i, grad in enumerate(jax.grad(of, (0, 1))(low, high)):
    step = np.zeros((2, C))
    step[i, 2] = 1e-6
    slope = of(low + step[0], high + step[1]) - of(
      low - step[0], high - step[1]
    )
    np.testing.assert_allclose(grad[2], slope / 2e-6, rtol=1e-4)
  logits = jax.grad(lambda z: losses.mass_gate(z, Y, low, high).sum())(ZT)
  assert not np.any(logits)


def test_mass_gate_takes_any_leading_axes():
  low, high = jnp.full((2, 2), 0.1), jnp.full((2, 2), 0.9)
  shaped = ZT.reshape(2, 2, V).astype(np.float32)
  found = losses.mass_gate(shaped, Y.reshape(2, 2), low, high, top=K)
  flat = losses.mass_gate(
    ZT.astype(np.float32), Y, low.ravel(), high.ravel(), top=K
  )
  np.testing.assert_allclose(found.reshape(C, V), flat, rtol=1e-6)
