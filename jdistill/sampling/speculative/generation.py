# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Continuing prompts with a draft's help, lists in and lists out."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdistill import types
from jdistill.models.base import Architecture
from jdistill.sampling import memory, stops
from jdistill.sampling.generate import check, ends_of, laid_out, row_keys, whole
from jdistill.sampling.settings import Sampling
from jdistill.sampling.speculative import loop as loop_lib
from jdistill.sampling.speculative.drafts import Draft
from jdistill.sampling.speculative.tree import Shape, Tree


@dataclasses.dataclass(frozen=True)
class Counts:
  """How the guesses fared, summed over all rows.

  Entry d of `asked`, `accepted` and `overlap` is of guesses at depth d + 1
  below the newest token: how often one was judged there, how often one was
  right, and the sum of what was to be expected of the first, 1 - TVD(p, q).
  Guesses behind the end of a text are not counted.

  Attributes:
    texts: how many.
    tokens: written, also behind a stop string.
    passes: of the target over guesses; the one over the prompt is not counted.
    asked: by depth.
    accepted: by depth.
    overlap: by depth.
    close: tokens where the target's likeliest two were within 1e-4 nats, so
      that rounding may decide between them.
  """

  texts: int
  tokens: int
  passes: int
  asked: tuple[int, ...]
  accepted: tuple[int, ...]
  overlap: tuple[float, ...]
  close: int


@dataclasses.dataclass(frozen=True)
class Speculated:
  """The new tokens of each prompt, int32, and how they came about."""

  texts: list[np.ndarray]
  counts: Counts


def generate(
  target: Architecture,
  draft: Draft,
  params: types.PyTree,
  draft_params: types.PyTree,
  prompts: Sequence[Sequence[int] | np.ndarray],
  *,
  max_new_tokens: int,
  draft_tokens: int = 4,
  tree: Shape | None = None,
  temperature: float | int = 1.0,
  top_k: int | None = None,
  top_p: float | None = None,
  min_p: float | None = None,
  repetition_penalty: float = 1.0,
  lenience: float = 1.0,
  key: jax.Array | None = None,
  eos_id: int | Sequence[int] | None = None,
  row_ids: Sequence[int] | np.ndarray | None = None,
  on_token: Callable[[int, int], None] | None = None,
  on_text: Callable[[int, str], None] | None = None,
  stop: Sequence[str] = (),
  tokenizer: Any = None,
) -> Speculated:
  """Continues each prompt by up to `max_new_tokens` tokens of the target.

  What is written follows the target's distribution exactly, whatever the
  draft; at temperature 0 it is what greedy decoding of the target writes,
  except where its two likeliest tokens are equal up to rounding.

  Args:
    target: the model that decides.
    draft: what guesses, such as `ModelDraft(architecture)`.
    params: of the target.
    draft_params: of the draft.
    prompts: token ids, at least one each.
    max_new_tokens: where a text without an end is cut off.
    draft_tokens: guesses in a row for each pass of the target.
    tree: guesses of this shape instead; the target needs a cache.
    temperature: divides both models' logits; 0 takes the likeliest token.
    top_k: both draw among so many likeliest tokens only.
    top_p: both draw among the likeliest tokens of this share only.
    min_p: both draw among tokens at least this share as likely as the best.
    repetition_penalty: of tokens that are there already; for both.
    lenience: accepts a guess x with probability min(1, p(x) / (lenience q(x))).
      Below 1 more are accepted and what is written is no longer the target's
      distribution; 1 is exact.
    key: a PRNG key; not needed at temperature 0.
    eos_id: the token, or tokens, that end a text.
    row_ids: one per prompt, chooses its noise; by default its place.
    on_token: called with (place of the prompt, token) for each token as soon
      as its block is done, prompts in turn.
    on_text: called with (place of the prompt, text) as text becomes certain:
      whole characters, nothing that belongs to a stop string.
    stop: texts before which the answer is cut; wants a tokenizer. What its
      block wrote behind one is counted.
    tokenizer: turns tokens into text.
  Raises: UserError for prompts or settings that cannot be used.
  """
  rows = stops.Rows(len(prompts), stop, tokenizer, on_token, on_text)
  plan, given = prepared(
    target,
    draft,
    params,
    draft_params,
    prompts,
    sampling=Sampling(
      max_new_tokens=max_new_tokens,
      temperature=float(temperature),
      top_k=top_k,
      top_p=top_p,
      min_p=min_p,
      repetition_penalty=repetition_penalty,
    ),
    shape=Tree.chain(draft_tokens) if tree is None else tree,
    lenience=lenience,
    key=key,
    ends=ends_of(eos_id),
    row_ids=row_ids,
  )
  return run(plan, given, rows)


def prepared(
  target: Architecture,
  draft: Draft,
  params: types.PyTree,
  draft_params: types.PyTree,
  prompts: Sequence[Sequence[int] | np.ndarray],
  *,
  sampling: Sampling,
  shape: Shape,
  lenience: float,
  key: jax.Array | None,
  ends: tuple[int, ...],
  row_ids: Sequence[int] | np.ndarray | None,
) -> tuple[loop_lib.Plan, loop_lib.Given]:
  """What the compiled programs are made for and given; see `generate`."""
  check(prompts, target.vocab_size, sampling, key)
  _check(target, draft, shape, sampling, lenience)
  plan = loop_lib.Plan(
    target,
    draft,
    shape,
    None if sampling.greedy else sampling.top_k,
    ends,
    sampling.max_new_tokens,
  )
  given = loop_lib.Given(
    memory.of(target).settled(params),
    draft.settled(draft_params),
    laid_out(prompts),
    row_keys(key, row_ids, len(prompts)),
    {k: jnp.float32(v) for k, v in sampling.numbers().items()},
    jnp.float32(lenience),
  )
  return plan, given


def run(
  plan: loop_lib.Plan,
  given: loop_lib.Given,
  rows: stops.Rows | None = None,
) -> Speculated:
  """Writes what was prepared; `rows` are told of it, where they are given."""
  if rows is None or not rows.watched:
    end = _write(plan, given)
  else:
    end = _streamed(plan, given, rows)
  text, written, sums = jax.tree.map(np.asarray, end)
  texts = [row[:n] for row, n in zip(text, written, strict=True)]
  if rows is not None and rows.watched:
    for row, told in enumerate(rows.finished(text, written)):
      if told.stopped:
        texts[row] = np.array(told.tokens, np.int32)
  counts = Counts(
    len(texts),
    int(written.sum()),
    int(sums.passes.sum()),
    tuple(sums.asked.tolist()),
    tuple(sums.accepted.tolist()),
    tuple(sums.overlap.tolist()),
    int(sums.close),
  )
  return Speculated(texts, counts)


def _result(loop: loop_lib.Loop):
  """What the host reads: text, how much of it is written, counts."""
  return whole((loop.text, loop.written, loop.counts))


@functools.partial(jax.jit, static_argnums=0)
def _write(plan: loop_lib.Plan, given: loop_lib.Given):
  return _result(
    jax.lax.while_loop(
      lambda loop: loop.alive.any(),
      lambda loop: loop_lib.block(plan, given, loop),
      loop_lib.start(plan, given),
    )
  )


@functools.partial(jax.jit, static_argnums=0)
def _start(plan, given):
  loop = loop_lib.start(plan, given)
  return loop, (whole(loop.alive), _result(loop))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def _block(plan, given, loop):
  loop = loop_lib.block(plan, given, loop)
  return loop, (whole(loop.alive), _result(loop))


def _streamed(plan, given, rows):
  """As `_write`, block by block, handing out what is new."""
  loop, (alive, found) = _start(plan, given)
  while True:
    alive = np.asarray(alive) & ~rows.take(found[0], found[1])
    if not alive.any():
      return found
    loop = loop._replace(alive=jnp.asarray(alive))
    loop, (alive, found) = _block(plan, given, loop)


def _check(target, draft, shape, sampling, lenience) -> None:
  if not shape.is_chain:
    for name, able in (
      ("target", memory.can_branch(target)),
      ("draft", draft.can_branch()),
    ):
      if not able:
        raise types.UserError(
          f"speculative: the {name} has no cache that holds a tree of guesses;"
          " use draft_tokens=, one guess after the other"
        )
  smallest = min(target.vocab_size, draft.vocab_size)
  if shape.fan > smallest:
    raise types.UserError(
      f"speculative: a tree with {shape.fan} guesses under one token needs as"
      f" many tokens to guess, found a vocabulary of {smallest}"
    )
  if not 0 < lenience <= 1:
    raise types.UserError(
      f"speculative: found lenience={lenience}, expected more than 0, up to 1,"
      " which is exact"
    )
  if lenience != 1 and sampling.greedy:
    raise types.UserError(
      f"speculative: lenience={lenience} changes how drawn guesses are"
      " accepted, and at temperature=0 nothing is drawn; leave it out"
    )
