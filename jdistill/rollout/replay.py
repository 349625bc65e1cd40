# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Answers that are kept and learnt from again."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jdistill import types
from jdistill.rollout import base
from jdistill.rollout.models import Dataset, Student


def empty(batch: types.Batch, capacity: int) -> types.PyTree:
  """A ring of `capacity` rows like those of a batch."""
  rows = jax.tree.map(
    lambda x: jnp.zeros((capacity, *x.shape[1:]), x.dtype), base.stored(batch)
  )
  return {"rows": rows, "pushed": jnp.zeros((), jnp.int32)}


def push(ring: types.PyTree, batch: types.Batch, step) -> types.PyTree:
  """The ring with a batch in it, in place of the oldest rows.

  `age` of what is kept is the step at which it was written.
  """
  data = batch.data | {"age": step - batch.data["age"]}
  new = base.stored(dataclasses.replace(batch, data=data))
  capacity, count = len(ring["rows"]["example_id"]), len(batch.example_id)
  at = (ring["pushed"] + jnp.arange(count)) % capacity
  rows = jax.tree.map(lambda old, new: old.at[at].set(new), ring["rows"], new)
  return {"rows": rows, "pushed": ring["pushed"] + count}


def pull(ring: types.PyTree, batch: types.Batch, key, step) -> types.Batch:
  """As many rows as the batch has, each drawn evenly from the ring."""
  filled = jnp.minimum(ring["pushed"], len(ring["rows"]["example_id"]))
  at = jax.random.randint(key, (len(batch.example_id),), 0, filled)
  rows = types.Batch(**jax.tree.map(lambda x: x[at], ring["rows"]))
  data = rows.data | {"age": step - rows.data["age"]}
  return dataclasses.replace(rows, data=data)


@dataclasses.dataclass(frozen=True)
class _Kept(base.Around):
  """A ring of what one writer has written."""

  writer: base.Writer = dataclasses.field(default_factory=Student)
  capacity: int = 1000

  def __post_init__(self):
    if self.capacity < 1:
      raise types.UserError(
        f"{type(self).__name__}.capacity: found {self.capacity}, expected at "
        "least 1"
      )

  def init(self, batch):
    if len(batch.example_id) > self.capacity:
      raise types.UserError(
        f"{type(self).__name__}.capacity is {self.capacity}, less than a batch "
        f"of {len(batch.example_id)} rows"
      )
    return {
      "ring": empty(batch, self.capacity),
      "writer": self.writer.init(batch),
    }

  def _write(self, batch, kept, scene):
    batch, own = self.writer.write(batch, kept["writer"], scene)
    ring = push(kept["ring"], batch, scene.step)
    return batch, {**kept, "ring": ring, "writer": own}


@dataclasses.dataclass(frozen=True)
class Replay(_Kept):
  """Fresh answers for some batches, kept ones for the others.

  Attributes:
    fresh: the share of batches that are written anew; all are until the ring
      has a batch.
  """

  fresh: float = 0.5

  def sources(self) -> tuple[str, ...]:
    return (*self.writer.sources(), "replay")

  def write(self, batch, kept, scene):
    draw, rows = jax.random.split(scene.fresh)
    anew = jax.random.uniform(draw) < self.fresh
    anew |= kept["ring"]["pushed"] < len(batch.example_id)

    def again(batch, kept):
      found = pull(kept["ring"], batch, rows, scene.step)
      return _from(found, len(self.writer.sources())), kept

    write = lambda b, k: self._write(b, k, scene.apart(1))  # noqa: E731
    return jax.lax.cond(anew, write, again, batch, kept)


@dataclasses.dataclass(frozen=True)
class AdaptiveReplay(_Kept):
  """DistiLLM's adaptive off-policy scheduler over a replay buffer.

  With probability `threshold * (1 - step / steps)` the writer writes anew and
  the answers are kept; else, with probability up to `threshold`, kept answers
  are learnt from again; else the data's own. The threshold starts at 0 and
  grows by `increment` when an evaluation's loss exceeds the reference by
  `margin`; only then does the reference move. While the ring is not full,
  whatever falls below the threshold is written anew.

  Attributes:
    metric: of the evaluation, such as `eval/ce` (nats per token).
    margin: how much worse than the reference, in nats.
    increment: of the threshold.
    steps: of the run, over which writing anew fades; None for no fading.

  References: Ko et al., 2024, arXiv:2402.03898, section 3.2 and released code.
  """

  metric: str = "eval/ce"
  margin: float = 0.1
  increment: float = 0.1
  steps: int | None = None

  def sources(self) -> tuple[str, ...]:
    return (*self.writer.sources(), "replay", "dataset")

  def metrics(self) -> tuple[str, ...]:
    return (*self.writer.metrics(), self.metric)

  def init(self, batch):
    return {
      **super().init(batch),
      "threshold": jnp.zeros((), jnp.float32),
      "reference": jnp.full((), jnp.inf, jnp.float32),
    }

  def on_eval(self, kept, row):
    own = self.writer.on_eval(kept["writer"], row)
    if self.metric not in row:
      raise types.UserError(
        f"AdaptiveReplay.metric is {self.metric!r}, which no evaluation gives; "
        f"found {', '.join(sorted(row))}"
      )
    loss, reference = row[self.metric], float(kept["reference"])
    threshold = float(kept["threshold"])
    if reference == float("inf"):
      reference = loss
    elif loss >= reference + self.margin:
      threshold, reference = min(threshold + self.increment, 1.0), loss
    moved = {"threshold": threshold, "reference": reference}
    moved = {
      k: jax.device_put(np.float32(v), kept[k].sharding)
      for k, v in moved.items()
    }
    return {**kept, **moved, "writer": own}

  def write(self, batch, kept, scene):
    draw, rows = jax.random.split(scene.fresh)
    drawn, ring = jax.random.uniform(draw), kept["ring"]
    left = 1.0
    if self.steps is not None:
      left = jnp.maximum(1 - scene.step / self.steps, 0.0)
    below = drawn < kept["threshold"]
    full = ring["pushed"] >= self.capacity
    anew = below & ((drawn < kept["threshold"] * left) | ~full)
    first = len(self.writer.sources())

    def again(batch, kept):
      return _from(pull(kept["ring"], batch, rows, scene.step), first), kept

    def given(batch, kept):
      batch, _ = Dataset().write(batch, {}, scene)
      return _from(batch, first + 1), kept

    write = lambda b, k: self._write(b, k, scene.apart(1))  # noqa: E731
    which = jnp.where(anew, 0, jnp.where(below, 1, 2))
    return jax.lax.switch(which, [write, again, given], batch, kept)


def _from(batch: types.Batch, source: int) -> types.Batch:
  """The batch, said to come from another source."""
  data = batch.data | {"source": jnp.full_like(batch.data["source"], source)}
  return dataclasses.replace(batch, data=data)
