# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Every divergence against float64 NumPy, in value and gradient."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import losses

V = 23


def probs(logits, tau):
  z = logits / tau
  e = np.exp(z - z.max())
  return e / e.sum()


def ref_kl(p, q):
  return np.sum(p * np.log(p / q))


def ref_jsd(q, p, beta, rescale=False):
  m = beta * p + (1 - beta) * q
  value = beta * ref_kl(p, m) + (1 - beta) * ref_kl(q, m)
  return value / (beta * (1 - beta)) if rescale else value


def ref_alpha_beta(q, p, alpha, beta):
  a, b, s = alpha, beta, alpha + beta
  terms = p**a * q**b - a / s * p**s - b / s * q**s
  return -np.sum(terms) / (a * b)


CASES = {
  "forward_kl": (losses.forward_kl, {}, lambda q, p: ref_kl(p, q)),
  "reverse_kl": (losses.reverse_kl, {}, lambda q, p: ref_kl(q, p)),
  "jeffreys": (
    losses.jeffreys,
    {"lam": 0.3},
    lambda q, p, lam: (1 - lam) * ref_kl(p, q) + lam * ref_kl(q, p),
  ),
  "jsd": (losses.jsd, {"beta": 0.3}, ref_jsd),
  "jsd_high": (losses.jsd, {"beta": 0.9}, ref_jsd),
  "jsd_rescaled": (losses.jsd, {"beta": 0.1, "rescale": True}, ref_jsd),
  "jsd_near_0": (losses.jsd, {"beta": 1e-4, "rescale": True}, ref_jsd),
  "jsd_near_1": (losses.jsd, {"beta": 1 - 2.0**-13, "rescale": True}, ref_jsd),
  "total_variation": (
    losses.total_variation,
    {},
    lambda q, p: np.abs(p - q).sum() / 2,
  ),
  "skew_forward_kl": (
    losses.skew_forward_kl,
    {"skew": 0.1},
    lambda q, p, skew: ref_kl(p, skew * p + (1 - skew) * q),
  ),
  "skew_reverse_kl": (
    losses.skew_reverse_kl,
    {"skew": 0.1},
    lambda q, p, skew: ref_kl(q, (1 - skew) * p + skew * q),
  ),
  "alpha_beta": (
    losses.alpha_beta,
    {"alpha": 0.2, "beta": 0.7},
    ref_alpha_beta,
  ),
  "alpha_beta_negative": (
    losses.alpha_beta,
    {"alpha": 1.3, "beta": -0.4},
    ref_alpha_beta,
  ),
}
# One of each kind; the gradient of the adaptive one has holes (its weights
# carry none), so it has its own tests of values and gradients.
KINDS = {
  name: CASES[name]
  for name in CASES
  if "_near" not in name
  and name not in ("jsd_high", "jsd_rescaled", "alpha_beta_negative")
} | {"adaptive_kl": (losses.adaptive_kl, {"mu": 0.5}, None)}
each = pytest.mark.parametrize("name", CASES)
every = pytest.mark.parametrize("name", KINDS)


def function(name):
  fn, params, _ = (CASES | KINDS)[name]
  return functools.partial(fn, **params)


@functools.cache
def compiled(name):
  """(student, teacher, tau) -> values and gradients of their sum by all."""

  def run(student, teacher, tau):
    def value(student, teacher, tau):
      return function(name)(student, teacher, tau=tau)

    out, pull = jax.vjp(value, student, teacher, tau)
    return out, pull(jnp.ones_like(out))

  return jax.jit(run)


def evaluate(name, student, teacher, tau=1.0):
  dtype = np.promote_types(student.dtype, np.float32)
  return compiled(name)(student, teacher, np.asarray(tau, dtype))


def reference(name, student, teacher, tau=1.0):
  """Values over the common ids, float64."""
  _, params, ref = CASES[name]
  out = np.zeros(student.shape[:-1])
  for i in np.ndindex(out.shape):
    keep = np.isfinite(student[i]) & np.isfinite(teacher[i])
    q, p = (
      probs(x[i][keep].astype(np.longdouble), tau) for x in (student, teacher)
    )
    out[i] = ref(q, p, **params)
  return out


def reference_grad(name, logits, which, tau=1.0, step=1e-5):
  """Central differences of the reference's sum by one side's logits."""
  grad = np.zeros_like(logits[which])
  for i in np.ndindex(grad.shape):
    if not np.isfinite(logits[which][i]):
      continue
    ends = []
    for sign in (1, -1):
      moved = [x.copy() for x in logits]
      moved[which][i] += sign * step
      ends.append(reference(name, *moved, tau=tau).sum())
    grad[i] = (ends[0] - ends[1]) / (2 * step)
  return grad


def draw(shape=(4, V), seed=0, scale=2.0, holes=True):
  rng = np.random.default_rng(seed)
  student, teacher = (rng.normal(size=shape) * scale for _ in range(2))
  if holes:
    student[..., 0, 3], teacher[..., 0, 5], teacher[..., 1, 0] = [-np.inf] * 3
    student[..., 1, 0] = -np.inf
    teacher[..., 2, np.argmax(student[..., 2, :])] = -np.inf
  return student, teacher


@each
def test_value_and_gradients_in_float64(name, x64):
  del x64
  for tau in (1.0, 2.5):
    logits = draw()
    value, grads = evaluate(name, *logits, tau)
    assert value.dtype == jnp.float64
    np.testing.assert_allclose(value, reference(name, *logits, tau), rtol=1e-9)
    for which, grad in enumerate(grads[:2]):
      expected = reference_grad(name, logits, which, tau)
      np.testing.assert_allclose(grad, expected, rtol=1e-6, atol=1e-8)
      assert np.all(np.asarray(grad)[~np.isfinite(logits[1 - which])] == 0)
    ends = [reference(name, *logits, tau + h).sum() for h in (1e-5, -1e-5)]
    np.testing.assert_allclose(grads[2], (ends[0] - ends[1]) / 2e-5, rtol=1e-6)


@pytest.mark.parametrize(
  "name", ["jeffreys", "jsd_near_0", "jsd", "skew_forward_kl", "alpha_beta"]
)
def test_gradient_of_parameters(name, x64):
  del x64
  fn, params, ref = CASES[name]
  student, teacher = draw((1, V), holes=False)
  q, p = (probs(x[0].astype(np.longdouble), 1) for x in (student, teacher))
  free = {k: v for k, v in params.items() if k != "rescale"}
  fixed = {k: v for k, v in params.items() if k == "rescale"}
  grads = jax.grad(lambda x: fn(student, teacher, **x, **fixed).sum())(free)
  for key, at in free.items():
    step = 1e-4 * at
    ends = [ref(q, p, **(params | {key: at + sign * step})) for sign in (1, -1)]
    expected = float((ends[0] - ends[1]) / (2 * step))
    np.testing.assert_allclose(grads[key], expected, rtol=1e-6)


@each
def test_float32_is_as_good_as_its_inputs(name):
  student, teacher = (x.astype(np.float32) for x in draw(seed=1, scale=4.0))
  value, grads = evaluate(name, student, teacher)
  exact = reference(name, student.astype(float), teacher.astype(float))
  np.testing.assert_allclose(value, exact, rtol=2e-5, atol=2e-6)
  with jax.enable_x64(True):
    _, exact = evaluate(name, student.astype(float), teacher.astype(float))
  for grad, expected in zip(grads, exact, strict=True):
    top = np.abs(expected).max()
    np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=3e-6 * top)


def test_float32_over_a_large_vocabulary():
  logits = draw((2, 50_000), scale=4.0, holes=False)
  logits = [x.astype(np.float32) for x in logits]
  exact = reference("forward_kl", *(x.astype(float) for x in logits))
  np.testing.assert_allclose(losses.forward_kl(*logits), exact, rtol=1e-6)


@every
def test_bfloat16_inputs_are_only_rounded_inputs(name):
  student, teacher = (jnp.asarray(x, jnp.bfloat16) for x in draw())
  value, grads = evaluate(name, student, teacher)
  wide_value, wide_grads = evaluate(
    name, student.astype(jnp.float32), teacher.astype(jnp.float32)
  )
  assert value.dtype == jnp.float32
  np.testing.assert_allclose(value, wide_value, rtol=1e-6)
  for grad, wide in zip(grads[:2], wide_grads[:2], strict=True):
    assert grad.dtype == jnp.bfloat16  # so rounded to 8 bits itself
    np.testing.assert_allclose(
      grad.astype(jnp.float32), wide, rtol=2**-8, atol=1e-7
    )


@every
def test_zero_and_without_gradient_at_equality(name):
  student, _ = (x.astype(np.float32) for x in draw())
  value, grads = evaluate(name, student, student)
  assert np.all(value >= 0)
  np.testing.assert_allclose(value, 0, atol=1e-6)
  for grad in grads[:2]:
    np.testing.assert_allclose(grad, 0, atol=1e-6)


@every
def test_never_negative_near_equality(name):
  rng = np.random.default_rng(3)
  for size in (1e-1, 1e-3, 1e-5, 1e-7):
    for seed in range(20):
      student, _ = draw(seed=seed, holes=False)
      teacher = student + size * rng.uniform(-1, 1, student.shape)
      value, _ = evaluate(
        name, student.astype(np.float32), teacher.astype(np.float32)
      )
      assert np.all(value >= 0)
      # Linear in the difference for total variation, else quadratic.
      bound = size if name == "total_variation" else 10 * size**2
      assert np.all(value <= bound + 2e-6)


@every
def test_huge_logits_stay_finite(name):
  student, teacher = (x.astype(np.float32) for x in draw(scale=1e4))
  value, grads = evaluate(name, student, teacher)
  assert np.all(np.isfinite(value))
  assert all(np.all(np.isfinite(grad)) for grad in grads)


def test_huge_logits_are_exact_where_floats_are():
  student = jnp.array([1e4, 0.0, -1e4])
  teacher = jnp.array([0.0, 1e4, -1e4])
  assert losses.forward_kl(student, teacher) == 1e4
  assert losses.reverse_kl(student, teacher) == 1e4
  assert losses.total_variation(student, teacher) == 1
  # JSD subtracts logarithms of size 80 at most: 80 * 2**-24.
  np.testing.assert_allclose(losses.jsd(student, teacher), np.log(2), atol=5e-6)
  np.testing.assert_allclose(
    losses.jsd(student, teacher, beta=0.0, rescale=True), 1e4, rtol=1e-6
  )
  for skewed in (losses.skew_forward_kl, losses.skew_reverse_kl):
    np.testing.assert_allclose(
      skewed(student, teacher), -np.log(0.1), rtol=1e-6
    )


@every
def test_jit_equals_eager(name):
  student, teacher = (x.astype(np.float32) for x in draw())
  jitted = evaluate(name, student, teacher)[0]
  with jax.disable_jit():
    eager = function(name)(jnp.asarray(student), jnp.asarray(teacher))
  np.testing.assert_allclose(jitted, eager, rtol=1e-5, atol=1e-6)


@every
def test_leading_axes_and_vmap(name):
  student, teacher = (x.astype(np.float32) for x in draw())
  fn = function(name)
  whole, _ = evaluate(name, student, teacher)
  several = jax.vmap(fn)(student.reshape(2, 2, V), teacher.reshape(2, 2, V))
  assert several.shape == (2, 2)
  np.testing.assert_allclose(several.ravel(), whole, rtol=1e-5, atol=1e-6)
  single = fn(student[2], teacher[2])
  assert single.shape == ()
  np.testing.assert_allclose(single, whole[2], rtol=1e-5, atol=1e-6)


@every
def test_moving_scalars_trace_once(name):
  fn, params, _ = KINDS[name]
  static = {k: v for k, v in params.items() if k == "rescale"}
  student, teacher = (x.astype(np.float32) for x in draw())

  @jax.jit
  @chex.assert_max_traces(n=1)
  def run(tau, moving):
    return fn(student, teacher, tau=tau, **moving, **static)

  chex.clear_trace_counter()
  for factor in (1.0, 0.9, 0.8):
    moving = {k: v * factor for k, v in params.items() if k not in static}
    assert jax.eval_shape(run, factor, moving).shape == (4,)


@every
def test_rows_without_a_common_id_are_zero(name):
  student, teacher = (x.astype(np.float32) for x in draw())
  student[0, :9], teacher[0, 9:] = -np.inf, -np.inf
  value, grads = evaluate(name, student, teacher)
  assert value[0] == 0
  for grad in grads[:2]:
    assert np.all(grad[0] == 0)
  assert np.all(np.isfinite(value))
  assert all(np.all(np.isfinite(grad)) for grad in grads)


@every
def test_nan_is_seen_and_stays_in_its_row(name):
  student, teacher = (x.astype(np.float32) for x in draw(holes=False))
  student[0, 2] = np.nan
  value, _ = evaluate(name, student, teacher)
  assert np.isnan(value[0])
  assert np.all(np.isfinite(value[1:]))


def test_skipped_teacher_gradient_costs_nothing():
  shape = jax.ShapeDtypeStruct((64, 4096), jnp.float32)

  def flops(argnums):
    grad = jax.grad(lambda *x: losses.jsd(*x).sum(), argnums=argnums)
    return jax.jit(grad).lower(shape, shape).compile().cost_analysis()["flops"]

  stopped = jax.grad(lambda s, t: losses.jsd(s, jax.lax.stop_gradient(t)).sum())
  stopped = jax.jit(stopped).lower(shape, shape).compile()
  assert flops(0) == stopped.cost_analysis()["flops"] < flops((0, 1))


def test_beta_is_the_share_of_the_teacher():
  """With the whole mixture nearly the teacher, KL(q || m) is KL(q || p)."""
  student, teacher = draw(holes=False)
  beta = 0.999
  value = losses.jsd(student, teacher, beta=beta)
  np.testing.assert_allclose(
    value / (1 - beta), losses.reverse_kl(student, teacher), rtol=0.02
  )


def ref_rescaled_jsd(q, p, beta):
  """JSD / (beta (1 - beta)) for a small beta, without cancellation."""
  m = beta * p + (1 - beta) * q
  to_q = -np.log1p(beta * (p / q - 1)) / beta
  return np.sum(p * np.log(p / m)) / (1 - beta) + np.sum(q * to_q)


def far_apart():
  student, teacher = (x.astype(np.float32) for x in draw(scale=5.0))
  student[3, 0], teacher[3, 0] = 200.0, -200.0
  return student, teacher


@pytest.mark.parametrize("beta", [1e-30, 2.0**-40, 2.0**-20, 2.0**-10, 0.25])
@pytest.mark.parametrize("mirrored", [False, True], ids=["near_0", "near_1"])
def test_rescaled_jsd_near_its_ends(beta, mirrored):
  student, teacher = far_apart()
  expected = []
  for z_q, z_p in zip(student, teacher, strict=True):
    keep = np.isfinite(z_q) & np.isfinite(z_p)
    q, p = (probs(x[keep].astype(np.longdouble), 1) for x in (z_q, z_p))
    expected.append(float(ref_rescaled_jsd(q, p, np.longdouble(beta))))
  if mirrored:  # JSD_beta(p, q) is JSD_{1 - beta}(q, p)
    if beta < 2.0**-24:
      pytest.skip("1 - beta is 1 in float32")
    student, teacher, beta = teacher, student, 1 - beta
  value = losses.jsd(student, teacher, beta=beta, rescale=True)
  np.testing.assert_allclose(value, expected, rtol=2e-5)


@pytest.mark.parametrize("end", [0, 1])
def test_rescaled_jsd_is_kl_at_its_ends(end):
  """Values and gradients, for a traced beta."""
  limit = (losses.forward_kl, losses.reverse_kl)[end]

  @functools.partial(jax.jit, static_argnums=0)
  def run(fn, logits, **params):
    return jax.value_and_grad(
      lambda *x: fn(*x, **params).sum(), argnums=(0, 1)
    )(*logits)

  def rescaled(*logits, beta):
    return losses.jsd(*logits, beta=beta, rescale=True)

  logits = far_apart()
  chex.assert_trees_all_close(
    run(rescaled, logits, beta=float(end)),
    run(limit, logits),
    rtol=1e-5,
    atol=1e-5,
  )
  logits = tuple(x.astype(np.float32) for x in draw())
  chex.assert_trees_all_close(
    run(rescaled, logits, beta=abs(end - 2.0**-20)),
    run(limit, logits),
    rtol=1e-3,
    atol=1e-4,
  )


def test_jsd_rates_at_its_ends(x64):
  del x64
  student, teacher = draw()
  for beta in (1e-6, 1e-8):
    np.testing.assert_allclose(
      losses.jsd(student, teacher, beta=beta) / beta,
      losses.forward_kl(student, teacher),
      rtol=2e3 * beta,
    )
    np.testing.assert_allclose(
      losses.jsd(student, teacher, beta=1 - beta) / beta,
      losses.reverse_kl(student, teacher),
      rtol=2e3 * beta,
    )


def test_acceptance_of_speculative_decoding_is_one_less_total_variation():
  student, teacher = draw(holes=False)
  accepted = [
    np.minimum(probs(s, 1), probs(t, 1)).sum()
    for s, t in zip(student, teacher, strict=True)
  ]
  np.testing.assert_allclose(
    1 - losses.total_variation(student, teacher), accepted, rtol=1e-5
  )


def test_subgradient_of_total_variation_is_zero_where_equal():
  logits = jnp.array([0.3, -1.0, 2.0])
  grad = jax.grad(losses.total_variation)(logits, logits)
  np.testing.assert_array_equal(grad, 0)


def test_skew_bounds_the_gradient_on_disjoint_supports():
  """The spread of gradient norms is smaller than that of the plain KLs."""
  rng = np.random.default_rng(5)
  student, teacher = rng.normal(size=(2, 200, V)) * 2
  student[:, : V // 2] += 15
  teacher[:, V // 2 :] += 15

  def norms(fn):
    grad = jax.jit(jax.grad(lambda s: fn(s, teacher).sum()))(student)
    return np.linalg.norm(grad, axis=-1)

  reverse, skewed = norms(losses.reverse_kl), norms(losses.skew_reverse_kl)
  assert skewed.var() < reverse.var() / 10
  # Forward KL's is bounded by sqrt(2) already, and not small anywhere here.
  assert norms(losses.skew_forward_kl).max() < norms(losses.forward_kl).min()


def test_shapes_are_checked():
  with pytest.raises(Exception, match=r"V|shape|type"):
    losses.forward_kl(jnp.zeros((2, 5)), jnp.zeros((2, 6)))


@pytest.mark.slow
def test_a_held_mixture_has_the_value_and_another_gradient(x64):
  """Reverse KL to a mixture that is given, at the mixture that it is."""
  rng = np.random.default_rng(4)
  student, teacher = rng.normal(size=(2, 3, V))
  q, p = jax.nn.softmax(student), jax.nn.softmax(teacher)
  mixture = jnp.log(0.7 * p + 0.3 * q)

  def held(z, zt):
    return losses.skew_reverse_kl(z, zt, skew=0.3, mixture="held").sum()

  live = losses.skew_reverse_kl(student, teacher, skew=0.3).sum()
  np.testing.assert_allclose(held(student, teacher), live, rtol=1e-12)
  by_student, by_teacher = jax.grad(held, (0, 1))(student, teacher)
  given = jax.grad(lambda z: losses.reverse_kl(z, mixture).sum())(student)
  np.testing.assert_allclose(by_student, given, rtol=1e-9, atol=1e-12)
  through = jax.grad(
    lambda zt: losses.reverse_kl(
      jnp.asarray(student), jnp.log(0.7 * jax.nn.softmax(zt) + 0.3 * q)
    ).sum()
  )(teacher)
  np.testing.assert_allclose(by_teacher, through, rtol=1e-9, atol=1e-12)
