# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The next token of each row, from its logits.

A token is drawn by Gumbel-max: noise is added to the scores and the largest
wins. The noise is a row's own and depends on its place in the text alone, so
that what is drawn can differ between batches, paddings and meshes only where
the two best are nearly equal; `close` says where.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jdistill import types

CLOSE = 1e-4
"""Two scores are close if they differ by less than this, in nats."""


class Picked(NamedTuple):
  """One token for each row."""

  tokens: jax.Array  # [B] int32
  log_probs: jax.Array  # [B], by the model
  sampling_log_probs: jax.Array  # [B], by what was drawn from
  close: jax.Array  # [B] bool, whether the second best could have won


def pick(
  logits: Float[Array, "B V"],
  keys: Key[Array, " B"],
  places: Int[Array, " B"],
  seen: Bool[Array, "B V"] | None,
  top_k: int | None,
  numbers: Mapping[str, types.Scalar],
) -> Picked:
  """Draws a token for each row, or takes the likeliest.

  Args:
    logits: of the model; all arithmetic is float32.
    keys: one PRNG key for each row.
    places: where in its row's text the token will be.
    seen: tokens that the text has; not needed without a penalty.
    top_k: of `Sampling`.
    numbers: `Sampling.numbers()`; without a temperature nothing is drawn.
  """
  logits = logits.astype(jnp.float32)
  scores = law(logits, seen, top_k, numbers)
  noisy = scores
  if "temperature" in numbers:
    noisy = scores + noise(keys, places, scores.shape[1])
  tokens, lead = best(noisy)
  log_probs = _log_prob(logits, tokens)
  drawn = jnp.zeros_like(log_probs)
  if "temperature" in numbers:
    drawn = _log_prob(scores, tokens)
  return Picked(tokens, log_probs, drawn, lead < CLOSE)


def law(
  logits: Float[Array, "B V"],
  seen: Bool[Array, "B V"] | None,
  top_k: int | None,
  numbers: Mapping[str, types.Scalar],
) -> Float[Array, "B V"]:
  """What is drawn from: its softmax, -inf for tokens that cannot be.

  Args: as of `pick`. Without a temperature the largest is taken.
  """
  logits = penalised(logits, seen, numbers)
  if "temperature" not in numbers:
    return logits
  scores = logits / numbers["temperature"]
  if top_k is not None:
    scores = _at_least(scores, kth(scores, top_k))
  if "top_p" in numbers:
    probs = jax.nn.softmax(scores, axis=-1)
    bound = nucleus(probs, numbers["top_p"])
    scores = jnp.where(probs >= bound, scores, -jnp.inf)
  if "min_p" in numbers:
    least = scores.max(axis=-1, keepdims=True) + jnp.log(numbers["min_p"])
    scores = _at_least(scores, least)
  return scores


def penalised(
  logits: Float[Array, "B V"],
  seen: Bool[Array, "B V"] | None,
  numbers: Mapping[str, types.Scalar],
) -> Float[Array, "B V"]:
  """The logits with those of `seen` tokens made worse; args as of `pick`."""
  if "repetition_penalty" not in numbers:
    return logits
  assert seen is not None, "a penalty needs to know what was seen"
  penalty = numbers["repetition_penalty"]
  worse = jnp.where(logits > 0, logits / penalty, logits * penalty)
  return jnp.where(seen, worse, logits)


def _at_least(scores: jax.Array, bound: jax.Array) -> jax.Array:
  return jnp.where(scores >= bound, scores, -jnp.inf)


def kth(scores: Float[Array, "B V"], k: int) -> Float[Array, "B 1"]:
  """The k-th largest of each row, the smallest if there are fewer."""
  largest, _ = jax.lax.top_k(scores, min(k, scores.shape[-1]))
  return largest[:, -1:]


def nucleus(
  probs: Float[Array, "B V"], share: types.Scalar
) -> Float[Array, "B 1"]:
  """The largest bound at which what is not below it sums to `share`.

  Floats from 0 are ordered as their bits are, so the bound is found exactly by
  bisecting the bits; sorting a vocabulary takes several times as long.
  """
  bits = jax.lax.bitcast_convert_type(probs, jnp.int32)
  high = bits.max(axis=-1, keepdims=True) + 1

  def halve(_, bounds):
    low, high = bounds
    middle = low + (high - low) // 2
    mass = jnp.where(bits >= middle, probs, 0).sum(axis=-1, keepdims=True)
    enough = mass >= share
    return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

  # One is 0x3f800000, so that 30 halvings leave nothing between the bounds.
  low, _ = jax.lax.fori_loop(0, 30, halve, (jnp.zeros_like(high), high))
  return jax.lax.bitcast_convert_type(low, jnp.float32)


def noise(
  keys: Key[Array, " B"], places: Int[Array, " B"], size: int
) -> Float[Array, "B V"]:
  """Gumbel noise for each row's token at its place in the text."""

  def one(key, place):
    key = jax.random.fold_in(key, place)
    return jax.random.gumbel(key, (size,), jnp.float32)

  return jax.vmap(one)(keys, places)


def best(
  scores: Float[Array, "B V"],
) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
  """The first of each row's largest, and its lead over the second."""
  # Plain maxima and minima: unlike argmax, XLA's CPU backend vectorises them.
  largest = scores.max(axis=-1, keepdims=True)
  ids = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1)
  last = scores.shape[-1] - 1  # where everything is NaN
  tokens = jnp.where(scores == largest, ids, last).min(axis=-1)
  others = jnp.where(ids == tokens[:, None], -jnp.inf, scores)
  return tokens, largest[:, 0] - others.max(axis=-1)


def _log_prob(scores: jax.Array, tokens: jax.Array) -> jax.Array:
  own = jnp.take_along_axis(scores, tokens[:, None], axis=-1)[:, 0]
  return own - jax.nn.logsumexp(scores, axis=-1)
