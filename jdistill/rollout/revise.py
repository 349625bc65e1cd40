# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Answers of which the teacher corrects a token, and the rest is rewritten."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jdistill import losses, sampling, types
from jdistill.rollout import base
from jdistill.rollout.models import Student


@dataclasses.dataclass(frozen=True)
class Revised(base.Writer):
  """Sequence correction and re-generation (SCRG).

  Of the tokens that are not the teacher's likeliest, the one where teacher and
  student differ most, by KL(teacher || student), is replaced by the teacher's
  likeliest; the student writes anew what follows. An answer of the teacher's
  likeliest tokens stays as it is.

  Attributes:
    student: how the student writes.
    teacher: who corrects.
    corrections: so many times in a row.

  References: Liu et al., 2024, arXiv:2407.10068, section 3.1.
  """

  student: Student = dataclasses.field(default_factory=Student)
  teacher: str = "teacher"
  corrections: int = 1

  def __post_init__(self):
    if self.corrections < 1:
      raise types.UserError(
        f"Revised.corrections: found {self.corrections}, expected at least 1"
      )

  def teachers(self) -> tuple[str, ...]:
    return (self.teacher,)

  def max_new_tokens(self) -> int:
    return self.student.max_new_tokens()

  def write(self, batch, kept, scene):
    batch, _ = self.student.write(batch, {}, scene)
    for number in range(self.corrections):
      batch = self._revise(batch, scene.apart(number + 1))
    return batch, kept

  def _revise(self, batch: types.Batch, scene: base.Scene) -> types.Batch:
    place, token, log_prob, found = _worst(batch, self.teacher, scene)
    view: Any = batch["student"]
    rows = jnp.arange(len(place))
    # The text up to the place, and the token that is put there.
    text = jnp.pad(view.tokens, ((0, 0), (0, 1)))
    text = text.at[rows, place + 1].set(token)
    memory, params = self.student.memory(scene)
    more = sampling.write(
      memory,
      params,
      sampling.Prompts(text, jnp.where(found, place + 2, 1)),
      scene.row_keys(batch),
      self.student.sampling,
      ends=scene.ends,
    )
    more = jax.lax.stop_gradient(more)
    length = batch.data["prompt_length"]
    before = jnp.maximum(place + 1 - length, 0)  # tokens of the answer
    is_end = jnp.isin(token, jnp.array(scene.ends, jnp.int32))
    counts = before + 1 + jnp.where(is_end, 0, more.counts)
    new = base.lay_out(
      batch,
      _joined(base.of_answers(batch, view.targets), before, token, more.tokens),
      jnp.minimum(counts, self.max_new_tokens()),
      _joined(
        base.of_answers(batch, batch.data["log_probs"]),
        before,
        log_prob,
        more.log_probs,
      ),
      # Nobody drew the token that was put there.
      _joined(
        base.of_answers(batch, batch.data["sampling_log_probs"]),
        before,
        jnp.zeros_like(log_prob),
        more.sampling_log_probs,
      ),
    )
    return base.select_rows(found, new, batch)


def _joined(old, before, one, more) -> jax.Array:
  """Rows of `old` up to `before` [B], then `one` [B], then rows of `more`."""
  at = jnp.arange(old.shape[1])[None]
  after = jnp.clip(at - before[:, None] - 1, 0, more.shape[1] - 1)
  tail = jnp.take_along_axis(more, after, axis=1)
  tail = jnp.where(at == before[:, None], one[:, None], tail)
  return jnp.where(at < before[:, None], old, tail)


def _worst(batch: types.Batch, teacher: str, scene: base.Scene):
  """Per row, [B]: the place to correct (into the targets), the teacher's token,
  its log-probability under the student, and whether there is any."""
  view = batch["student"]
  streams = {}
  for name, key in (("student", "student"), ("teacher", teacher)):
    pen = scene.pens[key]
    outputs = pen.architecture.for_evaluation().bind(pen.params)(view)
    streams[name] = outputs.dense
  vocab = min(s.head.vocab_size for s in streams.values())
  streams = {
    k: types.Dense(s.hidden, s.head.cut(vocab)) for k, s in streams.items()
  }

  def values(logits, data, params):
    del data, params
    best = logits["teacher"].argmax(-1)
    return {
      "kl": losses.forward_kl(logits["student"], logits["teacher"]),
      "best": best,
      "log_prob": -losses.cross_entropy(logits["student"], best),
    }

  found = losses.walk_tokens(values, streams, {}, frozen=tuple(streams))
  wrong = (view.mask > 0) & (found["best"] != view.targets)
  place = jnp.where(wrong, found["kl"], -jnp.inf).argmax(axis=1)
  of_row = lambda x: jnp.take_along_axis(x, place[:, None], 1)[:, 0]  # noqa: E731
  token = of_row(found["best"]).astype(jnp.int32)
  return place, token, of_row(found["log_prob"]), wrong.any(axis=1)
