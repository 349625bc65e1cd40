# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""EAGLE: a draft that guesses its target's features, and with them its tokens.

    L = 1.0 mean_t SmoothL1(f_t, h_t) + 0.1 mean_t CE(p_t, q_t)

h_t is the target's last hidden state, f_t the draft's guess of it from h_{t-1}
and the token t, the first term a mean over the width; p_t and q_t are what the
target's frozen head makes of them, CE = -sum p log q. The target says all this
during the run, so nothing of it is stored: that is SpecVLM's online
distillation. The student is a `jdistill.models.FeatureDraft`, or another model
with the feature "guess"; of FSPAD's switches, which are its own, this loss
reaches `unaligned` dimensions by its second term alone.

Paper: Li et al., 2024 (EAGLE), arXiv:2401.15077; Huang et al., 2025 (SpecVLM),
arXiv:2509.11815; Gui et al., 2024 (FSPAD), arXiv:2408.15562.
Fidelity: code (of EAGLE; FSPAD is reconstructed).
Departures: each position counts where its target does; theirs counts where the
token before it is of an answer, and never at the first token of a document,
which has no features before it and is read here with zeros. Gradients are
clipped by their norm and not, as theirs, each value by itself.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jdistill import losses, types
from jdistill.methods import base

GUESS = "guess"


@dataclasses.dataclass(frozen=True)
class EAGLE(base.Method):
  """Weighted sum of the distance of features and of soft cross entropy."""

  feature_weight: float = 1.0
  ce_weight: float = 0.1

  def wants(self) -> Mapping[str, tuple[str, ...]]:
    return {"student": (GUESS,)}

  def loss(
    self,
    params: types.PyTree,
    student: base.Speaker,
    teachers: base.Teachers,
    batch: types.Batch,
    ctx: base.Context,
  ) -> types.Loss:
    parts = {"": (_SoftCrossEntropy(), self.ce_weight)}
    ce = base.walk_methods(parts, {"": params}, student, teachers, batch, ctx)
    guess = student("student", (GUESS,)).features[GUESS]
    feature = jax.lax.stop_gradient(teachers["teacher"]("student").hidden)
    mask = batch["student"].mask
    value = losses.smooth_l1(guess, feature)
    value = jnp.where(mask != 0, value * mask, 0).sum()
    total = ce.total + self.feature_weight * value / ctx.norms["tokens"]
    metric = types.Mean(jax.lax.stop_gradient(value), mask.sum())
    return types.Loss(total, {**ce.metrics, "smooth_l1": metric})


@dataclasses.dataclass(frozen=True)
class _SoftCrossEntropy(base.TokenMethod):
  def terms(
    self,
    logits: Mapping[str, jax.Array],
    data: Mapping[str, jax.Array],
    params: types.PyTree,
    step: jax.Array,
  ) -> dict[str, base.Term]:
    del data, params, step
    value = losses.soft_cross_entropy(logits["student"], logits["teacher"])
    return {"soft_ce": base.Term(value)}
