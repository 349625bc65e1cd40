# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Divergences between a student's and a teacher's next-token distributions.

`p` is the teacher, `q` the student. All are unreduced and never negative; ids
that are -inf on either side are removed from both before the softmax.
"""

import jax
import jax.numpy as jnp

from jdistill.losses.pairs import Separable, separable
from jdistill.types import Logits, Nats, Scalar


def _forward_term(log_q, log_p):
  return jnp.exp(log_p) * (log_p - log_q)


def _forward_slopes(log_q, log_p):
  p = jnp.exp(log_p)
  return -p, p * (log_p - log_q)


def _reverse_term(log_q, log_p):
  return _forward_term(log_p, log_q)


def _reverse_slopes(log_q, log_p):
  return _forward_slopes(log_p, log_q)[::-1]


_FORWARD = Separable(_forward_term, _forward_slopes)
_REVERSE = Separable(_reverse_term, _reverse_slopes)


@jax.jit
def forward_kl(student: Logits, teacher: Logits, *, tau: Scalar = 1.0) -> Nats:
  """KL(teacher || student) over the vocabulary, in nats per position."""
  return separable(_FORWARD, student, teacher, tau)


@jax.jit
def reverse_kl(student: Logits, teacher: Logits, *, tau: Scalar = 1.0) -> Nats:
  """KL(student || teacher) over the vocabulary, in nats per position."""
  return separable(_REVERSE, student, teacher, tau)


def _log1p_ratio(w):
  """log(1 + w) / w, with its limit and derivative at 0."""
  near = jnp.abs(w) < 1e-3
  safe = jnp.where(near, 1, w)
  series = 1 - w * (1 / 2 - w * (1 / 3 - w * (1 / 4 - w / 5)))
  return jnp.where(near, series, jnp.log1p(safe) / safe)


def _jsd_parts(log_q, log_p, beta):
  """Slopes by log_q and log_p of JSD / (beta (1 - beta)); they sum to it.

  Of the two logs to the mixture, `near` is that of the side with the larger
  weight, so it may be tiny and is divided by the smaller weight `t`; `far` is
  the other. With `u = log far/near`, mixture/near = 1 + w, w = t (e^u - 1).
  """
  swap = beta > 0.5
  t = jnp.where(swap, 1 - beta, beta)
  log_near = jnp.where(swap, log_p, log_q)
  log_far = jnp.where(swap, log_q, log_p)
  u = log_far - log_near
  cap = 0.9 * jnp.log(jnp.finfo(u.dtype).max)
  capped = jnp.minimum(u, cap)
  w = t * jnp.expm1(capped)
  near, far = jnp.exp(log_near), jnp.exp(log_far)
  # Beyond the cap u - log(1 + w) is -log(t) already, unless t is 0.
  log_ratio = jnp.where(w > 1, capped, u) - jnp.log1p(w)
  near = (near - far) * _log1p_ratio(w)
  far = far * log_ratio / (1 - t)
  return jnp.where(swap, far, near), jnp.where(swap, near, far)


def _jsd_term(log_q, log_p, beta):
  a, b = _jsd_parts(log_q, log_p, beta)
  return a + b


_JSD = Separable(_jsd_term, _jsd_parts)


@jax.jit(static_argnames="rescale")
def jsd(
  student: Logits,
  teacher: Logits,
  *,
  beta: Scalar = 0.5,
  tau: Scalar = 1.0,
  rescale: bool = False,
) -> Nats:
  """Generalised Jensen-Shannon divergence, in nats per position."""
  value = separable(_JSD, student, teacher, tau, beta)
  return value if rescale else beta * (1 - beta) * value
