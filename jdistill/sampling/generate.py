# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Continuing prompts, lists in and lists out, on the host.

A thin layer over `write`. Shapes depend on the number of prompts, on the
longest one rounded up to a power of two, and on the number of new tokens: what
differs in nothing else compiles once. Noise belongs to a row, not to a batch:
the same row id and key draw the same text in whatever company (up to rounding).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jdistill import types
from jdistill.models import base
from jdistill.sampling import memory, stops
from jdistill.sampling.settings import Sampling
from jdistill.sampling.write import Loop, Prompts, Writer

_SHORTEST = 16
"""Prompts are padded to this length at least."""

_STRIDE = 16
"""Tokens that are written between two looks for stop strings."""


@dataclasses.dataclass(frozen=True)
class Answer:
  """What was written after one prompt.

  Attributes:
    tokens: the end included, cut before a stop string.
    log_probs: of these tokens, by the model's plain softmax, in nats.
    finish: `end` for a token that ends a text, `stop` for a stop string,
      `length` where it was cut off.
    text: without special tokens, cut before a stop string; None without a
      tokenizer.
  """

  tokens: np.ndarray
  log_probs: np.ndarray
  finish: Literal["end", "stop", "length"]
  text: str | None


def generate(
  architecture: base.Architecture,
  params: types.PyTree,
  prompts: Sequence[Sequence[int] | np.ndarray],
  *,
  max_new_tokens: int,
  temperature: float | int = 1.0,
  top_k: int | None = None,
  top_p: float | None = None,
  min_p: float | None = None,
  repetition_penalty: float = 1.0,
  key: jax.Array | None = None,
  eos_id: int | Sequence[int] | None = None,
  row_ids: Sequence[int] | np.ndarray | None = None,
  on_token: Callable[[int, int], None] | None = None,
  stop: Sequence[str] = (),
  tokenizer: Any = None,
) -> list[np.ndarray]:
  """Continues each prompt by up to `max_new_tokens` tokens.

  Args:
    architecture: the model's; without `init_cache` the whole text is read
      again for every token.
    params: its parameters.
    prompts: token ids, at least one each.
    max_new_tokens: this and the next five are those of `Sampling`.
    temperature: divides the logits; 0 takes the likeliest token.
    top_k: draws among so many likeliest tokens only.
    top_p: draws among the likeliest tokens of this share only.
    min_p: draws among tokens at least this share as likely as the best.
    repetition_penalty: of tokens that are there already.
    key: a PRNG key; not needed at temperature 0.
    eos_id: the token, or tokens, that end a text.
    row_ids: one per prompt, chooses its noise; by default its place.
    on_token: called with (place of the prompt, token) for each token as soon
      as it is written, prompts in turn.
    stop: texts before which the answer is cut; wants a tokenizer.
    tokenizer: turns tokens into text.
  Returns: the new tokens of each prompt, int32, the end included.
  Raises: UserError for prompts or settings that cannot be used.
  """
  sampling = Sampling(
    max_new_tokens=max_new_tokens,
    temperature=float(temperature),
    top_k=top_k,
    top_p=top_p,
    min_p=min_p,
    repetition_penalty=repetition_penalty,
  )
  found = answers(
    architecture,
    params,
    prompts,
    sampling,
    key=key,
    ends=ends_of(eos_id),
    row_ids=row_ids,
    on_token=on_token,
    stop=stop,
    tokenizer=tokenizer,
  )
  return [answer.tokens for answer in found]


def answers(
  architecture: base.Architecture,
  params: types.PyTree,
  prompts: Sequence[Sequence[int] | np.ndarray],
  sampling: Sampling,
  *,
  key: jax.Array | None = None,
  ends: Sequence[int] = (),
  row_ids: Sequence[int] | np.ndarray | None = None,
  on_token: Callable[[int, int], None] | None = None,
  on_text: Callable[[int, str], None] | None = None,
  stop: Sequence[str] = (),
  tokenizer: Any = None,
) -> list[Answer]:
  """Continues each prompt, and says how it went.

  Args: as of `generate`, and
    sampling: how tokens are drawn.
    ends: tokens that end a text.
    on_text: called with (place of the prompt, text) as text becomes certain:
      whole characters, nothing that belongs to a stop string.
  Raises: UserError for prompts or settings that cannot be used.
  """
  vocab_size = architecture.vocab_size
  check(prompts, vocab_size, sampling, key)
  rows = stops.Rows(len(prompts), stop, tokenizer, on_token, on_text)
  keys = row_keys(key, row_ids, len(prompts))
  writer = Writer(
    memory.of(architecture),
    sampling.max_new_tokens,
    None if sampling.greedy else sampling.top_k,
    tuple(map(int, ends)),
  )
  numbers = {k: jnp.float32(v) for k, v in sampling.numbers().items()}
  arrays = (laid_out(prompts), keys, numbers)
  stride = sampling.max_new_tokens
  if on_token or on_text:
    stride = 1
  elif stop:
    stride = _STRIDE
  loop = _begin(writer, params, *arrays)
  limit = min(stride, sampling.max_new_tokens)
  if sampling.max_new_tokens > 1:
    params = writer.memory.settled(params)
  while True:
    if limit > 1:
      loop = _go(writer, params, *arrays, loop, jnp.int32(limit))
    alive = np.asarray(loop.alive)
    if rows.watched:
      alive = alive & ~rows.take(loop.written.tokens, loop.written.counts)
    if limit >= sampling.max_new_tokens or not alive.any():
      return _answers(rows, loop)
    loop = loop._replace(alive=jnp.asarray(alive))
    limit = min(limit + stride, sampling.max_new_tokens)


def _answers(rows: stops.Rows, loop: Loop) -> list[Answer]:
  """All that was written."""
  done = jax.tree.map(np.asarray, loop.written)
  found = []
  for row, text in enumerate(rows.finished(done.tokens, done.counts)):
    tokens = done.tokens[row, : done.counts[row]]
    finish = "end" if done.ended[row] else "length"
    if text.stopped:
      tokens, finish = np.array(text.tokens, np.int32), "stop"
    log_probs = done.log_probs[row, : len(tokens)]
    shown = text.text if rows.have_text else None
    found.append(Answer(tokens, log_probs, finish, shown))
  return found


@functools.partial(jax.jit, static_argnums=0)
def _begin(writer, params, prompts, keys, numbers) -> Loop:
  return _legible(writer.begin(params, prompts, keys, numbers))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=5)
def _go(writer, params, prompts, keys, numbers, loop, limit) -> Loop:
  return _legible(writer.go(params, prompts, keys, numbers, loop, limit))


def _legible(loop: Loop) -> Loop:
  """With what the host reads where every process can."""
  alive, written = whole((loop.alive, loop.written))
  return loop._replace(alive=alive, written=written)


def whole(tree: types.PyTree) -> types.PyTree:
  """All of it on every device of the mesh in context, for every process."""
  if jax.sharding.get_abstract_mesh().empty:
    return tree
  return jax.lax.with_sharding_constraint(tree, jax.sharding.PartitionSpec())


def laid_out(prompts: Sequence[Sequence[int] | np.ndarray]) -> Prompts:
  """Prompts side by side, padded behind."""
  lengths = np.array([len(prompt) for prompt in prompts], np.int32)
  width = max(_SHORTEST, 1 << (int(lengths.max()) - 1).bit_length())
  tokens = np.zeros((len(prompts), width), np.int32)
  for row, prompt in zip(tokens, prompts, strict=True):
    row[: len(prompt)] = prompt
  return Prompts(tokens, lengths)


def row_keys(
  key: jax.Array | None, row_ids: Sequence[int] | np.ndarray | None, count: int
) -> jax.Array:
  """The PRNG key of each of `count` rows, which `row_ids` choose."""
  ids = np.arange(count) if row_ids is None else np.asarray(row_ids)
  if ids.shape != (count,):
    raise types.UserError(
      f"generate: found row_ids of shape {ids.shape}, expected one for each of"
      f" {count} prompts"
    )
  key = jax.random.key(0) if key is None else key
  return jax.vmap(lambda i: jax.random.fold_in(key, i))(ids.astype(np.uint32))


def ends_of(eos_id: int | Sequence[int] | None) -> tuple[int, ...]:
  if eos_id is None:
    return ()
  if isinstance(eos_id, int | np.integer):
    return (int(eos_id),)
  return tuple(int(end) for end in eos_id)


def check(prompts, vocab_size: int, sampling: Sampling, key) -> None:
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
  if sampling.top_k is not None and sampling.top_k > vocab_size:
    raise types.UserError(
      f"generate: found top_k={sampling.top_k}, expected 1 to {vocab_size}"
    )
  if key is None and not sampling.greedy:
    raise types.UserError(
      f"generate: temperature={sampling.temperature} draws tokens and needs"
      " key=, a PRNG key (temperature=0 does not)"
    )
