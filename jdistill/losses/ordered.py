# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Distributions over ids that do not mean the same, compared by their shape."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jdistill.losses.pairs import compute_dtype
from jdistill.types import Scalar


@jax.jit
def sorted_l1(
  student: Float[Array, "*B V"], teacher: Float[Array, "*B W"]
) -> Float[Array, "*B"]:
  """L1 distance of two lists of probabilities, each in descending order.

  The shorter list is filled up with zeros. It is the Wasserstein distance of
  the two distributions where all ids are equally far apart.

  Args:
    student: [*B, V] probabilities, not logits; gradients flow.
    teacher: [*B, W] likewise; stopping gradients is the caller's job.
  Returns: [*B], unreduced, no unit.
  References: Boizard et al., 2024, arXiv:2402.12030, Eq. 5.
  Example:
    >>> student, teacher = jnp.array([0.2, 0.8]), jnp.array([0.7, 0.0, 0.3])
    >>> print(f"{sorted_l1(student, teacher):.4f}")
    0.2000
  """
  dtype = compute_dtype(student, teacher)
  q, p = (jnp.sort(x.astype(dtype), axis=-1) for x in (student, teacher))
  # In ascending order the largest are last: fill up in front.
  width = max(q.shape[-1], p.shape[-1])

  def filled(x):
    front = [(0, 0)] * (x.ndim - 1) + [(width - x.shape[-1], 0)]
    return jnp.pad(x, front)

  return jnp.abs(filled(q) - filled(p)).sum(-1)


@jax.jit
def jsd_of_masses(
  student: Float[Array, "*B V"],
  teacher: Float[Array, "*B V"],
  *,
  beta: Scalar = 0.5,
) -> Float[Array, "*B"]:
  """Generalised Jensen-Shannon divergence of masses that need not sum to 1.

  `beta KL(p || m) + (1 - beta) KL(q || m)` with `m = beta p + (1 - beta) q`,
  each KL the plain sum `p log(p / m)`; masses count as 1e-8 at least.

  Args:
    student: [*B, V] masses q, at least 0; gradients flow.
    teacher: [*B, V] masses p likewise.
    beta: share of the teacher, strictly between 0 and 1.
  Returns: [*B], unreduced.
  References: Agarwal et al., 2024, arXiv:2306.13649, Sec. 3.
  Example:
    >>> student, teacher = jnp.array([0.5, 0.25]), jnp.array([0.25, 0.5])
    >>> print(f"{jsd_of_masses(student, teacher):.4f}")
    0.0425
  """
  dtype = compute_dtype(student, teacher)
  q, p = (jnp.maximum(x.astype(dtype), 1e-8) for x in (student, teacher))
  mixed = jnp.log(beta * p + (1 - beta) * q)
  one = (p * (jnp.log(p) - mixed)).sum(-1)
  return beta * one + (1 - beta) * (q * (jnp.log(q) - mixed)).sum(-1)
