# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Writers made of writers."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from jdistill import schedules, types
from jdistill.rollout import base


@dataclasses.dataclass(frozen=True)
class Part:
  """One writer of a mixture and its share."""

  writer: base.Writer
  share: float | schedules.Schedule = 1.0


@dataclasses.dataclass(frozen=True)
class Mixture(base.Writer):
  """One of several writers, drawn for each batch or each row.

  GKD's lambda is the student's share beside that of the dataset. A part whose
  share is the number 0 is left out, with the teachers that only it needs: a
  control arm by a flag.

  Attributes:
    parts: writers and their shares, in proportion to each other.
    per: "batch" draws one writer for all rows, and only that one works; "row"
      draws for each row, and every writer that some row has drawn writes all.

  References: Agarwal et al., 2023, arXiv:2306.13649, algorithm 1.
  """

  parts: dict[str, Part]
  per: Literal["batch", "row"] = "batch"

  def __post_init__(self):
    fixed = [
      part.share
      for part in self.parts.values()
      if not isinstance(part.share, schedules.Schedule)
    ]
    if not self.parts or min(fixed, default=0) < 0 or (
      len(fixed) == len(self.parts) and sum(fixed) <= 0
    ):  # fmt: skip
      raise types.UserError(
        f"Mixture.parts: found the shares {fixed}, expected numbers of 0 or "
        "more, one of them positive"
      )

  @property
  def active(self) -> dict[str, Part]:
    """Parts that may write."""
    return {
      name: part
      for name, part in self.parts.items()
      if isinstance(part.share, schedules.Schedule) or part.share != 0
    }

  def sources(self) -> tuple[str, ...]:
    names = []
    for name, part in self.active.items():
      own = part.writer.sources()
      names += [name] if len(own) == 1 else [f"{name}/{one}" for one in own]
    return tuple(names)

  def teachers(self) -> tuple[str, ...]:
    return self._all(lambda writer: writer.teachers())

  def needs(self) -> tuple[str, ...]:
    return self._all(lambda writer: writer.needs())

  def metrics(self) -> tuple[str, ...]:
    return self._all(lambda writer: writer.metrics())

  def _all(self, of) -> tuple[str, ...]:
    found = [name for p in self.active.values() for name in of(p.writer)]
    return tuple(dict.fromkeys(found))

  def max_new_tokens(self) -> int:
    return max(p.writer.max_new_tokens() for p in self.active.values())

  def blank(self, batch):
    return next(iter(self.active.values())).writer.blank(batch)

  def init(self, batch):
    return {name: p.writer.init(batch) for name, p in self.active.items()}

  def on_eval(self, kept, row):
    return {
      name: part.writer.on_eval(kept[name], row)
      for name, part in self.active.items()
    }

  def write(self, batch, kept, scene):
    active = self.active
    shares = jnp.stack(
      [schedules.at(p.share, scene.step) for p in active.values()]
    )
    bounds = jnp.cumsum(shares / shares.sum())[:-1]
    # A number for each, so that a part left out changes no other's draws.
    numbers = {name: n for n, name in enumerate(self.parts, start=1)}
    branches, first = [], 0
    for name, part in active.items():
      own = scene.apart(numbers[name])
      branches.append(_branch(part.writer, name, own, first))
      first += len(part.writer.sources())
    if self.per == "batch":
      drawn = (jax.random.uniform(scene.fresh) >= bounds).sum()
      return jax.lax.switch(drawn, branches, batch, kept)
    drawn = jax.vmap(jax.random.uniform)(scene.row_keys(batch))
    drawn = (drawn[:, None] >= bounds[None]).sum(axis=1)
    written = self.blank(batch)
    for number, branch in enumerate(branches):
      mine = drawn == number
      one, kept = jax.lax.cond(
        mine.any(), branch, lambda b, k: (self.blank(b), k), batch, kept
      )
      written = base.select_rows(mine, one, written)
    return written, kept


def _branch(writer: base.Writer, name: str, scene: base.Scene, first: int):
  """One part of a mixture, as a function of the whole mixture's state."""

  def write(batch, kept):
    batch, own = writer.write(batch, kept[name], scene)
    data = batch.data | {"source": batch.data["source"] + first}
    return dataclasses.replace(batch, data=data), {**kept, name: own}

  return write


@dataclasses.dataclass(frozen=True)
class Beside(base.Writer):
  """Two answers to each prompt, in two views of the batch.

  Attributes:
    writer: writes the view "student", and everything that is said of it.
    other: writes another view.
    view: its name; `methods.DistiLLM2` learns from "teacher_text".
  """

  writer: base.Writer
  other: base.Writer
  view: str = "teacher_text"

  def sources(self) -> tuple[str, ...]:
    return self.writer.sources()

  def teachers(self) -> tuple[str, ...]:
    both = (*self.writer.teachers(), *self.other.teachers())
    return tuple(dict.fromkeys(both))

  def needs(self) -> tuple[str, ...]:
    return (*self.writer.needs(), *self.other.needs())

  def metrics(self) -> tuple[str, ...]:
    return (*self.writer.metrics(), *self.other.metrics())

  def max_new_tokens(self) -> int:
    return max(self.writer.max_new_tokens(), self.other.max_new_tokens())

  def blank(self, batch):
    return self._joined(self.writer.blank(batch), self.other.blank(batch))

  def init(self, batch):
    plain = dataclasses.replace(batch, views={"student": batch["student"]})
    return {
      "writer": self.writer.init(plain),
      "other": self.other.init(plain),
    }

  def on_eval(self, kept, row):
    return {
      "writer": self.writer.on_eval(kept["writer"], row),
      "other": self.other.on_eval(kept["other"], row),
    }

  def write(self, batch, kept, scene):
    one, own = self.writer.write(batch, kept["writer"], scene.apart(1))
    two, others = self.other.write(batch, kept["other"], scene.apart(2))
    return self._joined(one, two), {"writer": own, "other": others}

  def _joined(self, one: types.Batch, two: types.Batch) -> types.Batch:
    views = {**one.views, self.view: two["student"]}
    return dataclasses.replace(one, views=views)


@dataclasses.dataclass(frozen=True)
class Reused(base.Around):
  """Every batch that is written is learnt from in several updates.

  The prompts of the updates between are passed over.

  Attributes:
    writer: who writes.
    updates: from each batch, the first included.
  """

  writer: base.Writer
  updates: int = 4

  def __post_init__(self):
    if self.updates < 1:
      raise types.UserError(
        f"Reused.updates: found {self.updates}, expected at least 1"
      )

  def init(self, batch):
    return {
      "batch": jax.tree.map(jnp.zeros_like, base.stored(batch)),
      "writer": self.writer.init(batch),
    }

  def on_eval(self, kept, row):
    return {**kept, "writer": self.writer.on_eval(kept["writer"], row)}

  def write(self, batch, kept, scene):
    def anew(batch, kept):
      batch, own = self.writer.write(batch, kept["writer"], scene)
      return batch, {"batch": base.stored(batch), "writer": own}

    def again(batch, kept):
      del batch
      old = types.Batch(**kept["batch"])
      data = old.data | {"age": old.data["age"] + 1}
      old = dataclasses.replace(old, data=data)
      return old, {**kept, "batch": base.stored(old)}

    return jax.lax.cond(scene.step % self.updates == 0, anew, again, batch,
                        kept)  # fmt: skip
