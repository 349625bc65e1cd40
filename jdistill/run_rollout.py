# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The writing of a run: its jitted programs and the shapes of its batches."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdistill import apart, distributed, rollout, sharding, tokenizers, types
from jdistill import config as config_lib
from jdistill.run_models import Models, rules


class Shapes(NamedTuple):
  """Of a batch on its way from the data to the train step."""

  given: types.Batch
  written: types.Batch
  judged: types.Batch
  ready: types.Batch


def shapes(
  config: config_lib.Config,
  batch: types.Batch,
  encode: rollout.Encode | None = None,
) -> Shapes:
  """Those that a batch of the data passes through.

  Args:
    config: of the run.
    batch: as the data give it.
    encode: for the writer's own texts; None where only shapes matter.
  Raises: UserError for a writer's texts that cannot be encoded.
  """
  writer = config.rollout
  if writer is None:
    return Shapes(batch, batch, batch, batch)
  written = jax.eval_shape(writer.blank, batch)
  if config.reward is None:
    return Shapes(batch, written, written, written)
  rows, size = written.example_id.shape, writer.feedback_size()
  data = {**written.data, "reward": jax.ShapeDtypeStruct(rows, jnp.float32)}
  if size:
    data["feedback"] = jax.ShapeDtypeStruct((*rows, size), jnp.int32)
    data["feedback_length"] = jax.ShapeDtypeStruct(rows, jnp.int32)
  judged = dataclasses.replace(written, data=data)
  tell = rollout.make_tell(writer, encode or nothing)
  ready, _ = jax.eval_shape(tell, jnp.int32(0), judged)
  return Shapes(batch, written, judged, ready)


def kept_shardings(kept: types.PyTree, mesh: sharding.AnyMesh) -> types.PyTree:
  """Where what a writer keeps lies: rows over the devices of the batch.

  Rows whose number these do not divide are whole on every device.
  """
  parts = sharding.num_row_shards(mesh)

  def place(leaf):
    divided = leaf.ndim and leaf.shape[0] % parts == 0
    return sharding.rows(mesh) if divided else sharding.replicated(mesh)

  return jax.tree.map(place, kept)


def nothing(text: str) -> np.ndarray:
  """Stands for a tokenizer where only shapes matter."""
  del text
  return np.zeros(0, np.int32)


def encoder(tokenizer: Any) -> rollout.Encode:
  """Encodes by the run's tokenizer.

  Raises: UserError when called without one.
  """

  def encode(text: str) -> np.ndarray:
    if tokenizer is None:
      raise types.UserError(
        f"rollout: the text {text!r} is to be read, but this run has no "
        "tokenizer; take {prompt}, {solution} and {feedback} alone, and let "
        "feedback be ids"
      )
    [ids] = tokenizers.encode_documents(
      tokenizer, [text], add_bos=False, add_eos=False
    )
    return ids

  return encode


def judge(
  reward: rollout.Reward,
  written: types.Batch,
  tokenizer: Any,
  mesh: jax.sharding.Mesh,
  *,
  feedback_size: int = 0,
) -> tuple[dict[str, jax.Array], types.Mean]:
  """What the answers of a global batch are worth, those of a process by itself.

  Args:
    reward: the rule.
    written: as a writer gives it.
    tokenizer: for the texts of answers and of feedback, or None.
    mesh: of the run.
    feedback_size: the most tokens of feedback that are read, F.
  Returns: `reward` [B], if there is an F also `feedback` [B, F] and
    `feedback_length` [B]; and the mean over the rows that have a prompt.
  Raises: UserError unless the rule gives a finite number for each answer.
  """
  answers = rollout.read(distributed.own_rows(written), tokenizer)
  said = [
    one if isinstance(one, rollout.Judged) else rollout.Judged(one)
    for one in reward(answers)
  ]
  worth = np.asarray([one.reward for one in said], np.float32)
  if worth.shape != (len(answers),) or not np.isfinite(worth).all():
    raise types.UserError(
      f"reward: {type(reward).__name__} gave {worth} for {len(answers)} "
      "answers; expected a finite number for each"
    )
  found: dict[str, np.ndarray] = {"reward": worth}
  if feedback_size:
    ids = [_ids(one.feedback, tokenizer)[:feedback_size] for one in said]
    found["feedback"] = np.zeros((len(ids), feedback_size), np.int32)
    found["feedback_length"] = np.array([len(row) for row in ids], np.int32)
    for row, own in zip(found["feedback"], ids, strict=True):
      row[: len(own)] = own
  placed = sharding.place_rows(found, mesh)
  there = (written.data["prompt_length"] > 0).astype(jnp.float32)
  return placed, types.Mean((placed["reward"] * there).sum(), there.sum())


def _ids(feedback: str | Sequence[int], tokenizer: Any) -> np.ndarray:
  if isinstance(feedback, str):
    return encoder(tokenizer)(feedback) if feedback else nothing("")
  return np.asarray(feedback, np.int32)


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

  def in_training(self, state, teachers, shapes: Shapes) -> Any:
    """The jitted `write` of the rollout, for state and teachers that lie so and
    for batches of these shapes; None without a rollout."""
    if self.config.rollout is None:
      return None
    kept, whole = state.extra[rollout.KEY], sharding.replicated(self.mesh)
    given, rows = (
      sharding.of_batch(b, self.mesh) for b in (shapes.given, shapes.written)
    )
    return jax.jit(
      self.by(self.config.rollout),
      in_shardings=(state.params["student"], kept, whole, teachers, given),
      out_shardings=(rows, kept, whole),
      donate_argnums=1,
    )

  def after_judging(self, shapes: Shapes, encode: rollout.Encode) -> Any:
    """The jitted `tell(step, batch)`; None without a reward."""
    if self.config.rollout is None or self.config.reward is None:
      return None
    whole = sharding.replicated(self.mesh)
    given, ready = (
      sharding.of_batch(b, self.mesh) for b in (shapes.judged, shapes.ready)
    )
    return jax.jit(
      rollout.make_tell(self.config.rollout, encode, seed=self.config.seed),
      in_shardings=(whole, given),
      out_shardings=(ready, whole),
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
