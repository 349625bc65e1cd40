# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The writing of a run: its jitted programs and the shapes of its batches."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdistill import apart, distributed, rollout, sharding, types
from jdistill import config as config_lib
from jdistill.run_models import Models, rules


def shapes(
  config: config_lib.Config, batch: types.Batch
) -> tuple[types.Batch, types.Batch]:
  """Shapes of a batch that has been written, and has then been judged."""
  if config.rollout is None:
    return batch, batch
  written = jax.eval_shape(config.rollout.blank, batch)
  if config.reward is None:
    return written, written
  reward = jax.ShapeDtypeStruct(written.example_id.shape, jnp.float32)
  data = {**written.data, "reward": reward}
  return written, dataclasses.replace(written, data=data)


def judge(
  reward: rollout.Reward,
  written: types.Batch,
  tokenizer: Any,
  mesh: jax.sharding.Mesh,
) -> tuple[jax.Array, types.Mean]:
  """What the answers of a global batch are worth, those of a process by itself.

  Args:
    reward: the rule.
    written: as a writer gives it.
    tokenizer: for the texts of answers, or None.
    mesh: of the run.
  Returns: rewards [B], and their mean over the rows that have a prompt.
  Raises: UserError unless the rule gives a finite number for each answer.
  """
  texts = rollout.read(distributed.own_rows(written), tokenizer)
  worth = np.asarray(reward(texts), np.float32)
  if worth.shape != (len(texts),) or not np.isfinite(worth).all():
    raise types.UserError(
      f"reward: {type(reward).__name__} gave {worth} for {len(texts)} "
      "answers; expected a finite number for each"
    )
  worth = sharding.place_rows(worth, mesh)
  there = (written.data["prompt_length"] > 0).astype(jnp.float32)
  return worth, types.Mean((worth * there).sum(), there.sum())


@dataclasses.dataclass(frozen=True)
class Rollouts:
  """How the writers of a run are made."""

  config: config_lib.Config
  models: Models
  parts: Mapping[str, apart.Part]
  ends: tuple[int, ...]
  mesh: sharding.AnyMesh

  def by(self, writer: rollout.Writer) -> rollout.Write:
    teachers = self.models.teachers.items()
    pens = {k: f.architecture for k, f in teachers if k not in self.parts}
    return rollout.make_rollout(
      writer,
      self.models.student,
      pens,
      ends=self.ends,
      seed=self.config.seed,
      place=self.place,
    )

  def in_training(self, state, teachers, prompts, written) -> Any:
    """The jitted `write` of the rollout, for state and teachers that lie so and
    for batches of these shapes; None without a rollout."""
    if self.config.rollout is None:
      return None
    kept, whole = state.extra[rollout.KEY], sharding.replicated(self.mesh)
    given, rows = (sharding.of_batch(b, self.mesh) for b in (prompts, written))
    return jax.jit(
      self.by(self.config.rollout),
      in_shardings=(state.params["student"], kept, whole, teachers, given),
      out_shardings=(rows, kept, whole),
      donate_argnums=1,
    )

  def in_evaluations(self, student, teachers) -> dict[str, Any]:
    """The same for evaluations, whose batches have shapes of their own."""
    return {
      name: jax.jit(
        rollout.for_evaluation(writer, self.by(writer)),
        in_shardings=(student, teachers, None),
      )
      for name, writer in self.config.eval_rollouts.items()
    }

  def place(self, params: types.PyTree) -> types.PyTree:
    """The student's parameters where they lie while it writes."""
    if not self.config.rollout_rules:
      return params
    student = self.models.student
    own = {**rules(self.config), **self.config.rollout_rules}
    places = sharding.param_shardings(
      student.axes(), student.shapes(), self.mesh, own
    )
    return jax.lax.with_sharding_constraint(params, places)
