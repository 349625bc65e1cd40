# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""InfoNCE between pooled features: which row of the teacher is this one's?

    L = mean_i -log exp(s_ii / tau) / sum_j exp(s_ij / tau)

s_ij is the similarity of the student's row i and the teacher's row j, both
projected to one width. log N less the loss bounds their mutual information
from below.

Paper: van den Oord, Li & Vinyals, 2018, arXiv:1807.03748; as a distillation
loss Tian, Krishnan & Isola, 2019 (CRD), arXiv:1910.10699.
Fidelity: reconstructed.
Departures: CRD draws its negatives from a memory of all examples and scores
them by noise-contrastive estimation; here they are the rows of the batch.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from jdistill import losses, types
from jdistill.methods import base


@dataclasses.dataclass(frozen=True)
class InfoNCE(base.Method):
  """Mean over rows of the InfoNCE loss, in nats; accumulation is refused.

  `student` and `teacher` name features [B, D]. Both are projected to `width`
  by matrices that are trained along; None compares them as they are.
  """

  batch_coupled: ClassVar[bool] = True

  student: str = "pooled"
  teacher: str = "pooled"
  width: int | None = 128
  tau: float = 0.1
  similarity: Literal["cosine", "dot"] = "cosine"
  symmetric: bool = False

  def needs(self) -> base.Needs:
    return base.Needs(same_vocabulary=False)

  def wants(self) -> Mapping[str, tuple[str, ...]]:
    return {"student": (self.student,), "teacher": (self.teacher,)}

  def init(
    self, key: jax.Array, shapes: Mapping[str, types.Outputs]
  ) -> types.PyTree:
    """A kernel [D, width] for each side, or nothing."""
    features = {
      "student": shapes["student"].features[self.student],
      "teacher": shapes["teacher"].features[self.teacher],
    }
    for side, feature in features.items():
      if feature.ndim != 2:
        raise types.UserError(
          f"InfoNCE.{side}: feature {getattr(self, side)!r} has the shape "
          f"{feature.shape}, expected one vector per row [B, D], as 'pooled' is"
        )
    if self.width is None:
      return {}
    draw = jax.nn.initializers.lecun_normal()
    keys = jax.random.split(key, 2)
    return {
      side: draw(k, (feature.shape[-1], self.width), jnp.float32)
      for k, (side, feature) in zip(keys, features.items(), strict=True)
    }

  def norms(self, batch: types.Batch) -> dict[str, jax.Array]:
    return {"rows": base.has_targets(batch["student"].mask).sum()}

  def loss(
    self,
    params: types.PyTree,
    student: base.Speaker,
    teachers: base.Teachers,
    batch: types.Batch,
    ctx: base.Context,
  ) -> types.Loss:
    own = student("student", (self.student,)).features[self.student]
    other = teachers["teacher"]("student", (self.teacher,))
    other = jax.lax.stop_gradient(other.features[self.teacher])
    if self.width is not None:
      own = losses.project(own, params["student"])
      other = losses.project(other, params["teacher"])
    rows = base.has_targets(batch["student"].mask)
    value = losses.info_nce(
      own,
      other,
      tau=self.tau,
      mask=rows,
      similarity=self.similarity,
      symmetric=self.symmetric,
    )
    total = value.sum()
    metric = types.Mean(jax.lax.stop_gradient(total), rows.sum())
    return types.Loss(total / ctx.norms["rows"], {"info_nce": metric})
