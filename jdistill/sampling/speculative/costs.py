# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What speculative decoding ought to gain, and the seconds that decide it.

With acceptance a at each of g guesses in a row, independent of each other, a
pass of the target yields tau = (1 - a^(g + 1)) / (1 - a) tokens. A guess that
costs c passes of the target, and a pass over g + 1 tokens that costs b passes
over one, make decoding tau / (c g + b) times as fast; the usual model has
b = 1, which holds where reading the weights is all that a pass costs.

References: Leviathan et al., 2023, arXiv:2211.17192, Sec. 3.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jdistill import types
from jdistill.sampling import memory
from jdistill.sampling.speculative import loop as loop_lib

_PASSES = 4
"""In one call, so that starting the call does not count."""


def tokens_per_pass(
  acceptance: float, draft_tokens: int, *, bonus: bool = True
) -> float:
  """Expected tokens for each pass of the target over a chain of guesses.

  Args:
    acceptance: probability that a guess is accepted, given those before it.
    draft_tokens: guesses in a row.
    bonus: counts the token that the target adds itself; without it this is
      the number of accepted guesses.
  """
  if acceptance >= 1:
    return float(draft_tokens + bonus)
  whole = (1 - acceptance ** (draft_tokens + 1)) / (1 - acceptance)
  return whole if bonus else whole - 1


@dataclasses.dataclass(frozen=True)
class Costs:
  """Median seconds at the places of the prompts' ends.

  Attributes:
    target_step: a pass of the target over one token of each row.
    target_block: one over the newest token and all guesses.
    draft_block: all that the draft does for a block.
    draft_calls: passes of the draft in it, one for each depth.
  """

  target_step: float
  target_block: float
  draft_block: float
  draft_calls: int

  @property
  def draft_ratio(self) -> float:
    """c: one pass of the draft in passes of the target over one token."""
    return self.draft_block / self.draft_calls / self.target_step

  @property
  def block_ratio(self) -> float:
    """b: a pass over a block in passes over one token; 1 at best."""
    return self.target_block / self.target_step

  def speedup(self, tokens: float, *, block: bool = True) -> float:
    """Over plain decoding, at so many tokens for each pass of the target.

    Without `block` a pass over many tokens costs what one over one does.
    """
    passes = self.block_ratio if block else 1.0
    return tokens / (self.draft_ratio * self.draft_calls + passes)


def measured(
  plan: loop_lib.Plan, given: loop_lib.Given, *, repeats: int = 3
) -> Costs:
  """Times the three parts, in turns, after compiling them."""
  loop, guesses = _started(plan, given)
  parts = (
    lambda: _target_step(plan, given.params, loop),
    lambda: _target_block(plan, given, loop, guesses),
    lambda: _draft_block(plan, given, loop),
  )
  seconds: list[list[float]] = [[] for _ in parts]
  for turn in range(repeats + 1):
    for part, found in zip(parts, seconds, strict=True):
      begin = time.perf_counter()
      jax.block_until_ready(part())
      if turn:
        found.append((time.perf_counter() - begin) / _PASSES)
  step, block, draft = map(statistics.median, seconds)
  return Costs(step, block, draft, plan.shape.depth)


@functools.partial(jax.jit, static_argnums=0)
def _started(plan, given):
  loop = loop_lib.start(plan, given)
  loop = loop._replace(alive=jnp.ones_like(loop.alive))
  return loop, loop_lib.guess(plan, given, loop)[1]


def _repeated(step: Callable[..., tuple[Any, jax.Array]], kept: Any):
  """Goes through `step(kept, last) -> kept, last` a few times.

  Each time needs what came of the last, so that none is left out.
  """
  last = jnp.int32(0)
  return jax.lax.fori_loop(0, _PASSES, lambda _, c: step(*c), (kept, last))


def _summed(outputs: types.Outputs) -> jax.Array:
  """Zero, but it takes all logits to know."""
  return jnp.isnan(outputs.logits.max()).astype(jnp.int32)


@functools.partial(jax.jit, static_argnums=0)
def _target_step(plan, params, loop):
  """As plain decoding does it, `params` settled."""
  view = jax.tree.map(lambda x: x[:, :1], loop.news.view)
  store = memory.of(plan.target)

  def step(kept, last):
    new = dataclasses.replace(view, tokens=view.tokens + last)
    kept, outputs = store.read_all(params, kept, new)
    return kept, _summed(outputs)

  return _repeated(step, store.settled_kept(loop.target, loop.length))


@functools.partial(jax.jit, static_argnums=0)
def _target_block(plan, given, loop, guesses):
  def step(kept, last):
    new = guesses._replace(tokens=guesses.tokens + last)
    held = loop._replace(target=kept)
    kept, outputs = loop_lib.judge(plan, given, held, new)
    return kept, _summed(outputs)

  return _repeated(step, loop.target)


@functools.partial(jax.jit, static_argnums=0)
def _draft_block(plan, given, loop):
  view = loop.news.view

  def step(kept, last):
    new = dataclasses.replace(view, tokens=view.tokens + last)
    held = loop._replace(draft=kept, news=loop.news._replace(view=new))
    kept, guesses = loop_lib.guess(plan, given, held)
    return kept, (guesses.tokens.max() < 0).astype(jnp.int32)

  return _repeated(step, loop.draft)
