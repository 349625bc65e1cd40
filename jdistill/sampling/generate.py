# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Continuing prompts, greedily or by drawing, with a KV cache.

The prompts are read in one call, then one token at a time is written. Shapes
depend on the number of prompts, on the longest one rounded up to a power of
two, and on the number of new tokens: what differs in nothing else compiles
once. Noise belongs to a row, not to a batch: the same row id and key draw the
same text in whatever company (up to rounding).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdistill import types
from jdistill.models import base
from jdistill.sampling import memory

_SHORTEST = 16
"""Prompts are padded to this length at least."""


class Draw(NamedTuple):
  """How a token is picked; static, as the temperature is not."""

  greedy: bool
  top_k: int | None
  ends: tuple[int, ...]


class Loop(NamedTuple):
  """What one step hands to the next."""

  memory: Any
  tokens: jax.Array  # [B] the newest, not read yet
  length: jax.Array  # [B] tokens read, prompt included
  alive: jax.Array  # [B] bool, whether the row goes on after its newest token


def generate(
  architecture: base.Architecture,
  params: types.PyTree,
  prompts: Sequence[Sequence[int] | np.ndarray],
  *,
  max_new_tokens: int,
  temperature: float | int = 1.0,
  top_k: int | None = None,
  key: jax.Array | None = None,
  eos_id: int | Sequence[int] | None = None,
  row_ids: Sequence[int] | np.ndarray | None = None,
  on_token: Callable[[int, int], None] | None = None,
) -> list[np.ndarray]:
  """Continues each prompt by up to `max_new_tokens` tokens.

  Args:
    architecture: the model's; without `init_cache` the whole text is read
      again for every token.
    params: its parameters.
    prompts: token ids, at least one each.
    max_new_tokens: where a text without an end is cut off.
    temperature: divides the logits; 0 takes the likeliest token.
    top_k: draws among so many likeliest tokens only.
    key: a PRNG key; not needed at temperature 0.
    eos_id: the token, or tokens, that end a text.
    row_ids: one per prompt, chooses its noise; by default its place.
    on_token: called with (place of the prompt, token) for each token as soon
      as it is written, prompts in turn.
  Returns: the new tokens of each prompt, int32, the end included.
  Raises: UserError for prompts or settings that cannot be used.
  """
  ends = _ends(eos_id)
  vocab_size = architecture.vocab_size
  _check(prompts, vocab_size, max_new_tokens, temperature, top_k, key)
  draw = Draw(temperature == 0, top_k, ends)
  view, lengths = _laid_out(prompts)
  ids = np.arange(len(prompts)) if row_ids is None else np.asarray(row_ids)
  if ids.shape != (len(prompts),):
    raise types.UserError(
      f"generate: found row_ids of shape {ids.shape}, expected one for each of"
      f" {len(prompts)} prompts"
    )
  key = jax.random.key(0) if key is None else key
  keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(ids.astype(np.uint32))
  heat = jnp.float32(temperature or 1.0)
  settings = (architecture, draw, max_new_tokens)
  arrays = (params, view, lengths, keys, heat)
  if on_token is None:
    written, counts = _write(*settings, *arrays)
    written, counts = np.asarray(written), np.asarray(counts)
    return [row[:n] for row, n in zip(written, counts, strict=True)]
  texts: list[list[int]] = [[] for _ in prompts]
  loop, wrote = _read(*settings, *arrays), np.ones(len(prompts), bool)
  for left in reversed(range(max_new_tokens)):
    for row in np.flatnonzero(wrote).tolist():
      texts[row].append(int(loop.tokens[row]))
      on_token(row, texts[row][-1])
    wrote = np.asarray(loop.alive)
    if not (left and wrote.any()):
      break
    loop = _step(architecture, draw, params, loop, keys, heat)
  return [np.array(text, np.int32) for text in texts]


def _start(
  architecture, draw, max_new_tokens, params, view, lengths, keys, temperature
) -> Loop:
  """Reads prompts [B, T] of `lengths` [B] and picks the tokens after them."""
  batch, width = view.tokens.shape
  store = memory.of(architecture)
  kept = store.empty(params, batch, width + max_new_tokens)
  kept, logits = store.read(params, kept, view, lengths - 1)
  tokens = _pick(draw, logits, keys, lengths, temperature)
  return Loop(kept, tokens, lengths, ~_is_end(draw, tokens))


def _advance(architecture, draw, params, loop, keys, temperature) -> Loop:
  """Reads the newest token of each row that goes on and picks the next."""
  column = loop.tokens[:, None]
  view = types.Tokens(
    tokens=column,
    targets=jnp.zeros_like(column),
    mask=jnp.ones(column.shape),
    positions=loop.length[:, None],
    segment_ids=loop.alive[:, None].astype(jnp.int32),
  )
  first = jnp.zeros_like(loop.length)
  store = memory.of(architecture)
  kept, logits = store.read(params, loop.memory, view, first)
  length = loop.length + 1
  tokens = _pick(draw, logits, keys, length, temperature)
  return Loop(kept, tokens, length, loop.alive & ~_is_end(draw, tokens))


def _is_end(draw: Draw, tokens: jax.Array) -> jax.Array:
  ended = jnp.zeros(tokens.shape, bool)
  for end in draw.ends:
    ended = ended | (tokens == end)
  return ended


def _pick(draw: Draw, logits, keys, places, temperature) -> jax.Array:
  """A token per row, [B] int32, from logits [B, V]."""
  if draw.greedy:
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)

  def one(logits, key, place):
    # The place in the text, not the step: batches pad prompts differently.
    key = jax.random.fold_in(key, place)
    logits = logits / temperature
    if draw.top_k is None:
      return jax.random.categorical(key, logits)
    kept, ids = jax.lax.top_k(logits, draw.top_k)
    return ids[jax.random.categorical(key, kept)]

  return jax.vmap(one)(logits, keys, places).astype(jnp.int32)


_read = jax.jit(_start, static_argnums=(0, 1, 2))
_step = jax.jit(_advance, static_argnums=(0, 1), donate_argnums=3)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _write(
  architecture, draw, max_new_tokens, params, view, lengths, keys, temperature
) -> tuple[jax.Array, jax.Array]:
  """All tokens at once: [B, max_new_tokens], and how many of them count."""
  loop = _start(
    architecture, draw, max_new_tokens, params, view, lengths, keys, temperature
  )
  written = jnp.zeros((len(lengths), max_new_tokens), jnp.int32)
  written = written.at[:, 0].set(loop.tokens)

  def go_on(carry):
    step, loop, _, _ = carry
    return (step < max_new_tokens) & loop.alive.any()

  def body(carry):
    step, loop, written, counts = carry
    after = _advance(architecture, draw, params, loop, keys, temperature)
    written = jax.lax.dynamic_update_index_in_dim(
      written, after.tokens, step, 1
    )
    return step + 1, after, written, counts + loop.alive

  _, _, written, counts = jax.lax.while_loop(
    go_on, body, (1, loop, written, jnp.ones(len(lengths), jnp.int32))
  )
  return _whole(written), _whole(counts)


def _whole(x: jax.Array) -> jax.Array:
  """All of it on every device of the mesh in context, for every process."""
  if jax.sharding.get_abstract_mesh().empty:
    return x
  return jax.lax.with_sharding_constraint(x, jax.sharding.PartitionSpec())


def _laid_out(
  prompts: Sequence[Sequence[int] | np.ndarray],
) -> tuple[types.Tokens, np.ndarray]:
  """Prompts side by side, padded behind, and their lengths [B]."""
  lengths = np.array([len(prompt) for prompt in prompts], np.int32)
  width = max(_SHORTEST, 1 << (int(lengths.max()) - 1).bit_length())
  tokens = np.zeros((len(prompts), width), np.int32)
  for row, prompt in zip(tokens, prompts, strict=True):
    row[: len(prompt)] = prompt
  places = np.arange(width, dtype=np.int32)[None]
  inside = (places < lengths[:, None]).astype(np.int32)
  view = types.Tokens(
    tokens=tokens,
    targets=np.zeros_like(tokens),
    mask=inside.astype(np.float32),
    positions=places * inside,
    segment_ids=inside,
  )
  return view, lengths


def _ends(eos_id: int | Sequence[int] | None) -> tuple[int, ...]:
  if eos_id is None:
    return ()
  if isinstance(eos_id, int | np.integer):
    return (int(eos_id),)
  return tuple(int(end) for end in eos_id)


def _check(
  prompts, vocab_size, max_new_tokens, temperature, top_k, key
) -> None:
  if not len(prompts):
    raise types.UserError("generate: found no prompts, expected at least one")
  for place, prompt in enumerate(prompts):
    ids = np.asarray(prompt)
    if not ids.size:
      raise types.UserError(
        f"generate: prompt {place} has no tokens; expected at least one, such"
        " as the tokenizer's BOS"
      )
    if ids.min() < 0 or ids.max() >= vocab_size:
      wrong = ids[(ids < 0) | (ids >= vocab_size)][0]
      raise types.UserError(
        f"generate: prompt {place} has the token {wrong}, expected 0 to"
        f" {vocab_size - 1}: the tokenizer does not belong to the model"
      )
  if max_new_tokens < 1:
    raise types.UserError(
      f"generate: found max_new_tokens={max_new_tokens}, expected at least 1"
    )
  if not temperature >= 0:
    raise types.UserError(
      f"generate: found temperature={temperature}, expected 0 or more"
    )
  if top_k is not None and not 1 <= top_k <= vocab_size:
    raise types.UserError(
      f"generate: found top_k={top_k}, expected 1 to {vocab_size}"
    )
  if key is None and temperature > 0:
    raise types.UserError(
      f"generate: temperature={temperature} draws tokens and needs key=, a"
      " PRNG key (temperature=0 does not)"
    )
