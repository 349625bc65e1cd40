# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Parts of the vocabulary on which two distributions are compared.

Each function gives logits for any divergence of `jdistill.losses`: ids that are
left out are -inf, which the divergences remove from both sides. Nothing is
gathered, so that the vocabulary may be sharded.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jdistill.losses.entropy import is_target
from jdistill.losses.pairs import (
  compute_dtype,
  log_partition,
  normalise,
  widened,
)
from jdistill.types import Ids, Logits, Scalar


@jax.jit(static_argnames=("top", "rest", "of"))
def on_top(
  student: Logits,
  teacher: Logits,
  *,
  top: int = 100,
  rest: Literal["drop", "bucket"] = "drop",
  of: Literal["student", "teacher"] = "student",
) -> tuple[Float[Array, "*B W"], Float[Array, "*B W"]]:
  """Both logits on the most probable ids of one side, for any divergence.

  Args:
    student: [*B, V] logits; gradients flow.
    teacher: [*B, V] logits; stopping gradients is the caller's job.
    top: ids that are kept, at most V; ids as probable as the last one are kept
      too.
    rest: "drop" renormalises over what is kept; "bucket" adds up the others'
      probabilities as one more id.
    of: whose most probable ids they are.
  Returns: student and teacher logits, [*B, V], or [*B, V + 1] with the bucket
    last; -inf where an id is left out. They are meant for temperature 1.
  References: Shenfeld et al., 2026 (SDFT), arXiv:2601.19897; Hübotter et al.,
    2026 (SDPO, the bucket), arXiv:2601.20802.
  Example:
    >>> logits = jnp.log(jnp.array([0.5, 0.3, 0.1, 0.1]))
    >>> student, _ = on_top(logits, logits, top=2, rest="bucket")
    >>> print(" ".join(f"{x:.2f}" for x in jnp.exp(student)))
    0.50 0.30 0.00 0.00 0.20
  """
  student, teacher = widened(student, teacher)
  judge = jax.lax.stop_gradient(student if of == "student" else teacher)
  kept = jax.lax.top_k(judge, min(top, judge.shape[-1]))[0]
  # A slice of the last one would have XLA sort the whole row (on a CPU, 100
  # times slower).
  inside = judge >= jnp.min(kept, axis=-1, keepdims=True)

  def cut(logits):
    own = jnp.where(inside, logits, -jnp.inf)
    if rest == "drop":
      return own
    others = jnp.where(inside, -jnp.inf, logits)
    highest, log_sum = log_partition(others, 1.0)
    empty = jnp.all(others == -jnp.inf, axis=-1)
    bucket = jnp.where(empty, -jnp.inf, highest + log_sum)
    return jnp.concatenate([own, bucket[..., None]], axis=-1)

  return cut(student), cut(teacher)


@jax.jit(static_argnames="top")
def mass_gate(
  logits: Logits,
  targets: Ids,
  low: Float[Array, "*B"],
  high: Float[Array, "*B"],
  *,
  top: int = 64,
  width: Scalar = 0.02,
) -> Float[Array, "*B V"]:
  """Log of a soft gate on ids by the mass of those at least as probable.

  With c the mass of an id and all more probable ones, the gate is `sigmoid((c -
  low) / width) sigmoid((high - c) / width)`: about 1 where low < c < high. It
  is added to logits, so that a softmax renormalises over what it lets through.

  The `top` most probable ids have their exact c. All others share one, halfway
  between the mass of the top and 1, so that the vocabulary is never sorted: the
  cost is a `top_k` and a scatter of `top` numbers per token.

  Args:
    logits: [*B, V] whose order and masses count; no gradient.
    targets: [*B] ids that always pass, with gate 1.
    low: [*B] in [0, 1]; gradients flow.
    high: [*B] in [0, 1]; gradients flow.
    top: ids with their own mass, at most V.
    width: of the gate's flanks, as a mass.
  Returns: [*B, V] log of the gate, at most 0, finite.
  References: Liu et al., 2024, arXiv:2407.10068 (which clips by the mass; the
    soft gate and the shared tail are jdistill's).
  Example:
    >>> logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
    >>> y, low, high = jnp.array(3), jnp.array(0.1), jnp.array(0.9)
    >>> gate = jnp.exp(mass_gate(logits, y, low, high, top=3))
    >>> print(" ".join(f"{x:.2f}" for x in gate))
    1.00 0.99 0.08 1.00
  """
  logits = jax.lax.stop_gradient(logits)
  dtype = compute_dtype(logits)
  size = logits.shape[-1]
  probs = normalise(logits, jnp.ones((), dtype)).probs
  flat = probs.reshape(-1, size)
  values, ids = jax.lax.top_k(flat, min(top, size))
  mass = jnp.minimum(jnp.cumsum(values, axis=-1), 1)
  shared = jnp.broadcast_to((mass[:, -1:] + 1) / 2, flat.shape)
  rows = jnp.arange(flat.shape[0])[:, None]
  mass = shared.at[rows, ids].set(mass).reshape(probs.shape)
  width = jnp.asarray(width, dtype)
  above = jax.nn.log_sigmoid((mass - low.astype(dtype)[..., None]) / width)
  below = jax.nn.log_sigmoid((high.astype(dtype)[..., None] - mass) / width)
  return jnp.where(is_target(logits, targets), 0, above + below)
