# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Writing as one pure function beside the train step."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from jdistill import types
from jdistill.models.base import Architecture
from jdistill.rollout import base

KEY = "rollout"
"""Of `TrainState.extra`: what a writer keeps."""

_SALT = 0x77726974  # keeps a writer's noise apart from a method's
_TOLD_SALT = 0x746F6C64

Write = Callable[
  [types.PyTree, types.PyTree, jax.Array, types.PyTree, types.Batch],
  tuple[types.Batch, types.PyTree, dict[str, types.Mean]],
]


def make_rollout(
  writer: base.Writer,
  student: Architecture,
  teachers: Mapping[str, Architecture],
  *,
  ends: tuple[int, ...] = (),
  seed: int = 0,
  place: Callable[[types.PyTree], types.PyTree] = lambda params: params,
) -> Write:
  """`write(student_params, kept, step, teacher_params, batch) -> ...`.

  Args:
    writer: who writes.
    student, teachers: the models by whom it may be done.
    ends: tokens that end an answer.
    seed: of the noise.
    place: puts the student's parameters where they are to be while it writes.
  Returns: a function that gives the written batch, what is kept of it (both
    ways of `TrainState.extra["rollout"]`) and metrics named `rollout/...`: the
    share `from/SOURCE` of each source, and of the answers `tokens` (mean
    length), `ended` (share whose last token ends them), `age` (updates) and
    `log_prob` (nats per token that a model wrote).
  """
  run_key = jax.random.fold_in(jax.random.key(seed), _SALT)

  def write(student_params, kept, step, teacher_params, batch):
    pens = {"student": base.Pen(student, place(student_params))} | {
      name: base.Pen(shape, teacher_params[name])
      for name, shape in teachers.items()
    }
    fixed, fresh = jax.random.split(run_key)
    fresh = jax.random.fold_in(fresh, step)
    scene = base.Scene(pens, step, fixed, fresh, ends)
    batch, kept = writer.write(batch, kept, scene)
    return batch, kept, _metrics(writer, batch, ends)

  return write


def make_tell(writer: base.Writer, encode: base.Encode, *, seed: int = 0):
  """`tell(step, batch) -> batch, metrics`, once the answers are judged.

  Args:
    writer: of the run.
    encode: for its own texts.
    seed: of the noise.
  """
  key = jax.random.fold_in(jax.random.key(seed), _TOLD_SALT)

  def tell(step, batch):
    fresh = jax.random.fold_in(key, step)
    fold = lambda i: jax.random.fold_in(fresh, i)  # noqa: E731
    keys = jax.vmap(fold)(batch.example_id.astype(jnp.uint32))
    return writer.tell(batch, keys, encode)

  return tell


def for_evaluation(writer: base.Writer, write: Write):
  """`write(student_params, teacher_params, batch) -> batch`, always alike.

  Args:
    writer: who writes; it starts anew for each batch.
    write: of `make_rollout`.
  """

  def alike(student_params, teacher_params, batch):
    kept = writer.init(writer.blank(batch))
    step = jnp.zeros((), jnp.int32)
    return write(student_params, kept, step, teacher_params, batch)[0]

  return alike


def _metrics(writer, batch, ends) -> dict[str, types.Mean]:
  view = batch["student"]
  there = (view.mask.sum(axis=1) > 0).astype(jnp.float32)
  rows, tokens = there.sum(), view.mask.sum()
  last = (view.segment_ids > 0).sum(axis=1) - 1
  last = jnp.take_along_axis(view.targets, last[:, None], axis=1)[:, 0]
  ended = jnp.isin(last, jnp.array(ends, jnp.int32)) if ends else 0 * there
  found = {
    "tokens": types.Mean(tokens, rows),
    "ended": types.Mean((ended * there).sum(), rows),
    "age": types.Mean((batch.data["age"] * there).sum(), rows),
  }
  drawn = (batch.data["log_probs"] != 0) * view.mask
  found["log_prob"] = types.Mean(batch.data["log_probs"].sum(), drawn.sum())
  for number, name in enumerate(writer.sources()):
    mine = (batch.data["source"] == number) * there
    found[f"from/{name}"] = types.Mean(mine.sum(), rows)
  return {f"rollout/{k}": v for k, v in found.items()}
