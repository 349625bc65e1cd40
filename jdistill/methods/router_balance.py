# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Experts that share the work: the load-balancing loss of mixtures.

    L = E mean_l sum_e f_le P_le

f_le is the number of times that tokens take expert e of layer l, per token, and
P_le the mean of its router probability; both over the real tokens of the whole
batch. L is the number of experts per token where all work alike. f has no
gradient, so a first pass counts it over all microbatches and the second is
linear in P: the gradient is exact.

Paper: Fedus, Zoph & Shazeer, 2021 (Switch), arXiv:2101.03961, Eq. 4; over the
global batch Qiu et al., 2025, arXiv:2501.11873, as for Qwen3.
Fidelity: reconstructed.
Departures: Switch balances each device's own tokens, here the batch is one.
transformers means f and P over layers before their product; `over="model"`
does as well.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from jdistill import types
from jdistill.methods import base

PROBS, TAKEN = "router/probs", "router/taken"
"""Features: probabilities [B, T, L, E], numbers of experts [B, T, L, K]."""

LOADS = "router_balance"


@dataclasses.dataclass(frozen=True)
class RouterBalance(base.Method):
  """The student's load-balancing loss; a `Sum` puts it beside others.

  `over` says whether each layer's load is balanced or only that of all layers
  together.
  """

  over: Literal["layer", "model"] = "layer"

  def needs(self) -> base.Needs:
    return base.Needs(teachers=(), same_vocabulary=False)

  def wants(self) -> Mapping[str, tuple[str, ...]]:
    return {"student": (PROBS, TAKEN)}

  def norms(self, batch: types.Batch) -> dict[str, jax.Array]:
    return {"real": _real(batch).sum()}

  def survey(
    self,
    params: types.PyTree,
    student: base.Speaker,
    teachers: base.Teachers,
    batch: types.Batch,
  ) -> types.PyTree:
    """How often each row's tokens take each expert, [B, L, E]."""
    del params, teachers
    found = student("student", (PROBS, TAKEN)).features
    experts = found[PROBS].shape[-1]
    taken = jax.nn.one_hot(found[TAKEN], experts).sum(-2)
    return jnp.einsum("btle,bt->ble", taken, _real(batch))

  def prepare(
    self, arrays: types.PyTree, batch: types.Batch, keys: jax.Array
  ) -> types.Batch:
    del keys
    loads = arrays.sum(0, keepdims=True) / jnp.maximum(_real(batch).sum(), 1)
    if self.over == "model":
      loads = loads.mean(1, keepdims=True)
    loads = jnp.broadcast_to(loads, arrays.shape)
    data = {**batch.data, f"{LOADS}/{self.over}": loads}
    return dataclasses.replace(batch, data=data)

  def loss(
    self,
    params: types.PyTree,
    student: base.Speaker,
    teachers: base.Teachers,
    batch: types.Batch,
    ctx: base.Context,
  ) -> types.Loss:
    del params, teachers
    probs = student("student", (PROBS,)).features[PROBS]
    layers, experts = probs.shape[-2:]
    real = _real(batch)
    loads = batch.data[f"{LOADS}/{self.over}"]
    value = jnp.einsum("btle,ble,bt->", probs, loads, real) * experts / layers
    metric = types.Mean(jax.lax.stop_gradient(value), real.sum())
    return types.Loss(value / ctx.norms["real"], {"balance": metric})


def _real(batch: types.Batch) -> jax.Array:
  """[B, T] 1 for tokens, 0 for padding."""
  view = base.text(batch, "student", "RouterBalance")
  return (view.segment_ids != 0).astype(jnp.float32)
