# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A second reading of an answer, by a teacher that knows how it went."""

import dataclasses
import re
from typing import Literal

import jax
import jax.numpy as jnp

from jdistill import types
from jdistill.rollout import base
from jdistill.rollout.models import Student
from jdistill.rollout.privileged import read_again

MARKS = ("{prompt}", "{solution}", "{feedback}")


@dataclasses.dataclass(frozen=True)
class Reprompted(base.Around):
  """The teacher reads each answer after a prompt with what happened in it.

  That is another answer of the same group that was judged a success, what the
  reward said of this one, or both. Of several successes one is drawn for each
  answer; one with the very same text only where there is no other. The batch
  gets the view "privileged" and `teacher_index`, as by `Privileged`, and `told`
  [B], 1 where there was something to tell: `SelfDistillation(rows="told")`
  learns from these.

  Attributes:
    writer: who writes.
    threshold: the least reward of a success.
    template: the teacher's prompt; {prompt} is the row's own. Text beside the
      marks wants a tokenizer.
    solution: what stands for {solution} where there is one; {solution} in it is
      that answer, its end included.
    feedback: likewise of {feedback}.
    feedback_tokens: the most tokens of it that are read; 0 reads none.
    feedback_for: "unsolved" leaves it out where there is a solution.
    prompt_tokens: W, the longest prompt of the teacher; rows that need more are
      not told.

  References: Hübotter et al., 2026, arXiv:2601.20802 (SDPO), and its code.
  """

  writer: base.Writer = dataclasses.field(default_factory=Student)
  threshold: float = 1.0
  template: str = "{prompt}{solution}{feedback}{prompt}"
  solution: str = "{solution}"
  feedback: str = "{feedback}"
  feedback_tokens: int = 0
  feedback_for: Literal["unsolved", "all"] = "unsolved"
  prompt_tokens: int = 256

  def __post_init__(self):
    there = {*_parts(self.template)} & {*MARKS}
    if "{prompt}" not in there or len(there) < 2:
      raise types.UserError(
        f"Reprompted.template is {self.template!r}; expected a text with "
        "{prompt}, and {solution} or {feedback}, in it"
      )
    for name, least in (("feedback_tokens", 0), ("prompt_tokens", 1)):
      if getattr(self, name) < least:
        raise types.UserError(
          f"Reprompted.{name}: found {getattr(self, name)}, expected at least "
          f"{least}"
        )

  def feedback_size(self) -> int:
    return self.feedback_tokens

  def tell(self, batch, keys, encode):
    view, data = batch["student"], batch.data
    rows, width = view.mask.shape
    counts = view.mask.sum(axis=1).astype(jnp.int32)
    answers = base.of_answers(batch, view.targets)
    answers = jnp.where(jnp.arange(width)[None] < counts[:, None], answers, -1)
    # Without groups everybody is alone.
    group = data.get("group", jnp.arange(rows))
    good = (data["reward"] >= self.threshold) & (counts > 0)
    which = siblings(answers, good, group, keys)
    solved = which >= 0
    known = {
      "{prompt}": (data["prompt"], data["prompt_length"]),
      "{solution}": (answers[which], jnp.where(solved, counts[which], 0)),
    }
    said = jnp.zeros_like(solved)
    if self.feedback_tokens:
      said = data["feedback_length"] > 0
      if self.feedback_for == "unsolved":
        said &= ~solved
      length = jnp.where(said, data["feedback_length"], 0)
      known["{feedback}"] = data["feedback"], length
    prompt, length = self._prompts(known, solved, said, encode)
    there = counts > 0
    told = (solved | said) & (length <= self.prompt_tokens) & there
    again = read_again(batch, prompt, jnp.where(told, length, 0))
    again = dataclasses.replace(
      again, data=again.data | {"told": told.astype(jnp.float32)}
    )
    shares = {"told": told, "solved": solved & there}
    number = there.sum().astype(jnp.float32)
    return again, {
      f"rollout/{name}": types.Mean(share.sum().astype(jnp.float32), number)
      for name, share in shares.items()
    }

  def _prompts(self, known, solved, said, encode):
    """The teacher's prompts [B, W], and how long they would be, [B]."""
    optional = {
      "{solution}": (self.solution, solved),
      "{feedback}": (self.feedback, said),
    }
    pieces = []

    def add(text: str, rows: jax.Array, within: bool = False) -> None:
      for part in _parts(text):
        if part in optional and not within:
          inner, own = optional[part]
          add(inner, rows & own, within=True)
        elif part in MARKS:
          if part in known:
            tokens, counts = known[part]
            pieces.append((tokens, jnp.where(rows, counts, 0)))
        else:
          ids = jnp.asarray(encode(part), jnp.int32)
          if len(ids):
            tokens = jnp.broadcast_to(ids, (len(rows), len(ids)))
            pieces.append((tokens, jnp.where(rows, len(ids), 0)))

    add(self.template, jnp.ones_like(solved))
    return base.spliced(pieces, self.prompt_tokens)


def siblings(
  answers: jax.Array, good: jax.Array, group: jax.Array, keys: jax.Array
) -> jax.Array:
  """For each answer the row of another one that was a success, or -1.

  Args:
    answers: [B, T] tokens, the same behind all ends.
    good: [B] bool, which are successes.
    group: [B] those to one prompt share theirs.
    keys: [B] that draw one of several.
  Returns: [B] int32; an answer of the same text only if there is no other.
  """
  itself = jnp.eye(len(answers), dtype=bool)
  able = (group[:, None] == group[None]) & good[None] & ~itself
  alike = (answers[:, None] == answers[None]).all(-1)
  others = able & ~alike
  able = jnp.where(others.any(1, keepdims=True), others, able)
  number = able.sum(1)
  drawn = jax.vmap(jax.random.uniform)(keys) * number
  drawn = jnp.minimum(drawn.astype(number.dtype), number - 1)
  nth = able & (jnp.cumsum(able, axis=1) == drawn[:, None] + 1)
  return jnp.where(number > 0, nth.argmax(1), -1).astype(jnp.int32)


def _parts(text: str) -> list[str]:
  """The marks of a text and what is between them."""
  found = re.split("|".join(f"({re.escape(mark)})" for mark in MARKS), text)
  return [part for part in found if part]
