# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Feature distances against NumPy, with projectors of any width."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import losses, types

B, D, E = (2, 3), 5, 7


def ref_mse(x, y):
  return ((x - y) ** 2).mean(-1)


def ref_smooth_l1(x, y, beta=1.0):
  gap = np.abs(x - y)
  return np.where(gap < beta, gap**2 / (2 * beta), gap - beta / 2).mean(-1)


def ref_cosine(x, y):
  norms = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
  return 1 - (x * y).sum(-1) / norms


CASES = {
  "mse": (losses.mse, {}, ref_mse),
  "smooth_l1": (losses.smooth_l1, {"beta": 0.8}, ref_smooth_l1),
  "cosine": (losses.cosine, {}, ref_cosine),
}
each = pytest.mark.parametrize("name", CASES)


def draw():
  rng = np.random.default_rng(0)
  student, teacher = rng.normal(size=(*B, D)), rng.normal(size=(*B, E))
  return student, teacher, rng.normal(size=(D, E)), rng.normal(size=E)


@each
def test_value_and_all_gradients_in_float64(name, x64):
  del x64
  fn, params, ref = CASES[name]
  arrays = draw()

  def value(student, teacher, kernel, bias):
    return fn(student, teacher, kernel=kernel, bias=bias, **params)

  def reference(student, teacher, kernel, bias):
    return ref(student @ kernel + bias, teacher, **params)

  out, pull = jax.vjp(value, *arrays)
  assert out.shape == B
  np.testing.assert_allclose(out, reference(*arrays), rtol=1e-12)
  for which, grad in enumerate(pull(jnp.ones_like(out))):
    expected = np.zeros_like(arrays[which])
    for i in np.ndindex(expected.shape):
      ends = []
      for sign in (1, -1):
        moved = [x.copy() for x in arrays]
        moved[which][i] += sign * 1e-6
        ends.append(reference(*moved).sum())
      expected[i] = (ends[0] - ends[1]) / 2e-6
    np.testing.assert_allclose(grad, expected, rtol=1e-6, atol=1e-8)


@each
def test_equal_widths_need_no_projector(name):
  fn, params, ref = CASES[name]
  _, teacher, _, _ = draw()
  teacher = teacher.astype(np.float32)
  other = teacher[::-1]
  np.testing.assert_allclose(
    fn(other, teacher, **params), ref(other, teacher, **params), rtol=1e-5
  )
  np.testing.assert_allclose(fn(teacher, teacher, **params), 0, atol=3e-7)
  single = fn(other[0, 0], teacher[0, 0], **params)
  assert single.shape == ()


@each
def test_bfloat16_inputs_are_only_rounded_inputs(name):
  fn, params, _ = CASES[name]
  narrow = [jnp.asarray(x, jnp.bfloat16) for x in draw()]
  wide = [x.astype(jnp.float32) for x in narrow]

  def value(student, teacher, kernel, bias):
    return fn(student, teacher, kernel=kernel, bias=bias, **params)

  assert value(*narrow).dtype == jnp.float32
  np.testing.assert_allclose(value(*narrow), value(*wide), rtol=1e-5)


@each
def test_zero_vectors_and_equality_have_finite_gradients(name):
  fn, params, _ = CASES[name]
  zero, one = jnp.zeros((2, 4)), jnp.ones((2, 4))
  for x, y in ((zero, one), (one, zero), (zero, zero), (one, one)):
    value, grads = jax.value_and_grad(
      lambda x, y: fn(x, y, **params).sum(), argnums=(0, 1)
    )(x, y)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(g)) for g in grads)


def test_smooth_l1_without_a_parabola_is_the_absolute_difference():
  x, y = jnp.array([1.0, -2.0, 0.5]), jnp.array([1.0, 1.0, 1.0])

  def run(beta):
    return jax.value_and_grad(lambda x: losses.smooth_l1(x, y, beta=beta))(x)

  value, grad = run(0.0)
  np.testing.assert_allclose(value, np.abs(x - y).mean(), rtol=1e-6)
  np.testing.assert_allclose(grad, np.sign(x - y) / 3, rtol=1e-6)
  value, _ = run(1e-12)
  np.testing.assert_allclose(value, np.abs(x - y).mean(), rtol=1e-6)


def test_cosine_ignores_scale_even_where_squares_overflow():
  x, y = jnp.array([3.0, 4.0]), jnp.array([4.0, 3.0])
  for scale in (1.0, 1e30, 1e-30):
    np.testing.assert_allclose(losses.cosine(x * scale, y), 0.04, rtol=1e-5)
  unit_x, unit_y = x / 5, y / 5
  np.testing.assert_allclose(
    losses.cosine(x, y), jnp.square(unit_x - unit_y).sum() / 2, rtol=1e-5
  )


def test_layers_of_any_widths():
  rng = np.random.default_rng(1)
  student = [jnp.asarray(rng.normal(size=(2, w))) for w in (3, 4)]
  teacher = [jnp.asarray(rng.normal(size=(2, w))) for w in (6, 5, 5, 4)]
  pairs = losses.layer_pairs(2, 4)
  assert pairs == ((0, 1), (1, 3))
  kernels = [jnp.asarray(rng.normal(size=(3, 5))), None]
  value = losses.layer_mean(
    losses.mse, student, teacher, pairs=pairs, kernels=kernels
  )
  expected = (
    ref_mse(student[0] @ kernels[0], teacher[1])
    + ref_mse(student[1], teacher[3])
  ) / 2
  np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["skip", "last"])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (3, 7), (10, 30), (4, 6), (5, 5)])
def test_layer_pairs_rise_to_the_last_layer(kind, m, n):
  pairs = losses.layer_pairs(m, n, kind=kind)
  assert [i for i, _ in pairs] == list(range(m))
  chosen = [j for _, j in pairs]
  assert chosen == sorted(set(chosen))
  assert chosen[0] >= 0
  assert chosen[-1] == n - 1
  if kind == "skip":  # as even as whole layers allow
    gaps = np.diff([-1, *chosen])
    assert gaps.max() - gaps.min() <= 1


def test_mistakes_are_named():
  x, y = jnp.zeros((2, 3)), jnp.zeros((2, 4))
  with pytest.raises(types.UserError, match=r"\(2, 3\).*\(2, 4\).*kernel"):
    losses.mse(x, y)
  with pytest.raises(types.UserError, match="bias but no kernel"):
    losses.mse(x, x, bias=jnp.zeros(3))
  with pytest.raises(types.UserError, match="5 student layers"):
    losses.layer_pairs(5, 4)
  with pytest.raises(types.UserError, match="2 pairs of layers with 1 kernels"):
    losses.layer_mean(
      losses.mse, [x, x], [y, y], pairs=((0, 0), (1, 1)), kernels=[None]
    )
