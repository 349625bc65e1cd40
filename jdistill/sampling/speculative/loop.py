# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Blocks of guesses, judged by one pass of the target each.

Both models keep their caches; what was wrong is forgotten by being overwritten,
as a cache's slots hold the position of their number. Rows are at different
places of their texts, and each keeps as many tokens of a block as are right.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdistill import types
from jdistill.models import division
from jdistill.models.attention import Branches
from jdistill.models.base import Architecture
from jdistill.sampling import memory
from jdistill.sampling.speculative import growing, verify
from jdistill.sampling.speculative.drafts import Draft, News
from jdistill.sampling.speculative.tree import Shape
from jdistill.sampling.write import Prompts, seen_in, view_of


class Plan(NamedTuple):
  """What a compiled program depends on."""

  target: Architecture
  draft: Draft
  shape: Shape
  top_k: int | None
  ends: tuple[int, ...]
  max_new_tokens: int


class Given(NamedTuple):
  """What it receives."""

  params: types.PyTree
  draft_params: types.PyTree
  prompts: Prompts
  keys: jax.Array  # [B]
  numbers: verify.Numbers
  lenience: jax.Array


class Counts(NamedTuple):
  """Sums over rows and blocks; entry d of D is of guesses at depth d + 1."""

  passes: jax.Array  # [B] of the target for each row, its prompt's apart
  asked: jax.Array  # [D] how often a guess of that depth was judged
  accepted: jax.Array  # [D]
  overlap: jax.Array  # [D] sum over those asked of sum of min(p, q)
  close: jax.Array  # [] tokens written where the likeliest two were in doubt


class Loop(NamedTuple):
  """What one block hands to the next."""

  target: Any
  draft: Any
  news: News  # the last block's tokens, [B, D + 1]
  path: jax.Array | None  # [B, D] the draft's numbers of accepted guesses
  length: jax.Array  # [B] position of the newest token
  text: jax.Array  # [B, max_new_tokens + D]
  written: jax.Array  # [B]
  alive: jax.Array  # [B]
  counts: Counts
  seen: jax.Array | None  # [B, V] bool, tokens of the text; for a penalty


def law(plan: Plan, given: Given) -> verify.Law:
  return verify.Law(plan.top_k, given.numbers)


def start(plan: Plan, given: Given) -> Loop:
  """Reads the prompts and draws the token after each."""
  view, lengths = view_of(given.prompts), jnp.asarray(given.prompts.lengths)
  batch, width = view.tokens.shape
  depth, drawn_from = plan.shape.depth, law(plan, given)
  room = width + plan.max_new_tokens
  store = memory.of(plan.target)
  target = store.empty(given.params, batch, room + plan.shape.num_nodes)
  target, outputs = store.read_all(given.params, target, view)
  final = outputs.at(lengths[:, None] - 1)
  seen = None
  if drawn_from.penalises:
    seen = seen_in(view, plan.target.vocab_size)
  probs = drawn_from.probs(final.logits[:, 0], seen)
  noise = jax.vmap(verify.place_key)(given.keys, lengths)
  tokens = jax.vmap(lambda p, key: verify.drawn(drawn_from, p, key))(
    probs, noise
  )

  hidden = outputs.hidden
  like = jax.ShapeDtypeStruct(hidden.shape, hidden.dtype)
  draft = plan.draft.empty(
    given.draft_params, batch, room + growing.numbers(plan.shape), like
  )
  before = jnp.pad(hidden[:, :-1], ((0, 0), (1, 0), (0, 0)))
  prompts = News(view, before, lengths - 1, jnp.full(batch, -1))
  draft = plan.draft.read(given.draft_params, draft, prompts)

  alive = ~is_end(plan, tokens) & (plan.max_new_tokens > 1)
  news = _news(
    jnp.pad(tokens[:, None], ((0, 0), (0, depth))),
    jnp.pad(final.hidden, ((0, 0), (0, depth), (0, 0))),
    lengths - 1,
    alive.astype(jnp.int32),
  )
  text = jnp.zeros((batch, plan.max_new_tokens + depth), jnp.int32)
  zeros = jnp.zeros((depth,), jnp.int32)
  counts = Counts(
    jnp.zeros_like(lengths),
    zeros,
    zeros,
    zeros.astype(jnp.float32),
    jnp.int32(0),
  )
  return Loop(
    target,
    draft,
    news,
    None if plan.shape.is_chain else jnp.full((batch, depth), -1),
    lengths,
    text.at[:, 0].set(tokens),
    jnp.ones_like(lengths),
    alive,
    counts,
    _with(seen, tokens[:, None], jnp.ones_like(lengths)),
  )


def guess(plan: Plan, given: Given, loop: Loop) -> tuple[Any, verify.Guesses]:
  """The draft learns what became of its last guesses, and makes new ones."""
  draft, logits = plan.draft.settle(
    given.draft_params, loop.draft, loop.news, loop.path
  )
  newest = jnp.take_along_axis(
    loop.news.view.tokens, loop.news.last[:, None], 1
  )
  rows = growing.Rows(
    given.keys, newest[:, 0], loop.length, loop.alive, loop.seen
  )
  return growing.grow(
    plan.shape,
    plan.draft,
    given.draft_params,
    draft,
    logits,
    rows,
    law(plan, given),
    plan.target.vocab_size,
  )


def judge(
  plan: Plan, given: Given, loop: Loop, guesses: verify.Guesses
) -> tuple[Any, types.Outputs]:
  """The target reads the newest token and the guesses after it."""
  nodes = jnp.arange(plan.shape.num_nodes)[None]
  nodes = jnp.where(loop.alive[:, None], nodes, -1)
  branches = Branches(nodes, loop.length, guesses.depths, guesses.seen)
  view = types.Tokens(
    tokens=guesses.tokens,
    targets=jnp.zeros_like(guesses.tokens),
    mask=jnp.ones(guesses.tokens.shape),
    positions=loop.length[:, None] + guesses.depths,
    segment_ids=(nodes >= 0).astype(jnp.int32),
  )
  return memory.of(plan.target).read_all(
    given.params,
    loop.target,
    view,
    None if plan.shape.is_chain else branches,
  )


def block(plan: Plan, given: Given, loop: Loop) -> Loop:
  """Guesses, judges, and keeps what is right, for each row that goes on."""
  draft, guesses = guess(plan, given, loop)
  target, outputs = judge(plan, given, loop, guesses)
  verdict = verify.walk(
    law(plan, given),
    guesses,
    division.rows(outputs.logits),
    plan.shape.depth,
    given.keys,
    loop.length,
    given.lenience,
    loop.seen,
  )
  tokens, count, alive = _kept(plan, loop, guesses, verdict)
  path = verdict.path[:, 1:]
  accepted = None
  if not plan.shape.is_chain:
    depth = jnp.where(path < 0, -1, jnp.arange(1, path.shape[1] + 1)[None])
    target = memory.moved(plan.target, target, loop.length, path, depth)
    inner = jnp.take_along_axis(guesses.inner, jnp.maximum(path, 0), 1)
    accepted = jnp.where(path < 0, -1, inner)
  way = jnp.maximum(verdict.path, 0)[..., None]
  hidden = jnp.take_along_axis(outputs.hidden, way, 1)
  places = jnp.arange(tokens.shape[1])[None]
  put = jnp.where(
    places < count[:, None], loop.written[:, None] + places, loop.text.shape[1]
  )
  write = jax.vmap(lambda row, at, new: row.at[at].set(new, mode="drop"))
  return Loop(
    target,
    draft,
    _news(tokens, hidden, loop.length, jnp.where(alive, count, 0)),
    accepted,
    loop.length + count,
    write(loop.text, put, tokens),
    loop.written + count,
    alive,
    _counted(loop, verdict, count),
    _with(loop.seen, tokens, count),
  )


def _with(
  seen: jax.Array | None, tokens: jax.Array, count: jax.Array
) -> jax.Array | None:
  """What was seen [B, V] and the first `count` [B] of tokens [B, T]."""
  if seen is None:
    return None
  there = jnp.arange(tokens.shape[1])[None] < count[:, None]
  ids = jnp.where(there, tokens, seen.shape[1])
  return jax.vmap(lambda row, ids: row.at[ids].set(True, mode="drop"))(
    seen, ids
  )


def _kept(
  plan: Plan, loop: Loop, guesses: verify.Guesses, verdict: verify.Verdict
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """A block's tokens [B, D + 1], how many count, and which rows go on."""
  places = jnp.arange(plan.shape.depth + 1)[None]
  path = jnp.pad(verdict.path[:, 1:], ((0, 0), (0, 1)))
  tokens = jnp.take_along_axis(guesses.tokens, jnp.maximum(path, 0), 1)
  last = verdict.accepted[:, None]
  tokens = jnp.where(places == last, verdict.token[:, None], tokens)
  ends = is_end(plan, tokens) & (places <= last)
  before = jnp.cumsum(ends, axis=1) - ends  # ends before each token
  kept = (places <= last) & (before == 0)
  kept = kept & (loop.written[:, None] + places < plan.max_new_tokens)
  kept = kept & loop.alive[:, None]
  count = kept.sum(1, dtype=jnp.int32)
  alive = loop.alive & ~(ends & kept).any(1)
  return tokens, count, alive & (loop.written + count < plan.max_new_tokens)


def _counted(loop: Loop, verdict: verify.Verdict, count: jax.Array) -> Counts:
  """Only what led to tokens that were kept."""
  old = loop.counts
  inside = jnp.arange(verdict.path.shape[1])[None] < count[:, None]
  asked = verdict.asked & inside[:, :-1]
  overlap = jnp.where(asked, verdict.overlap[:, :-1], 0).sum(0)
  return Counts(
    old.passes + loop.alive,
    old.asked + asked.sum(0, dtype=jnp.int32),
    old.accepted + (asked & (verdict.path[:, 1:] >= 0)).sum(0, dtype=jnp.int32),
    old.overlap + overlap.astype(jnp.float32),
    old.close + (verdict.close & inside).sum(dtype=jnp.int32),
  )


def _news(
  tokens: jax.Array, hidden: jax.Array, root: jax.Array, count: jax.Array
) -> News:
  """The first `count` [B] of tokens [B, T] after position `root`."""
  places = jnp.arange(tokens.shape[1])[None]
  there = places < count[:, None]
  view = types.Tokens(
    tokens=tokens,
    targets=jnp.zeros_like(tokens),
    mask=there.astype(jnp.float32),
    positions=root[:, None] + 1 + places,
    segment_ids=there.astype(jnp.int32),
  )
  return News(view, hidden, jnp.maximum(count - 1, 0), root)


def is_end(plan: Plan, tokens: jax.Array) -> jax.Array:
  ended = jnp.zeros(tokens.shape, bool)
  for end in plan.ends:
    ended = ended | (tokens == end)
  return ended
