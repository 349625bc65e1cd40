# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Contrastive losses: each row against the other rows of its batch.

Batch-coupled by nature: the value of a row depends on which rows it meets, so a
method that uses them declares `batch_coupled` and refuses accumulation.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jdistill.losses.features import unit
from jdistill.losses.pairs import compute_dtype
from jdistill.types import Scalar


@jax.jit(static_argnames=("similarity", "symmetric"))
def info_nce(
  student: Float[Array, "N D"],
  teacher: Float[Array, "N D"],
  *,
  tau: Scalar = 1.0,
  mask: Bool[Array, " N"] | Float[Array, " N"] | None = None,
  similarity: Literal["cosine", "dot"] = "cosine",
  symmetric: bool = False,
) -> Float[Array, " N"]:
  """-log softmax of each row's own pair among all pairs, in nats per row.

  Row i of the student is to be found among all rows of the teacher: row i is
  the positive, the other N - 1 are the negatives. log N less its mean is a
  lower bound of the mutual information.

  Args:
    student: [N, D], already pooled and projected; gradients flow.
    teacher: [N, D]; stopping gradients is the caller's job.
    tau: temperature dividing the similarities; 1 is none. Gradients flow, so it
      may be learned.
    mask: [N] true (or not 0) for rows that exist; others are nobody's
      negatives and get 0.
    similarity: "cosine", or "dot" for the inner product as it is.
    symmetric: averages with the other direction, the teacher's rows among the
      student's.
  Returns: [N], unreduced.
  References: van den Oord et al., 2018, arXiv:1807.03748; Radford et al., 2021,
    arXiv:2103.00020 (symmetric).
  Example:
    >>> rows = jnp.eye(3)
    >>> print(info_nce(rows, rows).round(4))
    [0.5514 0.5514 0.5514]
  """
  dtype = compute_dtype(student, teacher)
  student, teacher = student.astype(dtype), teacher.astype(dtype)
  if similarity == "cosine":
    student, teacher = unit(student), unit(teacher)
  scores = jnp.einsum("nd,md->nm", student, teacher) / tau
  own = jnp.diagonal(scores)
  valid = jnp.ones(own.shape, bool) if mask is None else mask != 0
  # A row that does not exist meets itself alone, which keeps it finite.
  met = valid[None, :] | jnp.eye(own.shape[0], dtype=bool)
  value = _log_sum_exp(scores, met) - own
  if symmetric:
    value = (value + _log_sum_exp(scores.T, met) - own) / 2
  return jnp.where(valid, value, 0)


def _log_sum_exp(scores, met):
  return jax.nn.logsumexp(jnp.where(met, scores, -jnp.inf), axis=-1)
