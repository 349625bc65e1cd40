# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The alpha-beta divergence at, and near, every one of its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import losses

V = 12


def log_softmax(logits):
  z = logits.astype(np.longdouble)
  z = z - z.max(-1, keepdims=True)
  return z - np.log(np.exp(z).sum(-1, keepdims=True))


def draw(scale=1.5):
  rng = np.random.default_rng(11)
  return tuple(rng.normal(size=(3, V)) * scale for _ in range(2))


@jax.jit
def values_and_grad(student, teacher, alpha, beta):
  def total(s):
    value = losses.alpha_beta(s, teacher, alpha=alpha, beta=beta)
    return value.sum(), value

  grad, value = jax.grad(total, has_aux=True)(student)
  return value, grad


def kl(log_p, log_q):
  return (np.exp(log_p) * (log_p - log_q)).sum(-1)


def opposite(log_q, log_p, alpha):
  """a + b = 0, from the definition in the literature."""
  ratio = log_q - log_p
  return ((np.exp(-alpha * ratio) - 1) / alpha + ratio).sum(-1) / alpha


LIMITS = {
  (1.0, 0.0): lambda q, p: kl(p, q),
  (0.0, 1.0): lambda q, p: kl(q, p),
  (1.0, 1.0): lambda q, p: ((np.exp(p) - np.exp(q)) ** 2).sum(-1) / 2,
  (0.5, 0.5): lambda q, p: 2 * ((np.exp(p / 2) - np.exp(q / 2)) ** 2).sum(-1),
  (0.0, 0.0): lambda q, p: ((q - p) ** 2).sum(-1) / 2,
  (0.7, -0.7): lambda q, p: opposite(q, p, 0.7),
  (-0.4, 0.4): lambda q, p: opposite(q, p, -0.4),
}
each_limit = pytest.mark.parametrize(
  "orders", LIMITS, ids=lambda x: f"{x[0]}_{x[1]}"
)


def grad_of(reference, student, teacher, step=1e-6):
  """Central differences in extended precision."""
  grad = np.zeros(student.shape)
  student = student.astype(np.longdouble)
  for i in np.ndindex(grad.shape):
    ends = []
    for sign in (1, -1):
      moved = student.copy()
      moved[i] += sign * step
      ends.append(reference(log_softmax(moved), log_softmax(teacher)).sum())
    grad[i] = (ends[0] - ends[1]) / (2 * step)
  return grad


@each_limit
def test_value_and_gradient_at_the_limits(orders, x64):
  del x64
  student, teacher = draw()
  value, grad = values_and_grad(student, teacher, *orders)
  reference = LIMITS[orders]
  expected = reference(log_softmax(student), log_softmax(teacher))
  np.testing.assert_allclose(value, expected.astype(float), rtol=1e-9)
  np.testing.assert_allclose(
    grad, grad_of(reference, student, teacher), rtol=1e-7, atol=1e-9
  )


def plain(log_q, log_p, alpha, beta):
  """The definition, which loses digits next to its limits."""
  a, b = np.longdouble(alpha), np.longdouble(beta)
  s = a + b
  terms = (
    np.exp(a * log_p + b * log_q)
    - (a * np.exp(s * log_p) + b * np.exp(s * log_q)) / s
  )
  return -(terms / (a * b)).sum(-1)


@each_limit
@pytest.mark.parametrize("distance", [1e-2, 1e-4])
def test_float32_near_the_limits(orders, distance):
  """With a traced parameter on either side, against extended precision."""
  student, teacher = (x.astype(np.float32) for x in draw())
  for da, db in ((1, 0), (0, -1), (1, 1), (-1, 2)):
    alpha = np.float32(orders[0] + da * distance)
    beta = np.float32(orders[1] + db * distance)
    if alpha == 0 or beta == 0 or alpha + beta == 0:
      continue  # a limit itself

    def reference(q, p, alpha=alpha, beta=beta):
      return plain(q, p, alpha, beta)

    value, grad = values_and_grad(student, teacher, alpha, beta)
    expected = reference(log_softmax(student), log_softmax(teacher))
    np.testing.assert_allclose(value, expected.astype(float), rtol=2e-5)
    expected = grad_of(reference, student, teacher)
    top = np.abs(expected).max()
    np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=2e-6 * top)


@each_limit
def test_continuous_into_the_limits(orders, x64):
  """Parameters so close that only the limit itself can tell the value."""
  del x64
  student, teacher = draw()
  at_limit = values_and_grad(student, teacher, *orders)
  for tiny in (1e-9, 1e-14, 1e-40):
    for da, db in ((tiny, 0), (0, tiny), (-tiny, tiny), (tiny, tiny)):
      near = values_and_grad(student, teacher, orders[0] + da, orders[1] + db)
      for x, y in zip(near, at_limit, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-9)


@each_limit
def test_removed_ids_leave_no_trace_at_the_limits(orders):
  """Also where orders are negative: 0 to their power would be infinite."""
  student, teacher = (x.astype(np.float32) for x in draw())
  value, grad = values_and_grad(student, teacher, *orders)
  wide = [np.insert(x, [2, 5], 0.5, axis=-1) for x in (student, teacher)]
  wide[0][:, 2], wide[1][:, 6] = -np.inf, -np.inf  # one on each side
  wide_value, wide_grad = values_and_grad(*wide, *orders)
  np.testing.assert_allclose(wide_value, value, rtol=1e-6)
  np.testing.assert_allclose(
    np.delete(wide_grad, [2, 6], axis=-1), grad, rtol=1e-5, atol=1e-6
  )
  np.testing.assert_array_equal(wide_grad[:, [2, 6]], 0)


def test_symmetric_under_exchange():
  """D_ab(p || q) = D_ba(q || p)."""
  student, teacher = draw()
  np.testing.assert_allclose(
    losses.alpha_beta(student, teacher, alpha=0.3, beta=0.9),
    losses.alpha_beta(teacher, student, alpha=0.9, beta=0.3),
    rtol=1e-5,
  )


def test_gradients_of_the_orders_at_a_limit(x64):
  del x64
  student, teacher = draw()

  @jax.jit
  def total(orders):
    alpha, beta = orders
    return losses.alpha_beta(student, teacher, alpha=alpha, beta=beta).sum()

  for at in ((1.0, 0.0), (0.0, 0.0), (0.5, -0.5)):
    grads = jax.grad(total)(tuple(jnp.float64(x) for x in at))
    for i, grad in enumerate(grads):
      ends = []
      for sign in (1, -1):
        moved = list(at)
        moved[i] += sign * 1e-4
        ends.append(total(tuple(moved)))
      np.testing.assert_allclose(grad, (ends[0] - ends[1]) / 2e-4, rtol=1e-4)
