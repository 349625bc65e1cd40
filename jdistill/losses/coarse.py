# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Distributions over fewer ids, for a teacher of whom only some are known.

Student and teacher are both written as logits over the K ids that are listed,
and in most cases one more, the rest. Whatever is defined for two distributions
is then defined for these, and merging ids never makes a divergence larger.
"""

from typing import get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jdistill import types
from jdistill.types import Ids, Logits

NO_MASS = -1e4
"""The logit of an id whose probability is 0; -inf would remove it from both
sides."""

RESTS = get_args(types.Rest)


@jax.jit
def coarse(
  student: Logits, teacher: types.Sparse, targets: Ids | None = None
) -> tuple[Float[Array, "*B W"], Float[Array, "*B W"]]:
  """Both as logits over the ids that the teacher lists, and the rest.

  With p_k the listed probabilities of the teacher, and q_k the student's:

  - "bucket": K + 1 ids, the last one all others: p_rest against q_rest.
  - "renormalise": p_k / sum_j p_j, nothing else has mass; q in full.
  - "renormalise_both": both within the K ids; the student's mass elsewhere is
    free.
  - "gold": p_rest is added to the target's p; q in full.
  - "drawn": p_k is the share of k among the draws; q in full. Linear in p, so
    that what is linear in p, such as forward KL but for the teacher's entropy,
    has the right expectation, and its gradient too.

  Args:
    student: [*B, V] logits; gradients flow, also through the rest, which is the
      exact sum of what is not listed.
    teacher: what is known, [*B, K]; ids that the student does not have are left
      out of both.
    targets: [*B] the ids that came, for "gold" alone.
  Returns: both, [*B, K], [*B, K + 1] or, with "gold", [*B, K + 2].
  References: Anshumann et al., 2025, arXiv:2503.16870 ("drawn", and what the
    others do to a student).
  Example:
    >>> student = jnp.log(jnp.array([0.5, 0.3, 0.1, 0.1]))
    >>> ids, probs = jnp.array([2, 0]), jnp.log(jnp.array([0.6, 0.2]))
    >>> said = types.Sparse(ids, probs, jnp.log(0.2), "bucket")
    >>> q, p = coarse(student, said)
    >>> print(" ".join(f"{x:.2f}" for x in jax.nn.softmax(q)))
    0.10 0.50 0.40
    >>> print(" ".join(f"{x:.2f}" for x in jax.nn.softmax(p)))
    0.60 0.20 0.20
  """
  student = student.astype(jnp.promote_types(student.dtype, jnp.float32))
  size = student.shape[-1]
  known = teacher.log_probs.astype(student.dtype)
  known = jnp.where(teacher.ids < size, known, -jnp.inf)
  # Places without an id point behind the vocabulary, where nothing is taken.
  ids = jnp.where(known == -jnp.inf, size, teacher.ids)
  listed = jnp.take_along_axis(
    student, ids, -1, mode="fill", fill_value=-jnp.inf
  )
  if teacher.rest == "renormalise_both":
    return listed, known
  if teacher.rest == "bucket":
    last = teacher.log_rest
    assert last is not None, "the mass of the rest is not known"
  else:
    last = jnp.full(known.shape[:-1], NO_MASS)
  last = last.astype(student.dtype)
  if teacher.rest == "gold":
    assert targets is not None, "gold takes the targets"
    assert teacher.log_rest is not None, "the mass of the rest is not known"
    ids, listed, known = _with_target(student, teacher, targets, ids, known)
  elif teacher.rest in ("renormalise", "drawn"):
    known = jax.nn.log_softmax(known)
  others = jax.nn.logsumexp(_without(student, ids), axis=-1)
  return (
    jnp.concatenate([listed, others[..., None]], -1),
    jnp.concatenate([known, last[..., None]], -1),
  )


def _with_target(student, teacher, targets, ids, known):
  """With one more place for the target, used where it is not listed."""
  size = student.shape[-1]
  there = ids == targets[..., None]
  rest = teacher.log_rest.astype(student.dtype)
  known = jnp.where(there, jnp.logaddexp(known, rest[..., None]), known)
  inside = there.any(-1)
  extra = jnp.where(inside, size, targets)[..., None]
  ids = jnp.concatenate([ids, extra], -1)
  known = jnp.concatenate(
    [known, jnp.where(inside, -jnp.inf, rest)[..., None]], -1
  )
  listed = jnp.take_along_axis(
    student, ids, -1, mode="fill", fill_value=-jnp.inf
  )
  return ids, listed, known


def _without(logits: jax.Array, ids: jax.Array) -> jax.Array:
  """The logits, -inf at `ids`; those behind the vocabulary change nothing."""
  flat, rows = (
    logits.reshape(-1, logits.shape[-1]),
    ids.reshape(-1, ids.shape[-1]),
  )
  at = jnp.arange(len(rows))[:, None]
  return flat.at[at, rows].set(-jnp.inf, mode="drop").reshape(logits.shape)
