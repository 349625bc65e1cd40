# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Span relations: how the distributions of neighbours go together.

    r_t = p_t p_{t+1}, id by id, for neighbours t, t+1 in one span
    L = mean over such pairs of sum_v (r_t^T - r_t^S)^2

Spans are words or phrases: `batch.data["spans"]` [B, T] int32 says which span
each target of the view "student" belongs to, 0 none. The values are small, as
products of probabilities are.

Each pair's two full distributions are made together, in one chunk: neighbours
are handed out side by side (`Outputs.with_next`), which costs the head's
products a second time and no [B, T, V].

Paper: Liu et al., 2024 (multi-granularity semantic revision), arXiv:2407.10068.
Fidelity: reconstructed.
Departures: who finds the spans is the data's business. A `Sum` puts it beside
other terms, all of weight 1 in the paper.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jdistill import types
from jdistill.methods import base


@dataclasses.dataclass(frozen=True)
class SpanLoss(base.TokenMethod):
  """Mean over neighbours in a span of the squared distance of their products.

  A pair counts where both targets do and are of one document.
  """

  def needs(self) -> base.Needs:
    return base.Needs(data=("spans",))

  def norms(self, batch: types.Batch) -> dict[str, jax.Array]:
    return {"pairs": _pairs(batch).sum()}

  def streams(
    self,
    student: base.Speaker,
    teachers: base.Teachers,
    batch: types.Batch,
  ) -> dict[str, types.Outputs]:
    found = super().streams(student, teachers, batch)
    return {name: output.with_next() for name, output in found.items()}

  def data(self, batch: types.Batch) -> dict[str, jax.Array]:
    return {**super().data(batch), "pairs": _pairs(batch)}

  def terms(
    self,
    logits: Mapping[str, jax.Array],
    data: Mapping[str, jax.Array],
    params: types.PyTree,
    step: jax.Array,
  ) -> dict[str, base.Term]:
    del params, step
    relations = {
      k: jnp.prod(jax.nn.softmax(x), axis=-2) for k, x in logits.items()
    }
    gap = jnp.square(relations["student"] - relations["teacher"]).sum(-1)
    return {"span": base.Term(gap, weight=data["pairs"], norm="pairs")}


def _pairs(batch: types.Batch) -> jax.Array:
  """[B, T] 1 where a target and the next one are a pair."""
  view = base.text(batch, "student", "SpanLoss")
  spans = batch.data["spans"]
  joined = jnp.ones(spans.shape, bool).at[:, -1].set(False)
  for x in (spans, view.segment_ids):
    joined &= x == jnp.roll(x, -1, axis=1)
  both = view.mask * jnp.roll(view.mask, -1, axis=1)
  return jnp.where(joined & (spans != 0), both, 0)
