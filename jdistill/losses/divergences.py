# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Divergences between a student's and a teacher's next-token distributions.

`p` is the teacher, `q` the student, both softmax(logits / tau). True of all:

- Values are unreduced, [*B], and never negative. No tau**2 factor is applied.
- Ids whose logit is -inf on either side are removed from both before the
  softmax and get no gradient. A row with nothing left is 0.
- The arithmetic is at least float32, whatever the logits.
- tau and the other scalars are traced: a schedule does not recompile. They get
  gradients too.
- Gradients flow to both logits; stopping the teacher's is the caller's job, and
  costs nothing to leave undone. They are hand-written: reverse mode only.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from jdistill.losses.pairs import Separable, kl, widened
from jdistill.types import Logits, Nats, Scalar


@jax.jit
def forward_kl(student: Logits, teacher: Logits, *, tau: Scalar = 1.0) -> Nats:
  """KL(teacher || student) over the vocabulary, in nats per position.

  Args:
    student: [*B, V] logits; gradients flow.
    teacher: [*B, V] logits; stopping gradients is the caller's job.
    tau: temperature dividing both logits; no tau**2 factor is applied here.
  Returns: [*B], unreduced.
  References: Hinton, Vinyals & Dean, 2015, arXiv:1503.02531, Sec. 2.
  Example:
    >>> student = jnp.log(jnp.array([[0.5, 0.5], [0.2, 0.8]]))
    >>> teacher = jnp.log(jnp.array([[0.5, 0.5], [0.8, 0.2]]))
    >>> print(forward_kl(student, teacher).round(4))
    [0.     0.8318]
  """
  return kl(teacher, student, tau)


@jax.jit
def reverse_kl(student: Logits, teacher: Logits, *, tau: Scalar = 1.0) -> Nats:
  """KL(student || teacher) over the vocabulary, in nats per position.

  Args:
    student: [*B, V] logits; gradients flow through both places of q.
    teacher: [*B, V] logits; stopping gradients is the caller's job.
    tau: temperature dividing both logits; no tau**2 factor is applied here.
  Returns: [*B], unreduced.
  References: Gu, Dong, Wei & Huang, 2023, arXiv:2306.08543.
  Example:
    >>> student = jnp.log(jnp.array([0.9, 0.1]))
    >>> teacher = jnp.log(jnp.array([0.5, 0.5]))
    >>> print(f"{reverse_kl(student, teacher):.4f}")
    0.3681
  """
  return kl(student, teacher, tau)


@jax.jit
def jeffreys(
  student: Logits,
  teacher: Logits,
  *,
  lam: Scalar = 0.5,
  tau: Scalar = 1.0,
) -> Nats:
  """(1 - lam) KL(teacher || student) + lam KL(student || teacher), in nats.

  Args:
    student: [*B, V] logits; gradients flow.
    teacher: [*B, V] logits; stopping gradients is the caller's job.
    lam: weight of the reverse KL, in [0, 1]; Jeffreys' own sum of the two is
      twice the value at 0.5.
    tau: temperature dividing both logits; no tau**2 factor is applied here.
  Returns: [*B], unreduced, nats per position.
  References: Jeffreys, 1946, doi:10.1098/rspa.1946.0056.
  Example:
    >>> student = jnp.log(jnp.array([0.9, 0.1]))
    >>> teacher = jnp.log(jnp.array([0.5, 0.5]))
    >>> print(f"{jeffreys(student, teacher):.4f}")
    0.4394
  """
  student, teacher = widened(student, teacher)
  forward, reverse = kl(teacher, student, tau), kl(student, teacher, tau)
  return (1 - lam) * forward + lam * reverse


def _log1p_ratio(w, log1p):
  """log(1 + w) / w, right at 0 together with its derivative."""
  near = jnp.abs(w) < 1e-3
  series = 1 - w * (1 / 2 - w * (1 / 3 - w * (1 / 4 - w / 5)))
  return jnp.where(near, series, log1p / jnp.where(near, 1, w))


def _jsd_slopes(q, p, log_q, log_p, beta):
  """Slopes of JSD / (beta (1 - beta)); their sum is its term.

  They are `q log(q/m) / beta` and `p log(p/m) / (1 - beta)`, less `q` and `p`
  times a constant where that keeps them finite. The side with the larger share
  of the mixture m is `near` to it, and its logarithm is divided by the other's
  share `t`. With `u = log far/near`, m/near is 1 + w with w = t (e^u - 1).
  """
  swap = beta > 0.5
  t = jnp.where(swap, 1 - beta, beta)
  near, far = jnp.where(swap, p, q), jnp.where(swap, q, p)
  u = jnp.where(swap, log_q - log_p, log_p - log_q)
  # Past the cap (e^80 in float32) u - log(1 + w) is -log(t), unless t is 0.
  limits = jnp.finfo(u.dtype)
  cap = 0.9 * jnp.log(limits.max)
  ratio = (far - near) / jnp.maximum(near, limits.tiny)
  w = t * jnp.where(u > cap, jnp.exp(cap), ratio)
  log1p = jnp.log1p(w)
  # log(near/m) = -log(1 + w), and near * w / t = far - near.
  near_slope = (near - far) * _log1p_ratio(w, log1p)
  far_slope = far * (jnp.where(w > 1, jnp.minimum(u, cap), u) - log1p) / (1 - t)
  return (
    jnp.where(swap, far_slope, near_slope),
    jnp.where(swap, near_slope, far_slope),
  )


def _jsd_term(q, p, log_q, log_p, beta):
  a, b = _jsd_slopes(q, p, log_q, log_p, beta)
  return a + b


_JSD = Separable(_jsd_term, _jsd_slopes)


@jax.jit(static_argnames="rescale")
def jsd(
  student: Logits,
  teacher: Logits,
  *,
  beta: Scalar = 0.5,
  tau: Scalar = 1.0,
  rescale: bool = False,
) -> Nats:
  """Generalised Jensen-Shannon divergence, in nats per position.

  `beta KL(p || m) + (1 - beta) KL(q || m)` with `m = beta p + (1 - beta) q`:
  beta is the share of the *teacher*. It vanishes at both ends, in proportion to
  forward KL as beta -> 0 and to reverse KL as beta -> 1.

  Args:
    student: [*B, V] logits; gradients flow, also through m.
    teacher: [*B, V] logits; stopping gradients is the caller's job.
    beta: share of the teacher in the mixture, in [0, 1].
    tau: temperature dividing both logits; no tau**2 factor is applied here.
    rescale: divides by beta (1 - beta), so that the ends *are* forward KL
      (beta = 0) and reverse KL (beta = 1), reached without a jump; then 0.5
      gives four times the plain value.
  Returns: [*B], unreduced; at most log 2 unless rescaled.
  References: Agarwal et al., 2023, arXiv:2306.13649.
  Example:
    >>> student = jnp.log(jnp.array([0.9, 0.1]))
    >>> teacher = jnp.log(jnp.array([0.5, 0.5]))
    >>> print(f"{jsd(student, teacher, beta=0.5):.4f}")
    0.1017
    >>> print(f"{jsd(student, teacher, beta=0.0, rescale=True):.4f}")
    0.5108
  """
  value = _JSD(student, teacher, tau, beta)
  return value if rescale else beta * (1 - beta) * value


def _tv_term(q, p, log_q, log_p):
  del log_q, log_p
  return jnp.abs(p - q) / 2


def _tv_slopes(q, p, log_q, log_p):
  del log_q, log_p
  sign = jnp.where(q > p, 0.5, jnp.where(q < p, -0.5, 0.0)).astype(q.dtype)
  return sign * q, -sign * p


_TV = Separable(_tv_term, _tv_slopes)


@jax.jit
def total_variation(
  student: Logits, teacher: Logits, *, tau: Scalar = 1.0
) -> Nats:
  """Total variation distance, half the sum of |p - q|, in [0, 1].

  One less this is the rate at which speculative decoding accepts the student's
  tokens. Where p and q of an id are equal, its subgradient is taken as 0.

  Args:
    student: [*B, V] logits; gradients flow.
    teacher: [*B, V] logits; stopping gradients is the caller's job.
    tau: temperature dividing both logits.
  Returns: [*B], unreduced, without unit.
  References: Wen et al., 2023, arXiv:2307.15190; Leviathan et al., 2022,
    arXiv:2211.17192 (acceptance).
  Example:
    >>> student = jnp.log(jnp.array([0.9, 0.1]))
    >>> teacher = jnp.log(jnp.array([0.5, 0.5]))
    >>> print(f"{total_variation(student, teacher):.4f}")
    0.4000
  """
  return _TV(student, teacher, tau)


def _to_mixture(q, p, log_q, log_p, skew):
  """log p/m and (1 - skew) q/m, for m = skew p + (1 - skew) q.

  From m/p = skew + (1 - skew) q/p, which takes one logarithm. Where that is
  next to nothing, so is skew, and the logarithms' difference has the digits.
  """
  ratio = q / jnp.maximum(p, jnp.finfo(p.dtype).tiny)
  from_q = (1 - skew) * ratio
  mix = skew + from_q
  none = mix < 1e-30
  logs = jnp.log1p(-skew) + (log_q - log_p)
  log_mix = jnp.where(none, logs, jnp.log(jnp.where(none, 1, mix)))
  return -log_mix, jnp.where(none, 1, from_q / jnp.where(none, 1, mix))


def _skew_term(q, p, log_q, log_p, skew):
  return p * _to_mixture(q, p, log_q, log_p, skew)[0]


def _skew_slopes(q, p, log_q, log_p, skew):
  log_ratio, share = _to_mixture(q, p, log_q, log_p, skew)
  return -p * share, p * (log_ratio + share)


def _skew_reverse_term(q, p, log_q, log_p, skew):
  return _skew_term(p, q, log_p, log_q, skew)


def _skew_reverse_slopes(q, p, log_q, log_p, skew):
  b, a = _skew_slopes(p, q, log_p, log_q, skew)
  return a, b


def _skew_reverse_held_slopes(q, p, log_q, log_p, skew):
  """Those of the reverse one, its mixture's q without gradient."""
  log_ratio, share = _to_mixture(p, q, log_p, log_q, skew)
  return q * log_ratio, -q * share


_SKEW_FORWARD = Separable(_skew_term, _skew_slopes)
_SKEW_REVERSE = {
  "live": Separable(_skew_reverse_term, _skew_reverse_slopes),
  "held": Separable(_skew_reverse_term, _skew_reverse_held_slopes),
}


@jax.jit
def skew_forward_kl(
  student: Logits,
  teacher: Logits,
  *,
  skew: Scalar = 0.1,
  tau: Scalar = 1.0,
) -> Nats:
  """KL(p || skew p + (1 - skew) q), p the teacher, in nats per position.

  Args:
    student: [*B, V] logits; gradients flow.
    teacher: [*B, V] logits; stopping gradients is the caller's job.
    skew: share of the teacher in the mixture, in [0, 1); the paper's alpha. 0
      gives forward KL.
    tau: temperature dividing both logits; no tau**2 factor is applied here.
  Returns: [*B], unreduced; at most -log(skew).
  References: Ko et al., 2024, arXiv:2402.03898.
  Example:
    >>> student = jnp.log(jnp.array([0.9, 0.1]))
    >>> teacher = jnp.log(jnp.array([0.5, 0.5]))
    >>> print(f"{skew_forward_kl(student, teacher):.4f}")
    0.3653
  """
  return _SKEW_FORWARD(student, teacher, tau, skew)


@jax.jit(static_argnames="mixture")
def skew_reverse_kl(
  student: Logits,
  teacher: Logits,
  *,
  skew: Scalar = 0.1,
  tau: Scalar = 1.0,
  mixture: Literal["live", "held"] = "live",
) -> Nats:
  """KL(q || (1 - skew) p + skew q), q the student, in nats per position.

  Args:
    student: [*B, V] logits; gradients flow, also through q in the mixture.
    teacher: [*B, V] logits; stopping gradients is the caller's job.
    skew: share of the student in the mixture, in [0, 1); the paper's alpha. 0
      gives reverse KL.
    tau: temperature dividing both logits; no tau**2 factor is applied here.
    mixture: "held" lets no gradient through q in the mixture, as DistiLLM-2's
      code does; the value is the same.
  Returns: [*B], unreduced; at most -log(skew).
  References: Ko et al., 2024, arXiv:2402.03898; Ko et al., 2025 (DistiLLM-2),
    arXiv:2503.07067.
  Example:
    >>> student = jnp.log(jnp.array([0.9, 0.1]))
    >>> teacher = jnp.log(jnp.array([0.5, 0.5]))
    >>> print(f"{skew_reverse_kl(student, teacher):.4f}")
    0.3071
  """
  return _SKEW_REVERSE[mixture](student, teacher, tau, skew)
