# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Two arrays of logits, one softmax each, over the ids that both have.

Every divergence starts from here. Gradients are in closed form, from the logits
and a few numbers per row: with the slopes `a = dD/dlog q` and `b = dD/dlog p`
they are `(a - q sum(a)) / tau` and `(b - p sum(b)) / tau`. They are written
with the same expressions as the value, so that under one jit the compiler
shares the work, and what nobody asks for (most often the teacher's gradient) is
not computed. Reverse mode only, and differentiable once.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jdistill.types import Scalar

DROPPED = -(2.0**30)
"""The log-probability of removed ids: exp gives 0, differences are 0."""


class Side(NamedTuple):
  """One softmax: log-probabilities are `x - log_sum`, over what was kept."""

  x: jax.Array  # [*B, V] (logits - top) / tau, -inf where removed
  e: jax.Array  # [*B, V] exp(x)
  log_sum: jax.Array  # [*B, 1]
  inverse: jax.Array  # [*B, 1] 1 / sum(e), or 1 where nothing was kept

  @property
  def probs(self) -> jax.Array:
    return self.e * self.inverse

  @property
  def log_probs(self) -> jax.Array:
    """[*B, V], finite."""
    return jnp.where(self.x == -jnp.inf, DROPPED, self.x - self.log_sum)


def compute_dtype(*arrays: jax.Array) -> jnp.dtype:
  """The common dtype of the arrays, but at least float32."""
  return jnp.promote_types(jnp.result_type(*arrays), jnp.float32)


def widened(*arrays: jax.Array) -> list[jax.Array]:
  """The arrays in their compute dtype.

  For losses with several parts: their gradients then add up before they are
  rounded to the dtype of the logits.
  """
  dtype = compute_dtype(*arrays)
  return [x.astype(dtype) for x in arrays]


def normalise(logits: jax.Array, tau: jax.Array) -> Side:
  """The softmax of [*B, V] logits, -inf allowed, in the dtype of `tau`.

  The top is subtracted before all else, so logits of any size keep the
  precision that they came with. NaN spreads over its row.
  """
  logits = logits.astype(tau.dtype)
  top = jnp.max(logits, axis=-1, keepdims=True)  # [*B, 1]
  top = jnp.where(top == -jnp.inf, 0, top)  # nothing kept
  x = (logits - top) * (1 / tau)
  e = jnp.exp(x)
  total = jnp.maximum(jnp.sum(e, axis=-1, keepdims=True), 1)
  return Side(x, e, jnp.log(total), 1 / total)


def normalise_pair(
  student: jax.Array, teacher: jax.Array, tau: jax.Array
) -> tuple[Side, Side]:
  """Both softmaxes, over the ids that are -inf on neither side."""
  return (
    normalise(jnp.where(teacher == -jnp.inf, -jnp.inf, student), tau),
    normalise(jnp.where(student == -jnp.inf, -jnp.inf, teacher), tau),
  )


def _tau_cotangent(sides, cotangents):
  """The gradient of tau: logits enter as z / tau, up to a shift of the row."""
  pairs = zip(sides, cotangents, strict=True)
  return -sum(jnp.sum(grad * side.log_probs) for side, grad in pairs)


def kl(first: jax.Array, second: jax.Array, tau: Scalar) -> jax.Array:
  """[*B] KL(first || second) of softmax([*B, V] logits / tau), in nats."""
  return _kl(first, second, jnp.asarray(tau, compute_dtype(first, second)))


@jax.custom_vjp
def _kl(first, second, tau):
  return _kl_value(*normalise_pair(first, second, tau))


def _log_ratio(first: Side, second: Side) -> jax.Array:
  """x of the first minus x of the second, wherever the first has mass."""
  return jnp.where(first.e > 0, first.x - second.x, 0)


def _kl_value(first: Side, second: Side) -> jax.Array:
  # Linear in the log-ratio, so the normalisers can follow the sum: one pass
  # over the vocabulary less than with log-probabilities.
  mean = jnp.sum(first.e * _log_ratio(first, second), axis=-1, keepdims=True)
  value = mean * first.inverse + (second.log_sum - first.log_sum)
  return jnp.maximum(value, 0)[..., 0]  # rounding may go below zero


def _kl_fwd(first, second, tau):
  value = _kl_value(*normalise_pair(first, second, tau))
  return value, (first, second, tau, value)


def _kl_bwd(residuals, cotangent):
  first, second, tau, value = map(jnp.asarray, residuals)
  one, two = normalise_pair(first, second, tau)
  scale = (cotangent / tau)[..., None]
  ratio = _log_ratio(one, two) + (two.log_sum - one.log_sum)
  d_first = one.probs * scale * (ratio - value[..., None])
  d_second = two.e * (two.inverse * scale) - one.e * (one.inverse * scale)
  d_tau = _tau_cotangent((one, two), (d_first, d_second))
  return d_first.astype(first.dtype), d_second.astype(second.dtype), d_tau


_kl.defvjp(_kl_fwd, _kl_bwd)


def log_partition(
  logits: jax.Array, tau: Scalar
) -> tuple[jax.Array, jax.Array]:
  """`top`, `log_sum`, both [*B]: log sum(exp(z / tau)) = top / tau + log_sum.

  The gradient of the whole is carried by `log_sum`; `top` has none. Where all
  ids are -inf both are 0.
  """
  tau = jnp.asarray(tau, compute_dtype(logits))
  top = jnp.max(jax.lax.stop_gradient(logits), axis=-1).astype(tau.dtype)
  return jnp.where(top == -jnp.inf, 0, top), _log_sum(logits, tau)


@jax.custom_vjp
def _log_sum(logits, tau):
  return normalise(logits, tau).log_sum[..., 0]


def _log_sum_fwd(logits, tau):
  return _log_sum(logits, tau), (logits, tau)


def _log_sum_bwd(residuals, cotangent):
  logits, tau = map(jnp.asarray, residuals)
  side = normalise(logits, tau)
  grad = side.e * (side.inverse * (cotangent / tau)[..., None])
  d_tau = -jnp.sum(grad * jnp.where(side.x == -jnp.inf, 0, side.x))
  return grad.astype(logits.dtype), d_tau


_log_sum.defvjp(_log_sum_fwd, _log_sum_bwd)


@dataclasses.dataclass(frozen=True)
class Separable:
  """A divergence that is a sum over ids of `term(q, p, log_q, log_p, *params)`.

  The term vanishes where `log_q == log_p`. `slopes` gives its derivatives by
  `log_q` and by `log_p`, each up to a multiple of `q` or of `p`: the softmax
  projects such parts out.
  """

  term: Callable[..., jax.Array]
  slopes: Callable[..., tuple[jax.Array, jax.Array]]

  def __call__(
    self,
    student: jax.Array,
    teacher: jax.Array,
    tau: Scalar,
    *params: Scalar,
  ) -> jax.Array:
    """[*B] the divergence of softmax([*B, V] logits / tau)."""
    dtype = compute_dtype(student, teacher)
    arrays = tuple(jnp.asarray(x, dtype) for x in params)
    return _separable(self, student, teacher, jnp.asarray(tau, dtype), arrays)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _separable(kind, student, teacher, tau, params):
  q, p = normalise_pair(student, teacher, tau)
  term = kind.term(q.probs, p.probs, q.log_probs, p.log_probs, *params)
  return jnp.maximum(jnp.sum(term, axis=-1), 0)  # rounding may go below zero


def _separable_fwd(kind, student, teacher, tau, params):
  value = _separable(kind, student, teacher, tau, params)
  return value, (student, teacher, tau, params)


def _separable_bwd(kind, residuals, cotangent):
  student, teacher, tau, params = jax.tree.map(jnp.asarray, residuals)
  q, p = normalise_pair(student, teacher, tau)
  args = q.probs, p.probs, q.log_probs, p.log_probs
  scale = (cotangent / tau)[..., None]

  def through_softmax(slope, side):
    return scale * (slope - side.probs * slope.sum(axis=-1, keepdims=True))

  a, b = kind.slopes(*args, *params)
  d_student, d_teacher = through_softmax(a, q), through_softmax(b, p)
  d_tau = _tau_cotangent((q, p), (d_student, d_teacher))
  _, pull = jax.vjp(lambda *x: kind.term(*args, *x).sum(axis=-1), *params)
  return (
    d_student.astype(student.dtype),
    d_teacher.astype(teacher.dtype),
    d_tau,
    pull(cotangent),
  )


_separable.defvjp(_separable_fwd, _separable_bwd)
