# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Each example is taught by the teacher of its domain.

    L = mean_t D(p_i(b), q),  i(b) the teacher of example b's domain

Paper: Tan, Ren, He, Qin, Zhao & Liu, 2019, arXiv:1902.10461 (one student of
many languages, for each of which there is a teacher).
Fidelity: paper.
Departures: any method instead of their sum of two losses, and no rule that
leaves out a teacher whom the student has passed.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jdistill import types
from jdistill.methods import base
from jdistill.methods.several import Blend, Several

DOMAIN = "domain"
"""The array of a batch, [B] int32, that says each row's domain."""


@dataclasses.dataclass(frozen=True)
class Routed(Several):
  """A method whose teacher is chosen by the domain of each row.

  A teacher reads a batch (or a microbatch) only if there is a row for it, and
  then all rows: `data.Domains(batches="pure")` makes batches of one domain, of
  which each costs one teacher.

  Attributes:
    teachers: a name for each domain, in the order of `data.Domains`; one
      teacher may have several.
  """

  teachers: tuple[str, ...]

  def members(self) -> tuple[str, ...]:
    if not self.teachers:
      raise types.UserError(
        "method.teachers: Routed has no teacher; give one for each domain"
      )
    return tuple(dict.fromkeys(self.teachers))

  def needs(self) -> base.Needs:
    own = super().needs()
    data = tuple(dict.fromkeys((*own.data, DOMAIN)))
    return dataclasses.replace(own, data=data, domains=len(self.teachers))

  def blend(
    self,
    params: types.PyTree,
    batch: types.Batch,
    step: jax.Array | None,
  ) -> Blend:
    del params, step
    members = self.members()
    which = jnp.asarray([members.index(name) for name in self.teachers])
    domain = batch.data[DOMAIN]
    weights = jax.nn.one_hot(which[domain], len(members))  # [B, n]
    rows = base.has_targets(batch["student"].mask)
    return Blend(weights * rows[:, None], "logit", skips=True)
