# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Which tokens of an answer belong together."""

import dataclasses

import jax.numpy as jnp

from jdistill import types
from jdistill.rollout import base
from jdistill.rollout.models import Student


@dataclasses.dataclass(frozen=True)
class Spanned(base.Around):
  """What a writer writes, parted into spans, such as words.

  Beside what the writer gives, `data` has `spans` [B, T] int32: of each target
  the number of its span in the answer, from 1, and 0 for what is in none.
  `methods.SpanLoss` reads it.

  Attributes:
    writer: writes the answers.
    between: the tokens that part spans, and belong to none.

  References: Liu et al., 2024, arXiv:2407.10068, section 3.3.
  """

  writer: base.Writer = dataclasses.field(default_factory=Student)
  between: tuple[int, ...] = ()

  def blank(self, batch):
    return self._parted(self.writer.blank(batch))

  def init(self, batch):
    data = {k: v for k, v in batch.data.items() if k != "spans"}
    return self.writer.init(dataclasses.replace(batch, data=data))

  def write(self, batch, kept, scene):
    batch, kept = self.writer.write(batch, kept, scene)
    return self._parted(batch), kept

  def _parted(self, batch: types.Batch) -> types.Batch:
    view = batch["student"]
    counts = view.mask > 0
    parts = counts & jnp.isin(view.targets, jnp.array(self.between, jnp.int32))
    number = 1 + jnp.cumsum(parts, axis=1)
    spans = jnp.where(counts & ~parts, number, 0).astype(jnp.int32)
    data = batch.data | {"spans": spans}
    return dataclasses.replace(batch, data=data)
