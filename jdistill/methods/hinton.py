# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Hinton's knowledge distillation: labels and softened teacher together.

    L = mean_t (1 - lam) CE(y_t, q_t) + lam tau^2 KL(p_t^tau || q_t^tau)

p teacher, q student; the superscript is the temperature, 1 in the CE.

Paper: Hinton, Vinyals & Dean, 2015, arXiv:1503.02531.
Fidelity: code (mdistiller's; the paper came without).
Departures: the paper leaves the weights of the two open ("a considerably lower
weight" on the labels); lam = 0.9 and tau = 4 are the usual choice for small
image classifiers. It weighs a cross entropy with soft targets, here it is the
KL, whose gradient is the same and whose minimum is 0.
"""

import dataclasses
from collections.abc import Mapping

import jax

from jdistill import losses, schedules, types
from jdistill.methods import base


@dataclasses.dataclass(frozen=True)
class Hinton(base.TokenMethod):
  """Cross entropy with the labels, and KL to the teacher at `tau`, in nats.

  `lam` is the share of the KL; a schedule anneals it. For language models
  tau = 1 is usual.
  """

  lam: float | schedules.Schedule = 0.9
  tau: float = 4.0

  def terms(
    self,
    logits: Mapping[str, jax.Array],
    data: Mapping[str, jax.Array],
    params: types.PyTree,
    step: jax.Array,
  ) -> dict[str, base.Term]:
    del params
    student, teacher = logits["student"], logits["teacher"]
    lam = schedules.at(self.lam, step)
    ce = losses.cross_entropy(student, data["targets"])
    kl = losses.forward_kl(student, teacher, tau=self.tau)
    return {
      "ce": base.Term(ce, 1 - lam),
      "kl": base.Term(kl, lam * self.tau**2),
    }
