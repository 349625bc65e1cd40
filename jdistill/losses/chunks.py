# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs of tokens that stand for the same text under two tokenizers.

A chunk is a number from 1 in each row, at each of its tokens; 0 belongs to
none. Sums over chunks are segment sums: no matrix of tokens and chunks exists.
"""

import functools
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num, Shaped

from jdistill.losses.pairs import compute_dtype
from jdistill.types import Scalar

LogLikelihoods: TypeAlias = Float[Array, "*B"]
Difference: TypeAlias = Literal[
  "binary_ce",
  "reverse_binary_kl",
  "binary_kl_limit",
  "abs",
  "abs_exp",
  "renyi",
  "k2",
  "k3",
]
_EPSILON = 1e-6


@functools.partial(jax.jit, static_argnames="num")
def chunk_sums(
  values: Num[Array, "B T"], chunks: Int[Array, "B T"], *, num: int
) -> Num[Array, "B C"]:
  """Sums of values over the tokens of each chunk.

  Args:
    values: [B, T]; gradients flow.
    chunks: [B, T] from 0 to `num`; what is in no chunk is 0.
    num: C, the most chunks that a row can have.
  Returns: [B, C], chunk 1 first; 0 for chunks without tokens.
  References: Minixhofer et al., 2025, arXiv:2503.20083, Sec. 3.
  Example:
    >>> chunk_sums(jnp.ones((1, 4)), jnp.array([[1, 1, 0, 3]]), num=3)
    Array([[2., 0., 1.]], dtype=float32)
  """

  def one(values, chunks):
    return jax.ops.segment_sum(values, chunks, num_segments=num + 1)[1:]

  return jax.vmap(one)(values, chunks)


@jax.jit
def chunk_ends(chunks: Int[Array, "B T"]) -> Bool[Array, "B T"]:
  """Whether each token is the last of its chunk.

  Args:
    chunks: [B, T], ascending but for the zeros between them.
  Returns: [B, T], False where the token is in no chunk.
  References: Minixhofer et al., 2025, arXiv:2503.20083, Sec. 3.
  Example:
    >>> chunk_ends(jnp.array([[1, 1, 0, 2]]))
    Array([[False,  True, False,  True]], dtype=bool)
  """
  # The number that comes next, beyond zeros; larger than all at the end.
  most = jnp.iinfo(chunks.dtype).max
  later = jnp.where(chunks > 0, chunks, most)[:, 1:]
  later = jnp.pad(later, ((0, 0), (0, 1)), constant_values=most)
  return (chunks > 0) & (chunks < jax.lax.cummin(later, axis=1, reverse=True))


@jax.jit
def chunk_starts(chunks: Int[Array, "B T"]) -> Bool[Array, "B T"]:
  """Whether each token is the first of its chunk.

  Args:
    chunks: [B, T], ascending but for the zeros between them.
  Returns: [B, T], False where the token is in no chunk.
  References: Minixhofer et al., 2025, arXiv:2503.20083, Sec. 3.
  Example:
    >>> chunk_starts(jnp.array([[1, 1, 0, 2]]))
    Array([[ True, False, False,  True]], dtype=bool)
  """
  before = jnp.pad(chunks[:, :-1], ((0, 0), (1, 0)))
  return chunks > jax.lax.cummax(before, axis=1)


@jax.jit
def at_chunks(
  values: Shaped[Array, "B C"], chunks: Int[Array, "B T"]
) -> Shaped[Array, "B T"]:
  """The value of the chunk that each token is in; 0 in none.

  Args:
    values: [B, C] of each chunk, chunk 1 first.
    chunks: [B, T].
  Returns: [B, T].
  References: Minixhofer et al., 2025, arXiv:2503.20083, Sec. 3.
  Example:
    >>> at_chunks(jnp.array([[5.0, 7.0]]), jnp.array([[1, 1, 0, 2]]))
    Array([[5., 5., 0., 7.]], dtype=float32)
  """
  padded = jnp.pad(values, ((0, 0), (1, 0)))
  return jnp.take_along_axis(padded, chunks, axis=1)


@functools.partial(jax.jit, static_argnames="num")
def chunk_places(
  places: Bool[Array, "B T"], chunks: Int[Array, "B T"], *, num: int
) -> Int[Array, "B C"]:
  """Which position is marked in each chunk; 0 where none is.

  Args:
    places: [B, T] marks of at most one token for each chunk.
    chunks: [B, T].
    num: C.
  Returns: [B, C] positions from 0, chunk 1 first.
  References: Minixhofer et al., 2025, arXiv:2503.20083, Sec. 3.
  Example:
    >>> chunks = jnp.array([[1, 1, 0, 2]])
    >>> chunk_places(chunk_ends(chunks), chunks, num=2)
    Array([[1, 3]], dtype=int32)
  """
  at = jnp.broadcast_to(jnp.arange(chunks.shape[1]), chunks.shape)
  return chunk_sums(jnp.where(places, at, 0), chunks, num=num)


@jax.jit
def merge_chunks(closes: Bool[Array, "B C"]) -> Int[Array, "B C"]:
  """The group of each chunk: a group ends with a chunk that closes.

  Args:
    closes: [B, C].
  Returns: [B, C] groups, counted from 1.
  References: Minixhofer et al., 2025, arXiv:2503.20083.
  Example:
    >>> merge_chunks(jnp.array([[False, True, True, False]]))
    Array([[1, 1, 2, 3]], dtype=int32)
  """
  closed = jnp.cumsum(closes.astype(jnp.int32), axis=1)
  return closed - closes.astype(jnp.int32) + 1


@functools.partial(jax.jit, static_argnames="kind")
def likelihood_difference(
  student: LogLikelihoods,
  teacher: LogLikelihoods,
  *,
  kind: Difference = "binary_ce",
  tau: Scalar = 100.0,
  alpha: Scalar = 2.0,
) -> Float[Array, "*B"]:
  """How differently two models take the same text for likely.

  With P = exp(teacher / tau) and Q = exp(student / tau), both a little below 1:

      binary_ce          -P log Q - (1 - P) log(1 - Q)
      reverse_binary_kl  Q log(Q / P) + (1 - Q) log((1 - Q) / (1 - P))
      binary_kl_limit    what tau KL(P || Q) goes to as tau grows
      abs                |teacher - student|
      abs_exp            |P - Q|
      renyi              log(P^alpha Q^(1 - alpha) + (1 - P)^alpha ...)
                           / (alpha - 1), at tau 1
      k2, k3             r^2 / 2 and e^r - 1 - r of r = log(P / Q)

  Args:
    student: [*B] log-likelihoods, at most 0; gradients flow.
    teacher: [*B] likewise; stopping gradients is the caller's job.
    kind: which of these.
    tau: temperature, of those where it is written above.
    alpha: order of the Renyi divergence, not 1.
  Returns: [*B], unreduced; in nats, but for `abs_exp`.
  References: Minixhofer et al., 2025, arXiv:2503.20083, Sec. 3.
  Example:
    >>> student, teacher = jnp.array(-1.0), jnp.array(-2.0)
    >>> print(f"{likelihood_difference(student, teacher, kind='abs'):.4f}")
    1.0000
  """
  dtype = compute_dtype(student, teacher)
  q, p = (jnp.minimum(x.astype(dtype), 0) for x in (student, teacher))
  if kind == "abs":
    return jnp.abs(p - q)
  if kind in ("k2", "k3"):
    ratio = (p - q) / tau
    return ratio**2 / 2 if kind == "k2" else jnp.expm1(ratio) - ratio
  scale = 1.0 if kind in ("binary_kl_limit", "renyi") else tau
  q, p = (x / scale - _EPSILON for x in (q, p))
  if kind == "binary_kl_limit":
    return p - q + p * (jnp.log(-q) - jnp.log(-p))
  if kind == "abs_exp":
    return jnp.abs(jnp.exp(p) - jnp.exp(q))
  not_q, not_p = log1mexp(q), log1mexp(p)
  if kind == "reverse_binary_kl":
    return jnp.exp(q) * (q - p) - jnp.expm1(q) * (not_q - not_p)
  if kind == "renyi":
    one = alpha * p + (1 - alpha) * q
    other = alpha * not_p + (1 - alpha) * not_q
    return jnp.logaddexp(one, other) / (alpha - 1)
  return -(jnp.exp(p) * q - jnp.expm1(p) * not_q)


@jax.jit
def log1mexp(x: Float[Array, "*B"]) -> Float[Array, "*B"]:
  """log(1 - exp(x)) for x < 0, precise for all of them.

  Args:
    x: [*B]; gradients flow and are finite.
  Returns: [*B], unreduced.
  """
  small = x < -jnp.log(2.0)
  far = jnp.where(small, x, -1.0)
  near = jnp.where(small, -1.0, x)
  return jnp.where(small, jnp.log1p(-jnp.exp(far)), jnp.log(-jnp.expm1(near)))
