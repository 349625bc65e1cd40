# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Continuing prompts, arrays in and arrays out, inside jit and on a mesh.

The prompts are read in one call, then one token at a time is written. Rows are
divided over the mesh in context as a batch's are. What a row's text becomes
depends on its prompt, its key and the settings; the batch around it, padding
and the mesh change rounding only.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jdistill import types
from jdistill.models import division
from jdistill.sampling import draw
from jdistill.sampling.memory import Memory
from jdistill.sampling.settings import Sampling


@types.pytree
class Prompts:
  """Texts to go on with, side by side from the left."""

  tokens: types.Leaf  # [B, P] int32; what lies beyond a length is not read
  lengths: types.Leaf  # [B] int32; a row of length 0 gets no text


@types.pytree
class Written:
  """What was written, N = `max_new_tokens`.

  Entries beyond a row's count are 0.
  """

  tokens: types.Leaf  # [B, N] int32
  counts: types.Leaf  # [B] int32, the token that ends the text included
  log_probs: types.Leaf  # [B, N] of the tokens, by the model's plain softmax
  sampling_log_probs: types.Leaf  # [B, N] by what was drawn from; greedy: 0
  ended: types.Leaf  # [B] bool; False: cut off
  close: types.Leaf  # [B] int32, tokens that led by less than 1e-4 nats


def write(
  memory: Memory,
  params: types.PyTree,
  prompts: Prompts,
  keys: Key[Array, " B"],
  sampling: Sampling,
  *,
  ends: Sequence[int],
) -> Written:
  """Continues each prompt until an end or `sampling.max_new_tokens`.

  May be called inside jit, with `memory`, `sampling` and `ends` static. No
  gradient flows.

  Args:
    memory: how the writer is asked for its next token, `memory.of(model)` or
      one of `mixes`.
    params: what the memory wants: a model's parameters, or a tuple of them.
    prompts: B rows.
    keys: one PRNG key for each row; the noise depends on it and on the place
      in the text alone.
    sampling: how tokens are drawn.
    ends: tokens that end a text.
  """
  writer = Writer(
    memory, sampling.max_new_tokens, sampling.top_k, tuple(map(int, ends))
  )
  numbers = sampling.numbers()
  loop = writer.begin(params, prompts, keys, numbers)
  limit = sampling.max_new_tokens
  if limit == 1:
    return loop.written
  params = memory.settled(params)
  return writer.go(params, prompts, keys, numbers, loop, limit).written


class Loop(NamedTuple):
  """What one step hands to the next."""

  kept: Any  # by the memory
  seen: jax.Array | None  # [B, V] bool, tokens of the text so far
  alive: jax.Array  # [B] bool, whether the row goes on
  step: jax.Array  # [] int32, tokens written
  written: Written


@dataclasses.dataclass(frozen=True)
class Writer:
  """What shapes a program that writes."""

  memory: Memory
  max_new_tokens: int
  top_k: int | None
  ends: tuple[int, ...]

  def begin(
    self,
    params: types.PyTree,
    prompts: Prompts,
    keys: jax.Array,
    numbers: Mapping[str, types.Scalar],
  ) -> Loop:
    """Reads the prompts and writes the first token."""
    view = view_of(prompts)
    lengths = division.rows(jnp.asarray(prompts.lengths))
    batch, width = view.tokens.shape
    kept = self.memory.empty(params, batch, width + self.max_new_tokens)
    last = jnp.maximum(lengths - 1, 0)
    kept, logits = self.memory.read(params, kept, view, last)
    seen = None
    if "repetition_penalty" in numbers:
      seen = seen_in(view, logits.shape[-1])
    loop = Loop(
      kept=self.memory.settled_kept(kept, lengths),
      seen=seen,
      alive=lengths > 0,
      step=jnp.int32(0),
      written=_nothing(batch, self.max_new_tokens),
    )
    return self._take(loop, logits, lengths, keys, numbers)

  def go(
    self,
    params: types.PyTree,
    prompts: Prompts,
    keys: jax.Array,
    numbers: Mapping[str, types.Scalar],
    loop: Loop,
    limit: types.Scalar,
  ) -> Loop:
    """Writes until `limit` tokens are there or no row goes on; wants
    `memory.settled` parameters."""
    lengths = division.rows(jnp.asarray(prompts.lengths))

    def more(loop):
      return (loop.step < limit) & loop.alive.any()

    def body(loop):
      newest = jax.lax.dynamic_slice_in_dim(
        loop.written.tokens, loop.step - 1, 1, axis=1
      )
      view = types.Tokens(
        tokens=newest,
        targets=jnp.zeros_like(newest),
        mask=jnp.ones(newest.shape),
        positions=(lengths + loop.step - 1)[:, None],
        segment_ids=loop.alive[:, None].astype(jnp.int32),
      )
      first = jnp.zeros_like(lengths)
      kept, logits = self.memory.read(params, loop.kept, view, first)
      loop = loop._replace(kept=kept)
      return self._take(loop, logits, lengths, keys, numbers)

    return jax.lax.while_loop(more, body, loop)

  def _take(self, loop: Loop, logits, lengths, keys, numbers) -> Loop:
    """Writes the token after what was read."""
    picked = draw.pick(
      division.rows(logits),
      keys,
      lengths + loop.step,
      loop.seen,
      self.top_k,
      numbers,
    )
    alive = loop.alive
    ended = jnp.zeros_like(alive)
    for end in self.ends:
      ended |= alive & (picked.tokens == end)

    def put(whole, new):
      new = division.rows(jnp.where(alive, new, 0).astype(whole.dtype))
      return jax.lax.dynamic_update_index_in_dim(whole, new, loop.step, 1)

    old = loop.written
    written = Written(
      tokens=put(old.tokens, picked.tokens),
      counts=old.counts + alive,
      log_probs=put(old.log_probs, picked.log_probs),
      sampling_log_probs=put(old.sampling_log_probs, picked.sampling_log_probs),
      ended=old.ended | ended,
      close=old.close + (alive & picked.close),
    )
    seen = loop.seen
    if seen is not None:
      ids = jax.lax.broadcasted_iota(jnp.int32, seen.shape, 1)
      seen |= ids == picked.tokens[:, None]
    return Loop(loop.kept, seen, alive & ~ended, loop.step + 1, written)


def view_of(prompts: Prompts) -> types.Tokens:
  """The prompts as what a model reads."""
  tokens = division.rows(jnp.asarray(prompts.tokens))
  lengths = division.rows(jnp.asarray(prompts.lengths))
  places = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
  inside = (places < lengths[:, None]).astype(jnp.int32)
  return types.Tokens(
    tokens=tokens * inside,
    targets=jnp.zeros_like(tokens),
    mask=inside.astype(jnp.float32),
    positions=places * inside,
    segment_ids=inside,
  )


def _nothing(batch: int, length: int) -> Written:
  def zeros(dtype, *shape):
    return division.rows(jnp.zeros((batch, *shape), dtype))

  return Written(
    tokens=zeros(jnp.int32, length),
    counts=zeros(jnp.int32),
    log_probs=zeros(jnp.float32, length),
    sampling_log_probs=zeros(jnp.float32, length),
    ended=zeros(bool),
    close=zeros(jnp.int32),
  )


def seen_in(view: types.Tokens, size: int) -> jax.Array:
  """Which of `size` tokens each row has, [B, V]."""
  ids = jnp.where(view.segment_ids > 0, view.tokens, size)
  mark = jax.vmap(lambda ids: jnp.zeros(size, bool).at[ids].set(True))
  return division.rows(mark(ids))
