# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A second reading of an answer, after a prompt that says more."""

import dataclasses

import jax
import jax.numpy as jnp

from jdistill import types
from jdistill.rollout import base
from jdistill.rollout.models import Student


@dataclasses.dataclass(frozen=True)
class Privileged(base.Around):
  """The teacher sees more than the student that wrote.

  Beside the view "student" the batch has a view "privileged": the same answers
  after the prompts `privileged` [B, W] of the data (`data.Prompts.privileged`),
  and `teacher_index` [B, T]: at which of its places the teacher predicts the
  target of each place of the student.

  References: Shenfeld et al., 2026, arXiv:2601.19897 (SDFT).
  """

  writer: base.Writer = dataclasses.field(default_factory=Student)

  def needs(self) -> tuple[str, ...]:
    return (*self.writer.needs(), "privileged", "privileged_length")

  def blank(self, batch):
    return self._read(self.writer.blank(batch))

  def init(self, batch):
    views = {k: v for k, v in batch.views.items() if k != "privileged"}
    data = {k: v for k, v in batch.data.items() if k != "teacher_index"}
    plain = dataclasses.replace(batch, views=views, data=data)
    return self.writer.init(plain)

  def write(self, batch, kept, scene):
    batch, kept = self.writer.write(batch, kept, scene)
    return self._read(batch), kept

  def _read(self, batch: types.Batch) -> types.Batch:
    data = batch.data
    return read_again(batch, data["privileged"], data["privileged_length"])


def read_again(
  batch: types.Batch, prompt: jax.Array, length: jax.Array
) -> types.Batch:
  """The batch with the view "privileged" of its answers.

  Args:
    batch: as a writer gives it.
    prompt: [B, W] what the teacher reads before each answer.
    length: [B] of that; rows of 0 are empty.
  """
  view, data = batch["student"], batch.data
  width = prompt.shape[1] + view.mask.shape[1]
  again = base.joined(
    prompt,
    length,
    base.of_answers(batch, view.targets),
    view.mask.sum(axis=1).astype(jnp.int32),
    width,
  )
  further = length - data["prompt_length"]
  index = jnp.arange(view.mask.shape[1])[None] + further[:, None]
  index = jnp.clip(index, 0, width - 1).astype(jnp.int32)
  return dataclasses.replace(
    batch,
    views=batch.views | {"privileged": again},
    data=data | {"teacher_index": index},
  )
