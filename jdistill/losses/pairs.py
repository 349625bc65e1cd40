# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Two arrays of logits, one softmax each, over the ids that both have.

Every divergence here starts from `log_q` (student) and `log_p` (teacher) over
the ids that are -inf on neither side, and most are sums of one term per id. For
those, `separable` gives the gradient in closed form: with the slopes
`a = dD/dlog_q` and `b = dD/dlog_p`, the chain rule through the softmax is
`(a - q sum(a)) / tau` and `(b - p sum(b)) / tau`. Only the logits and numbers
per row are kept for it, so nothing else of size `[*B, V]` outlives the value.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jdistill.types import Scalar

DROPPED = -(2.0**30)
"""Stands for -inf on both sides: its exponential is 0, differences are 0."""


class Row(NamedTuple):
  """What a softmax over a row needs: `log_prob = (z - top) / tau - log_sum`."""

  top: jax.Array  # [*B, 1]
  log_sum: jax.Array  # [*B, 1]


def compute_dtype(*arrays: jax.Array) -> jnp.dtype:
  """The common dtype of the arrays, but at least float32."""
  return jnp.promote_types(jnp.result_type(*arrays), jnp.float32)


def both_finite(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """[*B, V] True for ids that are -inf on neither side; NaN counts as kept."""
  return (student != -jnp.inf) & (teacher != -jnp.inf)


def scaled(
  logits: jax.Array, keep: jax.Array, tau: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """`(z - top) / tau` with dropped ids at `DROPPED`, and `top` [*B, 1].

  The top is subtracted before anything else, so that logits of any size keep
  the precision that they came with.
  """
  logits = logits.astype(tau.dtype)
  top = jnp.max(logits, axis=-1, keepdims=True, where=keep, initial=-jnp.inf)
  top = jnp.where(top == -jnp.inf, 0, top)  # nothing kept
  return jnp.where(keep, (logits - top) / tau, DROPPED), top


def log_of_sum(total: jax.Array) -> jax.Array:
  """Log of a sum of `exp(scaled)`: at least 1, or 0 if nothing was kept."""
  return jnp.log(jnp.maximum(total, 1))


def log_probs(
  student: jax.Array, teacher: jax.Array, tau: jax.Array
) -> tuple[jax.Array, jax.Array, Row, Row]:
  """`log_q`, `log_p` over common ids (others at `DROPPED`), and their rows."""
  keep = both_finite(student, teacher)
  out, rows = [], []
  for logits in (student, teacher):
    z, top = scaled(logits, keep, tau)
    log_sum = log_of_sum(jnp.sum(jnp.exp(z), axis=-1, keepdims=True))
    out.append(jnp.where(keep, z - log_sum, DROPPED))
    rows.append(Row(top, log_sum))
  return out[0], out[1], rows[0], rows[1]


def restore(
  logits: jax.Array, keep: jax.Array, row: Row, tau: jax.Array
) -> jax.Array:
  """The log-probabilities again, from what the forward pass kept."""
  z = (logits.astype(tau.dtype) - row.top) / tau - row.log_sum
  return jnp.where(keep, z, DROPPED)


@dataclasses.dataclass(frozen=True)
class Separable:
  """A divergence `sum_v term(log_q, log_p, *params)`, zero where they agree.

  `slopes` returns the derivatives of the term by `log_q` and `log_p`, each up
  to a multiple of `q` or `p` (the softmax projects such parts out).
  """

  term: Callable[..., jax.Array]
  slopes: Callable[..., tuple[jax.Array, jax.Array]]


def separable(
  kind: Separable,
  student: jax.Array,
  teacher: jax.Array,
  tau: Scalar,
  *params: Scalar | jax.Array,
) -> jax.Array:
  """[*B] the divergence, with gradients to both logits, tau and params.

  Under jit the gradients that nobody asks for are not computed. Reverse mode
  only, and once differentiable.
  """
  dtype = compute_dtype(student, teacher)
  tau = jnp.asarray(tau, dtype)
  params = tuple(jnp.asarray(x, dtype) for x in params)
  return _separable(kind, student, teacher, tau, params)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _separable(kind, student, teacher, tau, params):
  log_q, log_p, _, _ = log_probs(student, teacher, tau)
  # The exact sum is never negative; rounding may be.
  return jnp.maximum(jnp.sum(kind.term(log_q, log_p, *params), axis=-1), 0)


def _separable_fwd(kind, student, teacher, tau, params):
  log_q, log_p, row_q, row_p = log_probs(student, teacher, tau)
  value = jnp.maximum(jnp.sum(kind.term(log_q, log_p, *params), axis=-1), 0)
  a, b = kind.slopes(log_q, log_p, *params)
  sums = a.sum(axis=-1, keepdims=True), b.sum(axis=-1, keepdims=True)
  return value, (student, teacher, tau, params, row_q, row_p, sums)


def _separable_bwd(kind, residuals, cotangent):
  student, teacher, tau, params, row_q, row_p, (sum_a, sum_b) = residuals
  keep = both_finite(student, teacher)
  log_q = restore(student, keep, row_q, tau)
  log_p = restore(teacher, keep, row_p, tau)
  a, b = kind.slopes(log_q, log_p, *params)
  scale = (cotangent / tau)[..., None]
  d_student = scale * (a - jnp.exp(log_q) * sum_a)
  d_teacher = scale * (b - jnp.exp(log_p) * sum_b)
  d_tau = -jnp.sum(d_student * log_q + d_teacher * log_p)
  _, pull = jax.vjp(lambda *x: kind.term(log_q, log_p, *x).sum(-1), *params)
  return (
    d_student.astype(student.dtype),
    d_teacher.astype(teacher.dtype),
    d_tau,
    pull(cotangent),
  )


_separable.defvjp(_separable_fwd, _separable_bwd)
