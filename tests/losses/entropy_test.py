# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Cross entropies, Hinton's combination and DKD against float64 NumPy."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import losses

V = 17
TARGETS = np.array([2, 0, 16, 7], np.int32)


def draw(scale=2.0, seed=7, holes=False):
  rng = np.random.default_rng(seed)
  student, teacher = (rng.normal(size=(4, V)) * scale for _ in range(2))
  if holes:
    student[0, 3], teacher[1, 5], teacher[2, 0], student[2, 0] = [-np.inf] * 4
  return student, teacher


def log_softmax(logits, tau=1.0):
  z = logits / tau
  z = z - z.max(-1, keepdims=True)
  return z - np.log(np.exp(z).sum(-1, keepdims=True))


def ref_kl(log_p, log_q):
  with np.errstate(invalid="ignore"):
    return np.where(log_p > -np.inf, np.exp(log_p) * (log_p - log_q), 0).sum(-1)


def common(student, teacher):
  gone = ~(np.isfinite(student) & np.isfinite(teacher))
  return tuple(np.where(gone, -np.inf, x) for x in (student, teacher))


def ref_ce(student):
  return -log_softmax(student)[np.arange(4), TARGETS]


def ref_hinton(student, teacher, lam=0.3, tau=2.0):
  log_q, log_p = (log_softmax(x, tau) for x in common(student, teacher))
  soft = tau**2 * ref_kl(log_p, log_q)
  return (1 - lam) * ref_ce(student) + lam * soft


def ref_soft(student, teacher, tau=2.0):
  log_q, log_p = (log_softmax(x, tau) for x in common(student, teacher))
  with np.errstate(invalid="ignore"):
    terms = np.where(log_p > -np.inf, np.exp(log_p) * log_q, 0)
  return -terms.sum(-1)


def decoupled(student, teacher, tau):
  """TCKD and NCKD, from probabilities."""
  parts = []
  for x in common(student, teacher):
    p = np.exp(log_softmax(x, tau))
    rest = p.copy()
    rest[np.arange(4), TARGETS] = 0
    binary = np.stack([p[np.arange(4), TARGETS], rest.sum(-1)], -1)
    with np.errstate(divide="ignore"):
      rest = np.log(rest / rest.sum(-1, keepdims=True))
    parts.append((np.log(binary), rest))
  (binary_q, rest_q), (binary_p, rest_p) = parts
  return ref_kl(binary_p, binary_q), ref_kl(rest_p, rest_q)


def ref_dkd(student, teacher, alpha=1.5, beta=3.0, tau=2.0):
  target, others = decoupled(student, teacher, tau)
  return tau**2 * (alpha * target + beta * others)


CASES = {
  "cross_entropy": (
    lambda s, t: losses.cross_entropy(s, TARGETS),
    lambda s, t: ref_ce(s),
  ),
  "soft_cross_entropy": (
    lambda s, t: losses.soft_cross_entropy(s, t, tau=2.0),
    ref_soft,
  ),
  "hinton": (
    lambda s, t: losses.hinton(s, t, TARGETS, lam=0.3, tau=2.0),
    ref_hinton,
  ),
  "dkd": (
    lambda s, t: losses.dkd(s, t, TARGETS, alpha=1.5, beta=3.0, tau=2.0),
    ref_dkd,
  ),
  "entropy": (
    lambda s, t: losses.entropy(s, tau=1.5),
    lambda s, t: ref_soft(s, s, tau=1.5),
  ),
}
every = pytest.mark.parametrize("name", CASES)


def evaluate(name, student, teacher):
  fn = CASES[name][0]

  @jax.jit
  def run(student, teacher):
    value, pull = jax.vjp(fn, student, teacher)
    return value, pull(jnp.ones_like(value))

  return run(student, teacher)


@every
def test_value_and_gradients_in_float64(name, x64):
  del x64
  logits = draw(holes=True)
  reference = CASES[name][1]
  value, grads = evaluate(name, *logits)
  assert value.dtype == jnp.float64
  np.testing.assert_allclose(value, reference(*logits), rtol=1e-10)
  for which, grad in enumerate(grads):
    expected = np.zeros_like(logits[which])
    for i in np.ndindex(expected.shape):
      ends = []
      for sign in (1, -1):
        moved = [x.copy() for x in logits]
        moved[which][i] += sign * 1e-5
        ends.append(reference(*moved).sum())
      expected[i] = (ends[0] - ends[1]) / 2e-5
    np.testing.assert_allclose(grad, expected, rtol=1e-6, atol=1e-8)


@every
def test_bfloat16_inputs_are_only_rounded_inputs(name):
  narrow = [jnp.asarray(x, jnp.bfloat16) for x in draw()]
  wide = [x.astype(jnp.float32) for x in narrow]
  value, grads = evaluate(name, *narrow)
  wide_value, wide_grads = evaluate(name, *wide)
  assert value.dtype == jnp.float32
  np.testing.assert_allclose(value, wide_value, rtol=1e-6)
  for grad, expected in zip(grads, wide_grads, strict=True):
    np.testing.assert_allclose(
      grad.astype(jnp.float32), expected, rtol=2**-8, atol=1e-7
    )


@every
def test_huge_logits_stay_finite(name):
  logits = [x.astype(np.float32) for x in draw(1e4, holes=True)]
  chex.assert_tree_all_finite(evaluate(name, *logits))


def test_jit_equals_eager():
  logits = [jnp.asarray(x, jnp.float32) for x in draw()]
  targets = jnp.asarray(TARGETS)
  for fn in (losses.hinton, losses.dkd):
    jitted = fn(*logits, targets)
    with jax.disable_jit():
      np.testing.assert_allclose(fn(*logits, targets), jitted, rtol=1e-5)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)], ids=str)
def test_any_leading_axes(shape):
  rng = np.random.default_rng(0)
  student, teacher = (
    jnp.asarray(rng.normal(size=(*shape, V)), jnp.float32) for _ in range(2)
  )
  targets = jnp.asarray(rng.integers(V, size=shape))
  flat = [x.reshape(-1, V) for x in (student, teacher)]
  for fn in (losses.hinton, losses.dkd):
    value = fn(student, teacher, targets)
    assert value.shape == shape
    each = jax.vmap(fn)(*flat, targets.reshape(-1))
    np.testing.assert_allclose(value.reshape(-1), each, rtol=1e-5)
  value = losses.cross_entropy(student, targets)
  assert value.shape == shape


def test_cross_entropy_of_a_removed_or_invalid_target():
  logits = jnp.array([[0.0, -jnp.inf], [0.0, 0.0], [0.0, 0.0]])
  value = losses.cross_entropy(logits, jnp.array([1, 2, -100]))
  assert value[0] == jnp.inf
  assert np.all(np.isnan(value[1:]))


def test_cross_entropy_over_a_large_vocabulary():
  """Near a sure prediction, where log q(target) is next to 0."""
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(4, 50_000)).astype(np.float32)
  logits[np.arange(4), TARGETS] += [0, 15, 25, 40]
  np.testing.assert_allclose(
    losses.cross_entropy(logits, TARGETS),
    ref_ce(logits.astype(float)),
    rtol=1e-5,
    atol=1e-7,
  )


def test_soft_cross_entropy_is_kl_and_entropy(x64):
  del x64
  student, teacher = draw()
  np.testing.assert_allclose(
    losses.soft_cross_entropy(student, teacher, tau=3.0),
    losses.forward_kl(student, teacher, tau=3.0)
    + losses.entropy(teacher, tau=3.0),
    rtol=1e-12,
  )


def test_tau_squared_keeps_the_size_of_the_gradient():
  """Its norm is nearly constant from 4 to 20, and would fall 25-fold else."""
  student, teacher = draw()

  def norm(tau):
    grad = jax.grad(
      lambda s: losses.hinton(s, teacher, TARGETS, lam=1.0, tau=tau).sum()
    )(student)
    return np.linalg.norm(grad)

  norms = np.array([norm(tau) for tau in (4.0, 8.0, 12.0, 16.0, 20.0)])
  assert norms.max() / norms.min() < 1.25


def test_limit_of_large_tau_is_the_squared_distance_of_logits(x64):
  """tau^2 KL -> |z_T - z_S|^2 / (2 V) with the means removed."""
  student, teacher = draw()
  gap = (teacher - teacher.mean(-1, keepdims=True)) - (
    student - student.mean(-1, keepdims=True)
  )
  tau = 1e5
  value, pull = jax.vjp(
    lambda s: losses.hinton(s, teacher, TARGETS, lam=1.0, tau=tau), student
  )
  np.testing.assert_allclose(value, (gap**2).sum(-1) / (2 * V), rtol=1e-3)
  np.testing.assert_allclose(
    pull(jnp.ones_like(value))[0], -gap / V, rtol=1e-3, atol=1e-5
  )


def test_kd_is_its_two_decoupled_parts(x64):
  """KL = TCKD + (1 - p_y) NCKD."""
  del x64
  student, teacher = draw()
  rest = 1 - np.exp(log_softmax(teacher)[np.arange(4), TARGETS])
  for i in range(4):
    value = losses.dkd(
      student[i], teacher[i], TARGETS[i], alpha=1.0, beta=rest[i], tau=1.0
    )
    kl = losses.forward_kl(student[i], teacher[i])
    np.testing.assert_allclose(value, kl, rtol=1e-12)


def test_dkd_is_zero_at_equality_and_never_negative():
  student, _ = (x.astype(np.float32) for x in draw())
  value = losses.dkd(student, student, TARGETS)
  assert np.all(value >= 0)
  np.testing.assert_allclose(value, 0, atol=128 * 1e-6)  # beta tau**2 = 128
  near = losses.dkd(student, student + np.float32(1e-4), TARGETS)
  assert np.all(near >= 0)


def test_dkd_of_a_sure_teacher_keeps_its_dark_knowledge():
  """NCKD does not vanish with 1 - p_y, which here is below float32."""
  student = jnp.array([0.0, 1.0, 2.0, 3.0])
  teacher = jnp.array([500.0, 3.0, 2.0, 1.0])
  value = losses.dkd(
    student, teacher, jnp.array(0), alpha=0.0, beta=1.0, tau=1.0
  )
  log_q, log_p = (log_softmax(np.array(x)) for x in ([1, 2, 3.0], [3, 2, 1.0]))
  np.testing.assert_allclose(value, ref_kl(log_p, log_q), rtol=1e-6)


def test_dkd_without_the_target_or_without_others():
  inf = -jnp.inf
  student = jnp.array([[inf, 1.0, 2.0], [1.0, inf, inf], [0.0, 1.0, 3.0]])
  teacher = jnp.array([[3.0, 1.0, 0.0], [1.0, 2.0, inf], [0.0, inf, 1.0]])

  def total(s):
    return losses.dkd(s, teacher, jnp.array([0, 0, 0]), beta=2.0, tau=1.0).sum()

  value = losses.dkd(student, teacher, jnp.array([0, 0, 0]), beta=2.0, tau=1.0)
  others = losses.forward_kl(student[0, 1:], teacher[0, 1:])
  np.testing.assert_allclose(value[0], 2 * others, rtol=1e-6)
  assert value[1] == 0
  assert value[2] > 0
  grad = jax.grad(total)(student)
  assert np.all(np.isfinite(grad))
  assert np.all(grad[1] == 0)
