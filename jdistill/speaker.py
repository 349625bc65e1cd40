# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A model on one batch, as methods ask it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdistill import types
from jdistill.methods import base
from jdistill.models.base import Architecture

HEARD = ("embed",)
"""Features of a teacher that a student hears."""

Tables = Mapping[str, Mapping[str, np.ndarray]]
"""What `base.Needs.tables` asks for, by the name of the speaker."""


@dataclasses.dataclass(frozen=True)
class Speaker:
  """A model on one batch; the same view is computed once per trace.

  One that `hears` another is told what that says of the view, and with `keys`,
  a row's each, that it is trained. `tables` are of its ids, see `base.Needs`.
  """

  model: types.Model
  batch: types.Batch
  want: tuple[str, ...] = ()
  said: dict[str, Any] = dataclasses.field(default_factory=dict)
  hears: "Speaker | None" = None
  keys: jax.Array | None = None
  tables: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __call__(
    self,
    view: str = "student",
    want: tuple[str, ...] = (),
    *,
    when: jax.Array | None = None,
  ) -> Any:
    """The model's outputs on a view, with every feature of `want`.

    Of a teacher of whom a few ids are known it is a `types.Sparse`. With
    `when`, [], hidden states are computed only where it is true, and are 0
    otherwise; nothing is remembered.

    Raises: ValueError if `want` names what `Method.wants` did not announce.
    """
    missing = set(want) - set(self.want)
    if missing:
      raise ValueError(f"features {sorted(missing)} are not in Method.wants()")
    if when is not None and view not in self.said:
      return self._if(when, view)
    if view not in self.said:
      told = {}
      if self.hears is not None:
        told = {"heard": self.hears(view, HEARD), "keys": self.keys}
      self.said[view] = self.model(self.batch[view], want=self.want, **told)
    return self.said[view]

  def _if(self, when: jax.Array, view: str) -> types.Outputs:
    def say() -> types.Outputs:
      return dataclasses.replace(self, said={})(view)

    # Of this only the head is read, so the rest is no part of the program.
    outputs = say()
    hidden = jax.lax.cond(
      when,
      lambda: say().hidden,
      lambda: jnp.zeros_like(outputs.hidden),
    )
    return types.Outputs(hidden, outputs.head, {}, {})


def wants(
  student: Architecture, method: base.Method
) -> dict[str, tuple[str, ...]]:
  """Features by model name: for the method, and for a student that hears."""
  found = dict(method.wants())
  if student.hears is not None:
    own = found.get(student.hears, ())
    found[student.hears] = tuple(dict.fromkeys((*own, *HEARD)))
  return found


def speakers(
  method: base.Method,
  models: tuple[Architecture, Mapping[str, Architecture], Any, Any],
  batch: types.Batch,
  keys: jax.Array | None = None,
  tables: Tables | None = None,
) -> tuple[Speaker, dict[str, Speaker]]:
  """The student and the teachers: architectures, then their parameters."""
  student, teachers, params, teacher_params = models
  want, tables = wants(student, method), tables or {}
  frozen = jax.lax.stop_gradient(teacher_params)
  voices = {}
  for name, arch in teachers.items():
    model, said = _silent, {}
    if name in batch.said:  # on devices of its own; here is but its head
      said = {
        view: outputs.with_head(frozen[name])
        for view, outputs in batch.said[name].items()
      }
    else:
      model = arch.for_evaluation().bind(frozen[name])
    voices[name] = Speaker(
      model, batch, want.get(name, ()), said, tables=tables.get(name, {})
    )
  learner = Speaker(
    student.bind(params["student"]),
    batch,
    want.get("student", ()),
    hears=None if student.hears is None else voices[student.hears],
    keys=keys,
    tables=tables.get("student", {}),
  )
  return learner, voices


def _silent(view: types.View, want: tuple[str, ...] = ()) -> types.Outputs:
  del view, want
  raise ValueError(
    "the method asks a teacher for a view that is not in needs()"
  )
