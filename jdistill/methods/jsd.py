# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The generalised Jensen-Shannon divergence of GKD.

    L = mean_t beta KL(p || m) + (1 - beta) KL(q || m),  m = beta p + (1-beta) q

Paper: Agarwal et al., 2023 (on-policy distillation, GKD),
arXiv:2306.13649.
Fidelity: code (TRL's).
Departures: this is the divergence alone; which text it is measured on is the
run's choice. Implementations switch to plain KL at beta = 0 and 1, where the
formula itself vanishes, so that the size of the loss jumps; here it vanishes,
and `rescale` divides by beta (1 - beta), which has both KLs as limits and no
jump.
"""

import dataclasses
from collections.abc import Mapping

import jax

from jdistill import losses, types
from jdistill.methods import base


@dataclasses.dataclass(frozen=True)
class JSD(base.TokenMethod):
  """Mean over target tokens of JSD(beta), in nats.

  `beta` is the teacher's share of the mixture. With `rescale` beta = 0 is
  forward KL and beta = 1 reverse KL.
  """

  beta: float = 0.5
  tau: float = 1.0
  rescale: bool = False

  def needs(self) -> base.Needs:
    rests = base.FORWARD if self.beta < 1 else base.COARSE
    return base.Needs(sparse=base.at_temperature(rests, self.tau))

  def terms(
    self,
    logits: Mapping[str, jax.Array],
    data: Mapping[str, jax.Array],
    params: types.PyTree,
    step: jax.Array,
  ) -> dict[str, base.Term]:
    del data, params, step
    value = losses.jsd(
      logits["student"],
      logits["teacher"],
      beta=self.beta,
      tau=self.tau,
      rescale=self.rescale,
    )
    return {"jsd": base.Term(value)}
