# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Cross entropies, and the losses that split off the target's probability.

`p` is the teacher, `q` the student. As in `divergences`: values are unreduced,
the arithmetic is at least float32, scalars are traced, and gradients are
hand-written (reverse mode only).
"""

import jax
import jax.numpy as jnp

from jdistill.losses.pairs import (
  Separable,
  compute_dtype,
  kl,
  log_partition,
  normalise,
  widened,
)
from jdistill.types import Ids, Logits, Nats, Scalar


def is_target(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """[*B, V] True at the target; shards over V, unlike a gather."""
  ids = jax.lax.broadcasted_iota(targets.dtype, logits.shape, logits.ndim - 1)
  return ids == targets[..., None]


@jax.custom_vjp
def _cross_entropy(logits, targets):
  side = normalise(logits, jnp.ones((), compute_dtype(logits)))
  at_target = jnp.where(is_target(logits, targets), side.x, 0).sum(axis=-1)
  valid = (targets >= 0) & (targets < logits.shape[-1])
  return jnp.where(valid, side.log_sum[..., 0] - at_target, jnp.nan)


def _cross_entropy_fwd(logits, targets):
  return _cross_entropy(logits, targets), (logits, targets)


def _cross_entropy_bwd(residuals, cotangent):
  logits, targets = map(jnp.asarray, residuals)
  side = normalise(logits, jnp.ones((), compute_dtype(logits)))
  scale = cotangent[..., None]
  grad = side.e * (side.inverse * scale)
  grad = jnp.where(is_target(logits, targets), grad - scale, grad)
  return grad.astype(logits.dtype), None


_cross_entropy.defvjp(_cross_entropy_fwd, _cross_entropy_bwd)


@jax.jit
def cross_entropy(logits: Logits, targets: Ids) -> Nats:
  """-log q(target), in nats per position.

  Args:
    logits: [*B, V] the student's logits, -inf allowed; gradients flow.
    targets: [*B] ids in [0, V), already shifted. Masked positions need a valid
      id too: the caller multiplies by its mask.
  Returns: [*B], unreduced; NaN where a target is out of range, inf where its
    logit is -inf.
  References: Good, 1952, doi:10.1111/j.2517-6161.1952.tb00104.x (the
    logarithmic score).
  Example:
    >>> logits = jnp.log(jnp.array([[0.9, 0.1], [0.5, 0.5]]))
    >>> print(cross_entropy(logits, jnp.array([0, 1])).round(4))
    [0.1054 0.6931]
  """
  return _cross_entropy(logits, targets)


def _soft_term(q, p, log_q, log_p):
  del q, log_p
  return -p * log_q


def _soft_slopes(q, p, log_q, log_p):
  del q, log_p
  return -p, -p * log_q


_SOFT = Separable(_soft_term, _soft_slopes)


@jax.jit
def soft_cross_entropy(
  student: Logits, teacher: Logits, *, tau: Scalar = 1.0
) -> Nats:
  """-sum p log q, in nats per position: forward KL plus the teacher's entropy.

  Args:
    student: [*B, V] logits; gradients flow.
    teacher: [*B, V] logits; stopping gradients is the caller's job.
    tau: temperature dividing both logits; no tau**2 factor is applied here.
  Returns: [*B], unreduced. Ids that are -inf on either side are removed from
    both.
  References: Hinton, Vinyals & Dean, 2015, arXiv:1503.02531, Sec. 2.
  Example:
    >>> student = jnp.log(jnp.array([0.9, 0.1]))
    >>> teacher = jnp.log(jnp.array([0.5, 0.5]))
    >>> print(f"{soft_cross_entropy(student, teacher):.4f}")
    1.2040
  """
  return _SOFT(student, teacher, tau)


def _entropy_term(q, p, log_q, log_p):
  del p, log_p
  return -q * log_q


def _entropy_slopes(q, p, log_q, log_p):
  del p, log_p
  return -q * log_q, jnp.zeros_like(q)


_ENTROPY = Separable(_entropy_term, _entropy_slopes)


@jax.jit
def entropy(logits: Logits, *, tau: Scalar = 1.0) -> Nats:
  """-sum q log q of softmax(logits / tau), in nats per position.

  Args:
    logits: [*B, V] logits, -inf allowed; gradients flow.
    tau: temperature dividing the logits.
  Returns: [*B], unreduced, in [0, log V].
  References: Shannon, 1948, doi:10.1002/j.1538-7305.1948.tb01338.x, Sec. 6.
  Example:
    >>> print(entropy(jnp.zeros((2, 4))).round(4))
    [1.3863 1.3863]
  """
  return _ENTROPY(logits, logits, tau)


@jax.jit
def hinton(
  student: Logits,
  teacher: Logits,
  targets: Ids,
  *,
  lam: Scalar = 0.5,
  tau: Scalar = 1.0,
) -> Nats:
  """(1 - lam) CE(targets) + lam tau**2 KL(teacher || student), per position.

  The cross entropy is taken at temperature 1. The factor tau**2 keeps the size
  of the KL's gradient as tau grows; its limit is that of half the squared
  distance of the centred logits, divided by V.

  Args:
    student: [*B, V] logits; gradients flow.
    teacher: [*B, V] logits; stopping gradients is the caller's job.
    targets: [*B] ids in [0, V).
    lam: weight of the KL, in [0, 1].
    tau: temperature dividing both logits in the KL.
  Returns: [*B], unreduced, nats.
  References: Hinton, Vinyals & Dean, 2015, arXiv:1503.02531, Sec. 2.
  Example:
    >>> student = jnp.log(jnp.array([0.9, 0.1]))
    >>> teacher = jnp.log(jnp.array([0.5, 0.5]))
    >>> print(f"{hinton(student, teacher, jnp.array(0), lam=0.5):.4f}")
    0.3081
  """
  student, teacher = widened(student, teacher)
  soft = tau**2 * kl(teacher, student, tau)
  return (1 - lam) * _cross_entropy(student, targets) + lam * soft


def _log_odds(logits, others, hit, tau):
  """[*B] log of the target's probability over that of all other ids."""
  top, log_sum = log_partition(others, tau)
  at_target = jnp.sum(jnp.where(hit, logits, 0), axis=-1)
  return (at_target - top) / tau - log_sum


def _binary_kl(first, second):
  """KL of two Bernoulli distributions, given by their log-odds."""
  yes = jax.nn.log_sigmoid(first) - jax.nn.log_sigmoid(second)
  no = jax.nn.log_sigmoid(-first) - jax.nn.log_sigmoid(-second)
  value = jax.nn.sigmoid(first) * yes + jax.nn.sigmoid(-first) * no
  return jnp.maximum(value, 0)


@jax.jit
def dkd(
  student: Logits,
  teacher: Logits,
  targets: Ids,
  *,
  alpha: Scalar = 1.0,
  beta: Scalar = 8.0,
  tau: Scalar = 4.0,
) -> Nats:
  """Decoupled KD, `tau**2 (alpha TCKD + beta NCKD)`, in nats per position.

  TCKD is the KL between the teacher's and the student's probabilities of target
  or not; NCKD that between their distributions over the other ids, renormalised
  without the target. With alpha = 1 and beta = 1 - p(target) their sum is
  tau**2 KL(teacher || student).

  Args:
    student: [*B, V] logits; gradients flow.
    teacher: [*B, V] logits; stopping gradients is the caller's job.
    targets: [*B] ids in [0, V): labels, or the teacher's most probable ids.
    alpha: weight of the target's part.
    beta: weight of the others' part; the authors use 2 to 8.
    tau: temperature dividing both logits; the factor tau**2 *is* applied.
  Returns: [*B], unreduced. Ids that are -inf on either side are removed from
    both; TCKD is 0 where the target is one of them or is all that remains.
  References: Zhao et al., 2022, arXiv:2203.08679.
  Example:
    >>> student = jnp.log(jnp.array([0.7, 0.2, 0.1]))
    >>> teacher = jnp.log(jnp.array([0.6, 0.3, 0.1]))
    >>> y = jnp.array(0)
    >>> print(f"{dkd(student, teacher, y, beta=2.0, tau=1.0):.4f}")
    0.0554
  """
  student, teacher = widened(student, teacher)
  tau = jnp.asarray(tau, student.dtype)
  dropped = (student == -jnp.inf) | (teacher == -jnp.inf)
  hit = is_target(student, targets) & ~dropped
  other_q, other_p = (
    jnp.where(hit | dropped, -jnp.inf, x) for x in (student, teacher)
  )
  others = kl(other_p, other_q, tau)
  split = jnp.any(hit, axis=-1) & jnp.any(~(hit | dropped), axis=-1)
  odds_q = _log_odds(student, other_q, hit, tau)
  odds_p = _log_odds(teacher, other_p, hit, tau)
  target = jnp.where(split, _binary_kl(odds_p, odds_q), 0)
  return tau**2 * (alpha * target + beta * others)
