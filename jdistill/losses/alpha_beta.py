# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The alpha-beta divergence, right at and near all of its limits."""

import jax
import jax.numpy as jnp

from jdistill.losses.pairs import Separable
from jdistill.types import Logits, Nats, Scalar


def _quotient(u, v, x, a):
  """(e^u - e^v) / a where u - v = a x; at a = 0 its limit, x e^v."""
  step = a * x
  near = jnp.abs(step) < 1e-3
  series = 1 + step * (1 / 2 + step * (1 / 6 + step * (1 / 24 + step / 120)))
  # From the larger of the two down, so that nothing overflows on the way.
  size = jnp.where(near, 1, jnp.abs(step))
  fall = -jnp.expm1(-size) / size
  top = jnp.exp(jnp.where(near, v, jnp.maximum(u, v)))
  return top * x * jnp.where(near, series, fall)


def _finite_logs(log_q, log_p):
  """log_q, log_p, log_q - log_p; 0 where they agree, as removed ids do.

  Every part of the divergence vanishes there, but a negative power of a zero
  probability would not be finite on the way.
  """
  x = log_q - log_p
  return jnp.where(x == 0, 0, log_q), jnp.where(x == 0, 0, log_p), x


def _slopes(q, p, log_q, log_p, alpha, beta):
  """(q^s - p^a q^b) / a and (p^s - p^a q^b) / b, with s = a + b."""
  del q, p
  log_q, log_p, x = _finite_logs(log_q, log_p)
  total = alpha + beta
  mixed = alpha * log_p + beta * log_q
  a = _quotient(total * log_q, mixed, x, alpha)
  b = _quotient(total * log_p, mixed, -x, beta)
  return a, b


def _series(x, s, r):
  """((e^(sx) - 1)/s - (e^(rx) - 1)/r) / (s - r) for small sx and rx.

  The coefficient of x^k is (s^(k-1) - r^(k-1)) / ((s - r) k!).
  """
  total, power, geometric, factorial = 0.0, x * x, jnp.ones_like(s), 2.0
  r_power = r
  for k in range(3, 11):
    total = total + power * geometric / factorial
    geometric, r_power = geometric * s + r_power, r_power * r
    power, factorial = power * x, factorial * k
  return total


def _term(q, p, log_q, log_p, alpha, beta):
  """p^s ((e^(sx) - 1)/s - (e^(bx) - 1)/b) / a, with s = a + b, x = log q/p.

  This is the divergence's term with the singularities at b = 0 and s = 0 gone;
  the one at a = 0 goes by exchanging (p, a) with (q, b), which changes nothing,
  so that the divisor is the larger of the two, and by a series if that is small
  as well.
  """
  del q, p
  log_q, log_p, x = _finite_logs(log_q, log_p)
  swap = jnp.abs(beta) > jnp.abs(alpha)
  large = jnp.where(swap, beta, alpha)
  other = jnp.where(swap, alpha, beta)
  near = jnp.where(swap, log_q, log_p)
  far = jnp.where(swap, log_p, log_q)
  x = jnp.where(swap, -x, x)
  total = alpha + beta
  use_series = jnp.abs(large * x) < 0.05
  small_x = jnp.where(use_series, x, 0)
  series = jnp.exp(total * near) * _series(small_x, total, other)
  difference = _quotient(total * far, total * near, x, total) - _quotient(
    large * near + other * far, total * near, x, other
  )
  return jnp.where(
    use_series, series, difference / jnp.where(large == 0, 1, large)
  )


_ALPHA_BETA = Separable(_term, _slopes)


@jax.jit
def alpha_beta(
  student: Logits,
  teacher: Logits,
  *,
  alpha: Scalar = 0.5,
  beta: Scalar = 0.5,
  tau: Scalar = 1.0,
) -> Nats:
  """Alpha-beta divergence of the teacher p from the student q, per position.

  `-1/(ab) sum(p^a q^b - a/(a+b) p^(a+b) - b/(a+b) q^(a+b))`. (1, 0) is forward
  KL, (0, 1) reverse KL, (1, 1) half the squared distance of p and q, (1/2, 1/2)
  twice that of their square roots, (0, 0) half that of their logarithms. All
  limits (a, b or a + b towards 0) are continuous in value and gradient, and
  alpha and beta may be traced. A larger alpha attends less to the ids where the
  two differ most, a larger beta more to those the student is sure of.

  Args:
    student: [*B, V] logits; gradients flow.
    teacher: [*B, V] logits; stopping gradients is the caller's job.
    alpha: order in the teacher; the paper uses 0.2 for language models.
    beta: order in the student; the paper uses 0.7 for language models.
    tau: temperature dividing both logits; no tau**2 factor is applied here.
  Returns: [*B], unreduced; nats at (1, 0) and (0, 1). Negative orders weigh
    improbable ids by negative powers: then it may be huge, or infinite.
  References: Wang et al., 2025 (ABKD), arXiv:2505.04560; Cichocki, Cruces &
    Amari, 2011, doi:10.3390/e13010134.
  Example:
    >>> student = jnp.log(jnp.array([0.9, 0.1]))
    >>> teacher = jnp.log(jnp.array([0.5, 0.5]))
    >>> print(f"{alpha_beta(student, teacher, alpha=1.0, beta=0.0):.4f}")
    0.5108
    >>> print(f"{alpha_beta(student, teacher, alpha=1.0, beta=1.0):.4f}")
    0.1600
  """
  return _ALPHA_BETA(student, teacher, tau, alpha, beta)
