# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Several models that write one text: memories made of memories.

Their `params` and what they keep are tuples, one entry for each part. What they
return in place of logits are log-probabilities. Where the parts' vocabularies
are padded to different widths, ids that all of them have are drawn.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jdistill import types
from jdistill.sampling import draw
from jdistill.sampling.memory import Memory


@dataclasses.dataclass(frozen=True)
class Blend:
  """Draws from sum_i w_i p_i, as if one of the models were picked per token.

  MiniLLM (Gu et al., 2024, arXiv:2306.08543) writes with 0.2 of the teacher and
  0.8 of the student.
  """

  memories: tuple[Memory, ...]
  weights: tuple[float, ...]

  def __post_init__(self):
    object.__setattr__(self, "memories", tuple(self.memories))
    object.__setattr__(self, "weights", tuple(self.weights))
    same = len(self.memories) == len(self.weights) > 0
    if not (
      same
      and min(self.weights) >= 0
      and math.isclose(sum(self.weights), 1.0, rel_tol=1e-6)
    ):
      raise types.UserError(
        f"Blend: found weights {self.weights} for {len(self.memories)} models,"
        " expected one for each, none negative, that sum to 1"
      )

  def empty(self, params, batch, length):
    return _each(self.memories, "empty", params, batch=batch, length=length)

  def settled(self, params):
    return _each(self.memories, "settled", params)

  def settled_kept(self, kept, lengths):
    return _each(self.memories, "settled_kept", kept, lengths=lengths)

  def read(self, params, kept, view, last):
    kept, log_probs = _ask(self.memories, params, kept, view, last)
    weighted = [
      own + math.log(weight)
      for own, weight in zip(log_probs, self.weights, strict=True)
      if weight
    ]
    return kept, jax.nn.logsumexp(jnp.stack(weighted), axis=0)


@dataclasses.dataclass(frozen=True)
class Interleaved:
  """The student's token where the teacher has it among its `top_k`, else one
  that the teacher draws: p_s(y) [y in top_k] + p_t(y) P_s(outside top_k).

  `params` are the student's and the teacher's.

  References: Xu et al., 2025, "Speculative Knowledge Distillation",
  arXiv:2410.11325, Algorithm 1, where a token is judged at a time.
  """

  student: Memory
  teacher: Memory
  top_k: int = 25

  def __post_init__(self):
    if self.top_k < 1:
      raise types.UserError(
        f"Interleaved: found top_k={self.top_k}, expected at least 1"
      )

  @property
  def memories(self) -> tuple[Memory, ...]:
    return self.student, self.teacher

  def empty(self, params, batch, length):
    return _each(self.memories, "empty", params, batch=batch, length=length)

  def settled(self, params):
    return _each(self.memories, "settled", params)

  def settled_kept(self, kept, lengths):
    return _each(self.memories, "settled_kept", kept, lengths=lengths)

  def read(self, params, kept, view, last):
    kept, (student, teacher) = _ask(self.memories, params, kept, view, last)
    taken = teacher >= draw.kth(teacher, self.top_k)
    outside = jnp.where(taken, -jnp.inf, student)
    replaced = teacher + jax.nn.logsumexp(outside, axis=-1, keepdims=True)
    accepted = jnp.where(taken, student, -jnp.inf)
    return kept, jnp.logaddexp(accepted, replaced)


def _each(
  memories: Sequence[Memory], method: str, trees: Any, **others: Any
) -> tuple:
  """Calls a method of each with its own tree."""
  pairs = zip(memories, trees, strict=True)
  return tuple(getattr(m, method)(tree, **others) for m, tree in pairs)


def _ask(
  memories: Sequence[Memory],
  params: Any,
  kept: Any,
  view: types.Tokens,
  last: jax.Array,
) -> tuple[tuple, list[jax.Array]]:
  """What each model keeps, and its log-probabilities over common ids."""
  read = [
    memory.read(own, held, view, last)
    for memory, own, held in zip(memories, params, kept, strict=True)
  ]
  size = min(logits.shape[-1] for _, logits in read)
  log_probs = [
    jax.nn.log_softmax(logits[:, :size].astype(jnp.float32), axis=-1)
    for _, logits in read
  ]
  return tuple(held for held, _ in read), log_probs
