# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a student is worth as the draft of its teacher."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jdistill.losses.divergences import total_variation
from jdistill.losses.pairs import compute_dtype
from jdistill.types import Logits, Scalar


@jax.jit
def acceptance(
  student: Logits, teacher: Logits, *, tau: Scalar = 1.0
) -> Float[Array, "*B"]:
  """Chance that a token drawn by the student is accepted: sum of min(p, q).

  Args:
    student: [*B, V] logits.
    teacher: [*B, V] logits.
    tau: temperature dividing both logits.
  Returns: [*B], unreduced, in [0, 1]: 1 less the total variation distance.
  References: Leviathan, Kalman & Matias, 2022, arXiv:2211.17192, Corollary 3.6.
  Example:
    >>> student = jnp.log(jnp.array([0.9, 0.1]))
    >>> teacher = jnp.log(jnp.array([0.5, 0.5]))
    >>> print(f"{acceptance(student, teacher):.4f}")
    0.6000
  """
  return 1 - total_variation(student, teacher, tau=tau)


@functools.partial(jax.jit, static_argnames="guesses")
def block_efficiency(
  accepted: Float[Array, "*B T"],
  log_ratio: Float[Array, "*B T"],
  mask: Float[Array, "*B T"] | Bool[Array, "*B T"],
  segment_ids: Int[Array, "*B T"] | None = None,
  *,
  guesses: int,
) -> tuple[Float[Array, "*B T"], Float[Array, "*B T"]]:
  """Tokens that one pass of the teacher gives, its own one included.

  On text that the teacher wrote, an unbiased estimate for each place: what
  follows there is weighed by min(1, q / p), the chance that the student guesses
  it and is accepted over the chance that the teacher wrote it.

  Args:
    accepted: [*B, T] as from `acceptance`, of each target.
    log_ratio: [*B, T] log q - log p of the targets.
    mask: [*B, T] 1 where a target counts.
    segment_ids: [*B, T] documents; None for one document a row.
    guesses: of the student, in a row, for each pass.
  Returns: (tokens, weight), [*B, T] each: from 1 to guesses + 1 where the
    weight is 1, and 0 where fewer than `guesses` targets are left.
  References: Leviathan, Kalman & Matias, 2022, arXiv:2211.17192, Sec. 3.1;
    without its assumption that acceptances are independent.
  Example:
    >>> always, none = jnp.ones(4), jnp.zeros(4)
    >>> print(*block_efficiency(always, none, jnp.ones(4), guesses=3))
    [4. 4. 0. 0.] [1. 1. 0. 0.]
  """
  dtype = compute_dtype(accepted, log_ratio)
  length = mask.shape[-1]
  if segment_ids is None:
    segment_ids = jnp.zeros(mask.shape, jnp.int32)
  weight = jnp.ones(mask.shape, dtype)
  tokens, reached = weight, weight
  for ahead in range(guesses):

    def there(x, ahead=ahead):
      pad = [(0, 0)] * (x.ndim - 1) + [(0, ahead)]
      return jnp.pad(x, pad)[..., ahead : ahead + length]

    same = there(segment_ids + 1) == segment_ids + 1  # 0 beyond the row
    weight = weight * same * (there(mask) != 0)
    tokens = tokens + reached * there(accepted.astype(dtype))
    kept = jnp.exp(jnp.minimum(log_ratio.astype(dtype), 0))
    reached = reached * there(kept)
  return jnp.where(weight != 0, tokens, 0), weight
