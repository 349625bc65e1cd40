# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A model on one batch, as methods ask it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jdistill import types

HEARD = ("embed",)
"""Features of a teacher that a student hears."""


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
