# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Hidden states of the student brought close to those of the teacher.

    L = mean over pairs (i, j) of mean_t d(h_i W_i + b_i, g_j)

h student, g teacher features; d is the mean squared difference, 1 - cosine, or
smooth L1; the affine projectors are trained with the student.

Paper: Romero et al., 2014 (FitNets), arXiv:1412.6550 (MSE with a regressor);
Sun et al., 2019 (patient KD), arXiv:1908.09355 (layer maps); Sanh et al., 2019
(DistilBERT), arXiv:1910.01108 (cosine).
Fidelity: reconstructed.
Departures: FitNets trains up to one hint layer first and distils after; here
all pairs are trained together, and a `Sum` puts other terms beside them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from jdistill import losses, types
from jdistill.methods import base


def layer_map(
  num_student: int,
  num_teacher: int,
  *,
  kind: Literal["skip", "last"] = "skip",
  name: str = "layers/{}/out",
) -> tuple[tuple[str, str], ...]:
  """Pairs of feature names for `Features`, one for each student layer.

  Args:
    num_student: number of student layers.
    num_teacher: number of teacher layers, no fewer.
    kind: see `losses.layer_pairs`.
    name: of a layer's feature, the same for both.
  """
  pairs = losses.layer_pairs(num_student, num_teacher, kind=kind)
  return tuple((name.format(i), name.format(j)) for i, j in pairs)


@dataclasses.dataclass(frozen=True)
class Features(base.Method):
  """Mean over pairs of features and over targets of a distance.

  `pairs` name a student's and a teacher's feature each (`layer_map` makes
  them). Widths may differ: a projector is then trained; `projector="always"`
  has one for equal widths too. A feature [B, D] counts once per row that has a
  target; axes between the view's and the width (pixels) are averaged.
  """

  pairs: tuple[tuple[str, str], ...] = (("layers/0/out", "layers/0/out"),)
  distance: Literal["mse", "cosine", "smooth_l1"] = "mse"
  projector: Literal["auto", "always"] = "auto"

  def needs(self) -> base.Needs:
    return base.Needs(same_vocabulary=False)

  def wants(self) -> Mapping[str, tuple[str, ...]]:
    student, teacher = zip(*self.pairs, strict=True)
    unique = lambda names: tuple(dict.fromkeys(names))  # noqa: E731
    return {"student": unique(student), "teacher": unique(teacher)}

  def init(
    self, key: jax.Array, shapes: Mapping[str, types.Outputs]
  ) -> types.PyTree:
    """A kernel [D, E] and bias [E] for each pair that needs a projector."""
    params = {}
    keys = jax.random.split(key, len(self.pairs))
    for i, (own, other) in enumerate(self.pairs):
      width = shapes["student"].features[own].shape[-1]
      target = shapes["teacher"].features[other].shape[-1]
      if width != target or self.projector == "always":
        draw = jax.nn.initializers.lecun_normal()
        kernel = draw(keys[i], (width, target), jnp.float32)
        params[str(i)] = {"kernel": kernel, "bias": jnp.zeros(target)}
    return params

  def norms(self, batch: types.Batch) -> dict[str, jax.Array]:
    mask = batch["student"].mask
    return {"tokens": mask.sum(), "rows": base.has_targets(mask).sum()}

  def loss(
    self,
    params: types.PyTree,
    student: base.Speaker,
    teachers: base.Teachers,
    batch: types.Batch,
    ctx: base.Context,
  ) -> types.Loss:
    wants = self.wants()
    own = student("student", wants["student"]).features
    other = teachers["teacher"]("student", wants["teacher"]).features
    mask, total, sums = batch["student"].mask, jnp.zeros(()), []
    for i, (name, target) in enumerate(self.pairs):
      value = self._distance(own[name], other[target], params.get(str(i), {}))
      rows = value.ndim < mask.ndim
      if value.shape[: mask.ndim] != mask.shape[: value.ndim]:
        raise types.UserError(
          f"Features: {name!r} has the shape {own[name].shape}, whose axes in "
          f"front are not those of the targets {mask.shape}"
        )
      value = value.mean(tuple(range(mask.ndim, value.ndim)))
      weight = base.has_targets(mask) if rows else mask
      value = jnp.where(weight != 0, value * weight, 0).sum()
      norm = ctx.norms["rows" if rows else "tokens"]
      total = total + value / norm / len(self.pairs)
      sums.append((value, weight.sum()))
    metrics = {
      f"{self.distance}/{i}" if len(sums) > 1 else self.distance: types.Mean(
        *jax.lax.stop_gradient(s)
      )
      for i, s in enumerate(sums)
    }
    return types.Loss(total, metrics)

  def _distance(self, own, other, projector) -> jax.Array:
    distance = {
      "mse": losses.mse,
      "cosine": losses.cosine,
      "smooth_l1": losses.smooth_l1,
    }[self.distance]
    return distance(own, jax.lax.stop_gradient(other), **projector)
