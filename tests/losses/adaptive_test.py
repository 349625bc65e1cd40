# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Adaptive KL against the sorted definition that it avoids."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import losses
from jdistill.losses import adaptive

either = pytest.mark.parametrize("boundary", ["tail", "head"])


def softmax(logits):
  e = np.exp(logits - logits.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def sorted_head(p, mu, boundary):
  """[V] the head, by a stable sort and a cumulative sum."""
  order = np.argsort(-p, kind="stable")
  mass = np.cumsum(p[order])
  if boundary == "tail":  # the authors' code
    chosen = mass <= mu
    chosen[0] = True
  else:  # the fewest ids that have mu or more
    chosen = mass - p[order] < mu
  head = np.zeros(p.shape, bool)
  head[order] = chosen
  return head


def reference(student, teacher, mu, boundary):
  out = []
  for z_q, z_p in zip(student, teacher, strict=True):
    q, p = softmax(z_q), softmax(z_p)
    head = sorted_head(p, mu, boundary)
    share = np.abs(p - q)[head].sum() / np.abs(p - q).sum()
    forward = (p * np.log(p / q)).sum()
    reverse = (q * np.log(q / p)).sum()
    out.append((share, share * forward + (1 - share) * reverse))
  return np.array(out).T


def draw(rows=16, vocab=300, scale=2.0):
  rng = np.random.default_rng(2)
  student, teacher = (rng.normal(size=(rows, vocab)) for _ in range(2))
  scales = np.linspace(0.01, 3 * scale, rows)[:, None]  # flat to peaked
  return student * scale, teacher * scales


@either
@pytest.mark.parametrize("mu", [0.1, 0.5, 0.9])
def test_equals_the_sorted_definition(mu, boundary, x64):
  del x64
  student, teacher = draw()
  shares, expected = reference(student, teacher, mu, boundary)
  value, grad = jax.value_and_grad(
    lambda s: losses.adaptive_kl(s, teacher, mu=mu, boundary=boundary).sum()
  )(student)
  np.testing.assert_allclose(value, expected.sum(), rtol=1e-9)
  # The shares are constants to the gradient.
  mixed = jax.grad(
    lambda s: (
      shares * losses.forward_kl(s, teacher)
      + (1 - shares) * losses.reverse_kl(s, teacher)
    ).sum()
  )(student)
  np.testing.assert_allclose(grad, mixed, rtol=1e-8, atol=1e-12)
  each = losses.adaptive_kl(student, teacher, mu=mu, boundary=boundary)
  np.testing.assert_allclose(each, expected, rtol=1e-9)


@either
def test_head_is_the_sorted_one_in_float32(boundary):
  """Over a real vocabulary's size, id for id; equal ids stay together."""
  _, teacher = draw(rows=8, vocab=20_000)
  p = np.array(jax.nn.softmax(jnp.asarray(teacher, jnp.float32)))
  low, high = adaptive.crossing(
    jnp.asarray(p), jnp.float32(0.5), strictly=boundary == "tail"
  )
  for i, row in enumerate(p):
    head = row > (low if boundary == "head" else high)[i, 0]
    order = np.argsort(-row, kind="stable")
    mass = np.cumsum(row[order].astype(float))
    passed = (mass > 0.5) if boundary == "tail" else (mass >= 0.5)
    passes = row[order][np.argmax(passed)]  # the id with which mu is passed
    expected = (row >= passes) if boundary == "head" else (row > passes)
    # One id more or less where float32 sums cannot decide.
    assert np.sum(head ^ expected) <= np.sum(np.isclose(row, passes, 1e-6))
    assert head.sum() == pytest.approx(expected.sum(), rel=1e-3, abs=0)


@either
def test_ids_of_equal_probability_stay_together(boundary):
  p = np.array([0.1, 0.3, 0.2, 0.2, 0.2], np.float32)  # 0.3 0.5 0.7 0.9 1
  low, high = adaptive.crossing(
    jnp.asarray(p)[None], jnp.float32(0.6), strictly=boundary == "tail"
  )
  head = p > (low if boundary == "head" else high)[0, 0]
  together = boundary == "head"
  assert head.tolist() == [False, True, together, together, together]


@either
def test_all_ids_equally_probable(boundary):
  """One value, all of it tied with the most probable: head alone."""
  teacher = jnp.zeros((1, 7))
  student = jnp.arange(7.0)[None]
  value = losses.adaptive_kl(student, teacher, boundary=boundary)
  np.testing.assert_allclose(
    value, losses.forward_kl(student, teacher), rtol=1e-6
  )


def test_most_probable_id_is_head_although_it_passes_mu():
  teacher = jnp.log(jnp.array([0.8, 0.15, 0.05]))
  student = jnp.log(jnp.array([0.8, 0.05, 0.15]))  # differs in the tail alone
  for boundary in ("tail", "head"):
    np.testing.assert_allclose(
      losses.adaptive_kl(student, teacher, boundary=boundary),
      losses.reverse_kl(student, teacher),
      rtol=1e-5,
    )


def test_extreme_mu_and_huge_logits_end():
  student, teacher = draw(rows=4, vocab=50)
  for scale in (1.0, 1e4):
    for mu in (0.0, 1e-9, 1.0 - 1e-7, 1.0):
      for boundary in ("tail", "head"):
        value = losses.adaptive_kl(
          student * scale, teacher * scale, mu=mu, boundary=boundary
        )
        assert np.all(np.isfinite(value))


@pytest.mark.slow
def test_number_of_passes_is_small(monkeypatch):
  """A dozen or two, not one for each bit of each id."""
  _, teacher = draw(rows=16, vocab=20_000)
  p = jax.nn.softmax(jnp.asarray(teacher, jnp.float32))
  passes = []
  original = jnp.sum

  def counting(*args, **kwargs):
    passes.append(1)
    return original(*args, **kwargs)

  monkeypatch.setattr(jnp, "sum", counting)
  with jax.disable_jit():  # the loop runs in Python
    adaptive.crossing(p, jnp.float32(0.5), strictly=True)
  assert 3 < len(passes) <= 24
