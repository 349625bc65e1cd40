# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Adaptive KL: forward where the head of the vocabulary is wrong, else reverse.

The head of a distribution is found without sorting the vocabulary, by narrowing
an interval of probabilities in about a dozen passes over it.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from jdistill.losses.pairs import kl, normalise_pair, widened
from jdistill.types import Logits, Nats, Scalar


def _integers(dtype) -> jnp.dtype:
  return jnp.dtype(jnp.int64 if dtype == jnp.float64 else jnp.int32)


def crossing(
  probs: jax.Array, mu: jax.Array, *, strictly: bool
) -> tuple[jax.Array, jax.Array]:
  """`low`, `high` [*B, 1] around the probability where the mass crosses mu.

  Going from the largest probability down, the mass reaches mu (`strictly`:
  exceeds it) at the ids with `low < probs <= high`: one id, or several of
  exactly equal probability. Probabilities whose sums float addition cannot tell
  apart count as equal.

  Not-negative floats are ordered like their bits, so the interval is one of
  integers: it is cut by linear interpolation of the mass and by halving, in
  turn, until every row is done.
  """
  integer = _integers(probs.dtype)

  def to_float(bits):
    return jax.lax.bitcast_convert_type(bits, probs.dtype)

  def unfinished(low, high, mass_low, mass_high):
    # Each id in the interval has more than `low`, so below 2 low it holds one.
    several = mass_low - mass_high > 1.5 * to_float(low)
    return several & (high - low > 1)

  def narrow(carry):
    turn, low, high, mass_low, mass_high = carry
    share = (mass_low - mu) / (mass_low - mass_high)
    share = jnp.where(turn % 2 == 0, jnp.clip(share, 0, 1), 0.5)
    step = (share * (high - low).astype(probs.dtype)).astype(integer)
    at = low + jnp.clip(step, 1, jnp.maximum(high - low - 1, 1))
    above = probs > to_float(at)
    mass = jnp.sum(jnp.where(above, probs, 0), axis=-1, keepdims=True)
    up = (mass > mu) if strictly else (mass >= mu)
    active = unfinished(low, high, mass_low, mass_high)
    up, down = active & up, active & ~up
    return (
      turn + 1,
      jnp.where(up, at, low),
      jnp.where(down, at, high),
      jnp.where(up, mass, mass_low),
      jnp.where(down, mass, mass_high),
    )

  top = jnp.max(probs, axis=-1, keepdims=True)
  # Ids up to the sought one hold 1 - mu or more, so it has 1 / V of that.
  floor = jnp.minimum((1 - mu) / (2 * probs.shape[-1]), top / 2)
  low = jax.lax.bitcast_convert_type(jnp.maximum(floor, 0), integer)
  high = jax.lax.bitcast_convert_type(top, integer)
  start = (jnp.int32(0), low, high, jnp.ones_like(top), jnp.zeros_like(top))
  _, low, high, _, _ = jax.lax.while_loop(
    lambda carry: jnp.any(unfinished(*carry[1:])), narrow, start
  )
  return to_float(low), to_float(high)


def _head_share(student, teacher, mu, tau, boundary):
  """[*B] shares of |p - q| that lie in the head and in the tail."""
  q, p = normalise_pair(student, teacher, tau)
  q, p = q.probs, p.probs
  low, high = crossing(p, mu, strictly=boundary == "tail")
  if boundary == "head":
    head = p > low
  else:
    head = (p > high) | (p == jnp.max(p, axis=-1, keepdims=True))
  gap = jnp.abs(p - q)
  in_head = jnp.sum(jnp.where(head, gap, 0), axis=-1)
  in_tail = jnp.sum(jnp.where(head, 0, gap), axis=-1)
  total = in_head + in_tail + jnp.finfo(p.dtype).tiny
  return in_head / total, in_tail / total


@jax.jit(static_argnames="boundary")
def adaptive_kl(
  student: Logits,
  teacher: Logits,
  *,
  mu: Scalar = 0.5,
  tau: Scalar = 1.0,
  boundary: Literal["head", "tail"] = "tail",
) -> Nats:
  """Forward and reverse KL, weighed by where p and q differ; nats per position.

  `g_h/(g_h + g_l) KL(p || q) + g_l/(g_h + g_l) KL(q || p)`, with g_h and g_l
  the sums of |p - q| over the head and the tail of the teacher's distribution:
  the most probable ids up to a mass of mu, and the rest. The weights carry no
  gradient; they are 0 where p and q are equal.

  Args:
    student: [*B, V] logits; gradients flow.
    teacher: [*B, V] logits; stopping gradients is the caller's job.
    mu: mass of the head, in (0, 1).
    tau: temperature dividing both logits; no tau**2 factor is applied here.
    boundary: where the id belongs with which the mass passes mu: "tail" as in
      the authors' code (except the most probable id, always of the head),
      "head" as in the paper's text, whose head has a mass of mu or more.
  Returns: [*B], unreduced.

  Departures: the code sorts, so that ids of equal probability at the boundary
  fall to either side by their position; here they stay together, on the side
  that `boundary` names (ids as probable as the most probable: in the head).

  References: Wu et al., 2024, arXiv:2404.02657.
  Example:
    >>> student = jnp.log(jnp.array([0.7, 0.2, 0.1]))
    >>> teacher = jnp.log(jnp.array([0.6, 0.3, 0.1]))
    >>> print(f"{adaptive_kl(student, teacher):.4f}")
    0.0280
  """
  student, teacher = widened(student, teacher)
  dtype = student.dtype
  to_head, to_tail = jax.lax.stop_gradient(
    _head_share(
      jax.lax.stop_gradient(student),
      jax.lax.stop_gradient(teacher),
      jax.lax.stop_gradient(jnp.asarray(mu, dtype)),
      jax.lax.stop_gradient(jnp.asarray(tau, dtype)),
      boundary,
    )
  )
  forward, reverse = kl(teacher, student, tau), kl(student, teacher, tau)
  return to_head * forward + to_tail * reverse
