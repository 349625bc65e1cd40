# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""InfoNCE against a loop over rows in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import losses

N, D = 6, 4


def draw():
  rng = np.random.default_rng(4)
  return rng.normal(size=(N, D)), rng.normal(size=(N, D))


def reference(student, teacher, tau, similarity, symmetric, mask):
  def similar(x, y):
    if similarity == "cosine":
      return x @ y / np.linalg.norm(x) / np.linalg.norm(y)
    return x @ y

  def one_way(xs, ys):
    out = np.zeros(N)
    for i in np.flatnonzero(mask):
      scores = {
        j: np.exp(similar(xs[i], ys[j]) / tau) for j in np.flatnonzero(mask)
      }
      out[i] = -np.log(scores[i] / sum(scores.values()))
    return out

  value = one_way(student, teacher)
  return (value + one_way(teacher, student)) / 2 if symmetric else value


@pytest.mark.parametrize("symmetric", [False, True], ids=["rows", "both"])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_value_and_gradients_in_float64(similarity, symmetric, x64):
  del x64
  arrays = (*draw(), np.array(0.7))
  mask = np.array([1, 1, 0, 1, 1, 0], bool)

  def value(student, teacher, tau):
    return losses.info_nce(
      student,
      teacher,
      tau=tau,
      mask=mask,
      similarity=similarity,
      symmetric=symmetric,
    )

  out, pull = jax.vjp(value, *arrays)
  expected = reference(*arrays, similarity, symmetric, mask)
  np.testing.assert_allclose(out, expected, rtol=1e-12)
  for which, grad in enumerate(pull(jnp.ones_like(out))):
    expected = np.zeros_like(arrays[which])
    for i in np.ndindex(expected.shape):
      ends = []
      for sign in (1, -1):
        moved = [x.copy() for x in arrays]
        moved[which][i] += sign * 1e-6
        ends.append(reference(*moved, similarity, symmetric, mask).sum())
      expected[i] = (ends[0] - ends[1]) / 2e-6
    np.testing.assert_allclose(grad, expected, rtol=1e-6, atol=1e-8)


def test_rows_that_do_not_exist_change_nothing():
  student, teacher = (x.astype(np.float32) for x in draw())
  expected = losses.info_nce(student[:4], teacher[:4])
  student[4:], teacher[4:] = 0.0, 1e4
  mask = jnp.array([1.0, 1, 1, 1, 0, 0])
  value, grad = jax.value_and_grad(
    lambda s: losses.info_nce(s, teacher, mask=mask, symmetric=True).sum()
  )(student)
  assert np.isfinite(value)
  assert np.all(np.isfinite(grad))
  assert np.all(grad[4:] == 0)
  value = losses.info_nce(student, teacher, mask=mask)
  np.testing.assert_allclose(value[:4], expected, rtol=1e-6)
  np.testing.assert_array_equal(value[4:], 0)
  nobody = losses.info_nce(student, teacher, mask=jnp.zeros(6))
  np.testing.assert_array_equal(nobody, 0)


def test_nothing_to_tell_apart_is_log_n():
  same = jnp.ones((N, D))
  np.testing.assert_allclose(losses.info_nce(same, same), np.log(N), rtol=1e-6)


def test_own_pair_found_is_zero():
  rows = jnp.eye(N)
  np.testing.assert_allclose(
    losses.info_nce(rows, rows, tau=0.01), 0, atol=1e-6
  )


def test_bfloat16_inputs_are_only_rounded_inputs():
  narrow = [jnp.asarray(x, jnp.bfloat16) for x in draw()]
  wide = [x.astype(jnp.float32) for x in narrow]
  value = losses.info_nce(*narrow, tau=0.07)
  assert value.dtype == jnp.float32
  np.testing.assert_allclose(value, losses.info_nce(*wide, tau=0.07), rtol=1e-6)
