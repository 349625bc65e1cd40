# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Where a loss counts and how strongly: ids that both know, weights of tokens.

Weights never carry a gradient.
"""

import fractions
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jdistill.losses.entropy import cross_entropy, entropy
from jdistill.losses.pairs import compute_dtype, kl
from jdistill.types import Ids, Logits, Scalar, UserError


def match_vocab(
  student: Float[Array, "*B V"],
  teacher: Float[Array, "*B W"],
  *,
  vocab_size: int,
) -> tuple[jax.Array, jax.Array]:
  """Cuts both logits to the ids that both have, before any softmax.

  Heads of one model family are padded to different sizes; the ids past the
  tokenizer's mean nothing and must not take part.

  Args:
    student: [*B, V] logits.
    teacher: [*B, W] logits.
    vocab_size: number of ids, from 0, that mean the same to both: the size of
      the tokenizer. There is no default: equal sizes do not prove it, and a
      large difference of sizes means two tokenizers.
  Returns: student and teacher logits, [*B, vocab_size] each.
  Raises: UserError if either has fewer ids.
  References: none.
  Example:
    >>> student, teacher = jnp.zeros((2, 5)), jnp.zeros((2, 8))
    >>> student, teacher = match_vocab(student, teacher, vocab_size=4)
    >>> student.shape, teacher.shape
    ((2, 4), (2, 4))
  """
  for name, logits in (("student", student), ("teacher", teacher)):
    if not 1 <= vocab_size <= logits.shape[-1]:
      raise UserError(
        f"match_vocab: vocab_size is {vocab_size}, but the {name} has "
        f"{logits.shape[-1]} ids; expected a number that both have (student "
        f"{student.shape[-1]}, teacher {teacher.shape[-1]}). Different "
        "tokenizers need a method that aligns their texts."
      )
  return student[..., :vocab_size], teacher[..., :vocab_size]


@jax.jit(static_argnames="kind")
def token_scores(
  student: Logits,
  teacher: Logits,
  targets: Ids,
  *,
  kind: Literal["entropy", "certainty", "target_prob", "correct", "kl"],
  tau: Scalar = 1.0,
) -> Float[Array, "*B"]:
  """What tokens may be weighed by, each at least 0, without gradient.

  Args:
    student: [*B, V] logits; only "kl" looks at them.
    teacher: [*B, V] logits.
    targets: [*B] ids in [0, V); "target_prob" and "correct" look at them.
    kind: of the teacher's distribution, "entropy" (a share of log V, in [0,
      1]), "certainty" (1 - entropy), "target_prob" (the target's probability),
      "correct" (1 where the target is the most probable id, else 0); "kl" is
      KL(teacher || student) in nats.
    tau: temperature dividing the logits.
  Returns: [*B], unreduced; `mean_one` makes weights of it.
  References: none; weights of this kind are part of many methods.
  Example:
    >>> logits = jnp.log(jnp.array([[0.9, 0.1], [0.5, 0.5]]))
    >>> y = jnp.array([0, 1])
    >>> print(token_scores(logits, logits, y, kind="entropy").round(2))
    [0.47 1.  ]
  """
  student, teacher = jax.lax.stop_gradient((student, teacher))
  dtype = compute_dtype(student, teacher)
  if kind in ("entropy", "certainty"):
    share = entropy(teacher, tau=tau).astype(dtype) / jnp.log(
      jnp.asarray(max(teacher.shape[-1], 2), dtype)
    )
    return share if kind == "entropy" else jnp.maximum(1 - share, 0)
  if kind == "target_prob":
    return jnp.exp(-cross_entropy(teacher.astype(dtype) / tau, targets))
  if kind == "correct":
    return (jnp.argmax(teacher, axis=-1) == targets).astype(dtype)
  return kl(teacher, student, tau)


@jax.jit
def mean_one(
  scores: Float[Array, "*B"], mask: Float[Array, "*B"] | Bool[Array, "*B"]
) -> Float[Array, "*B"]:
  """Weights in proportion to scores, with mean 1 where the mask is 1.

  The mean is over all of the array, so weights that must not depend on the
  split into microbatches are made from the whole global batch.

  Args:
    scores: [*B], at least 0: `token_scores`, positions, or your own.
    mask: [*B], 1 where the loss counts.
  Returns: [*B] without gradient, 0 where the mask is 0; the mask itself if all
    scores under it are 0.
  References: none.
  Example:
    >>> print(mean_one(jnp.array([1.0, 3.0, 9.0]), jnp.array([1.0, 1.0, 0.0])))
    [0.5 1.5 0. ]
  """
  dtype = compute_dtype(scores)
  mask = mask.astype(dtype)
  # Not a product: what is masked may be anything, infinite or NaN included.
  kept = jnp.where(mask > 0, scores.astype(dtype), 0) * mask
  total = jnp.sum(kept)
  weights = kept * (jnp.sum(mask) / jnp.where(total > 0, total, 1))
  return jax.lax.stop_gradient(jnp.where(total > 0, weights, mask))


@jax.jit(static_argnames="fraction")
def top_fraction(
  scores: Float[Array, "*B"],
  mask: Float[Array, "*B"] | Bool[Array, "*B"],
  *,
  fraction: float,
) -> Float[Array, "*B"]:
  """The mask, kept where a score is among the highest; no gradient.

  Of the n scores under the mask those not below the (1 - fraction) quantile
  are kept, the quantile interpolated linearly: the highest `1 + floor(fraction
  (n - 1))`. Scores equal to the lowest of them are kept too, all of them. The
  scores are those of all of the array; for the global batch, give that.

  Args:
    scores: [*B], one per token.
    mask: [*B], 1 where a token counts.
    fraction: in (0, 1], taken to four digits.
  Returns: [*B], the mask where a score is kept, 0 elsewhere.
  Raises: UserError for a fraction outside (0, 1].
  References: Hu et al., 2025 (AdaSPEC), arXiv:2510.19779; Lin et al., 2024
    (Rho-1), arXiv:2404.07965.
  Example:
    >>> mask = jnp.array([1.0, 1.0, 1.0, 0.0])
    >>> print(top_fraction(jnp.array([3.0, 1.0, 2.0, 9.0]), mask, fraction=0.5))
    [1. 0. 1. 0.]
  """
  if not 0 < fraction <= 1:
    raise UserError(f"fraction is {fraction}; expected more than 0, at most 1")
  mask = jax.lax.stop_gradient(mask).astype(compute_dtype(scores))
  counts = mask > 0
  scores = jnp.where(counts, jax.lax.stop_gradient(scores), -jnp.inf)
  # Whole numbers: a float product is off by one at the ranks that matter.
  share = fractions.Fraction(fraction).limit_denominator(10_000)
  above = jnp.maximum(jnp.sum(counts), 1) - 1
  whole, part = jnp.divmod(above, share.denominator)
  rank = whole * share.numerator + part * share.numerator // share.denominator
  ordered = jnp.sort(scores, axis=None, descending=True)
  return jnp.where(counts & (scores >= ordered[rank]), mask, 0)
