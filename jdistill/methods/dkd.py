# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Decoupled knowledge distillation: the target apart from the other classes.

    L = mean_t ce CE(y_t, q_t) + w(step) tau^2 (alpha TCKD_t + beta NCKD_t)

TCKD is the KL between the teacher's and the student's (target, not target);
NCKD that between their distributions over the others, renormalised. With beta
= 1 - p(y) their sum is tau^2 KL(p || q): plain KD hushes the others exactly
where the teacher is sure. w rises from 0 to 1 over `warmup` steps.

Paper: Zhao, Cui, Song, Qiu & Liang, 2022, arXiv:2203.08679; the warm-up and the
label term are in the authors' code (mdistiller).
Fidelity: code.
Departures: the code warms up over 20 epochs, in whole epochs; here it counts
steps, and there is no warm-up unless `warmup` is set. `targets="teacher"`, the
teacher's most probable token for the label, is for text and not in the paper.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from jdistill import losses, types
from jdistill.methods import base


@dataclasses.dataclass(frozen=True)
class DKD(base.TokenMethod):
  """Decoupled KD beside cross entropy, mean over targets, in nats.

  The authors use beta from 2 to 8, larger for surer teachers. `ce` weighs the
  cross entropy with the data's labels; `targets` says what DKD splits off.
  """

  alpha: float = 1.0
  beta: float = 8.0
  tau: float = 4.0
  ce: float = 1.0
  warmup: int = 0
  targets: Literal["data", "teacher"] = "data"

  def terms(
    self,
    logits: Mapping[str, jax.Array],
    data: Mapping[str, jax.Array],
    params: types.PyTree,
    step: jax.Array,
  ) -> dict[str, base.Term]:
    del params
    student, teacher = logits["student"], logits["teacher"]
    labels = data["targets"]
    target = labels if self.targets == "data" else teacher.argmax(-1)
    value = losses.dkd(
      student,
      teacher,
      target,
      alpha=self.alpha,
      beta=self.beta,
      tau=self.tau,
    )
    rise = jnp.minimum((step + 1) / max(self.warmup, 1), 1.0)
    return {
      "ce": base.Term(losses.cross_entropy(student, labels), self.ce),
      "dkd": base.Term(value, rise),
    }
