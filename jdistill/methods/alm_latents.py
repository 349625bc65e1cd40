# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""ALM's further term: hidden states that have read the same text are close.

    L = mean over pairs of mean_{c,d} (s_cd - t_cd)^2 / mean_c t_cd^2

s and t are what student and teacher know behind chunk c, at the same channel d:
for a student that has the teacher's body and another tokenizer. `Sum` puts it
beside `ALM`.

Paper: Minixhofer et al., 2025, arXiv:2503.20083.
Fidelity: code.
Departures: means are over the chunks of the global batch; chunks at the end of
a document are left out, as nothing is read behind them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from jdistill import losses, types
from jdistill.methods import base

KEPT = "alm_latents"
HIDDEN = "hidden"
_EPSILON = 1e-8


@dataclasses.dataclass(frozen=True)
class ALMLatents(base.Method):
  """Mean over pairs of features of their normalised distance, no unit.

  `pairs` name a feature of the student's and one of the teacher's each;
  "hidden" are the final hidden states. `distance` is squared or absolute, and
  divided by the teacher's mean of the same: of each channel, or of all. Where
  the widths differ a projector is trained.
  """

  pairs: tuple[tuple[str, str], ...] = ((HIDDEN, HIDDEN),)
  distance: Literal["l2_channelwise", "l1_channelwise", "l2", "l1"] = (
    "l2_channelwise"
  )

  def needs(self) -> base.Needs:
    return base.Needs(
      views=("student", "teacher"),
      same_vocabulary=False,
      data=("student_chunks", "teacher_chunks"),
    )

  def wants(self) -> Mapping[str, tuple[str, ...]]:
    found = {}
    for side, names in zip(
      ("student", "teacher"), zip(*self.pairs, strict=True), strict=True
    ):
      names = dict.fromkeys(n for n in names if n != HIDDEN)
      found[side] = tuple(names)
    return found

  def init(
    self, key: jax.Array, shapes: Mapping[str, types.Outputs]
  ) -> types.PyTree:
    """A kernel [D, E] and bias [E] for each pair of different widths."""
    params, keys = {}, jax.random.split(key, len(self.pairs))
    for i, names in enumerate(self.pairs):
      own, other = (
        _feature(shapes[side], name).shape[-1]
        for side, name in zip(("student", "teacher"), names, strict=True)
      )
      if own != other:
        draw = jax.nn.initializers.lecun_normal()
        kernel = draw(keys[i], (own, other), jnp.float32)
        params[str(i)] = {"kernel": kernel, "bias": jnp.zeros(other)}
    return params

  def survey(
    self,
    params: types.PyTree,
    student: base.Speaker,
    teachers: base.Teachers,
    batch: types.Batch,
  ) -> types.PyTree:
    """The teacher's states behind chunks, and the sums of their sizes."""
    del params, student
    outputs = teachers["teacher"]("teacher", self.wants()["teacher"])
    index, real = _places(batch, "teacher")
    found = {}
    for i, (_, name) in enumerate(self.pairs):
      state = _at(_feature(outputs, name), index)
      size = jnp.abs(state) if self._absolute else state**2
      found[str(i)] = {
        "state": state,
        "size": jnp.where(real[..., None], size, 0).sum(1),
      }
    return jax.lax.stop_gradient(found)

  def prepare(
    self, arrays: types.PyTree, batch: types.Batch, keys: jax.Array
  ) -> types.Batch:
    del keys
    _, real = _places(batch, "teacher")
    count = jnp.maximum(real.sum(), 1)
    own = {}
    for i, found in arrays.items():
      scale = found["size"].sum(0) / count  # [D]
      if not self.distance.endswith("channelwise"):
        scale = jnp.broadcast_to(scale.mean(), scale.shape)
      own[f"{KEPT}/{i}/state"] = found["state"]
      own[f"{KEPT}/{i}/scale"] = jnp.broadcast_to(scale, found["size"].shape)
    return dataclasses.replace(batch, data={**batch.data, **own})

  def norms(self, batch: types.Batch) -> dict[str, jax.Array]:
    return {"chunks": _places(batch, "student")[1].sum().astype(jnp.float32)}

  def loss(
    self,
    params: types.PyTree,
    student: base.Speaker,
    teachers: base.Teachers,
    batch: types.Batch,
    ctx: base.Context,
  ) -> types.Loss:
    del teachers
    outputs = student("student", self.wants()["student"])
    index, real = _places(batch, "student")
    total, metrics = jnp.zeros(()), {}
    for i, (name, _) in enumerate(self.pairs):
      own = _at(_feature(outputs, name), index)
      if str(i) in params:
        own = losses.project(own, **params[str(i)])
      gap = own - batch.data[f"{KEPT}/{i}/state"]
      gap = jnp.abs(gap) if self._absolute else gap**2
      scale = batch.data[f"{KEPT}/{i}/scale"][:, None] + _EPSILON
      value = jnp.where(real, (gap / scale).mean(-1), 0).sum()
      total = total + value / ctx.norms["chunks"] / len(self.pairs)
      key = f"{self.distance}/{i}" if len(self.pairs) > 1 else self.distance
      metrics[key] = types.Mean(value, real.sum())
    return types.Loss(total, jax.lax.stop_gradient(metrics))

  @property
  def _absolute(self) -> bool:
    return self.distance.startswith("l1")


def _feature(outputs: types.Outputs, name: str) -> types.Leaf:
  return outputs.hidden if name == HIDDEN else outputs.features[name]


def _places(batch: types.Batch, view: str) -> tuple[jax.Array, jax.Array]:
  """Positions behind the chunks, [B, C], and which are there on both sides."""
  num = base.num_chunks(batch)
  both = [base.behind_chunks(batch, v, num) for v in ("student", "teacher")]
  index = both[0] if view == "student" else both[1]
  return index, (both[0] > 0) & (both[1] > 0)


def _at(states: jax.Array, index: jax.Array) -> jax.Array:
  """[B, C, D] of states [B, T, D], in float32 at least."""
  wide = jnp.promote_types(states.dtype, jnp.float32)
  return jnp.take_along_axis(states, index[..., None], axis=1).astype(wide)
