# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Adaptive KL: forward and reverse, weighed token by token.

    L = mean_t g_h/(g_h + g_l) KL(p || q) + g_l/(g_h + g_l) KL(q || p)

g_h and g_l are the sums of |p - q| over the head (the most probable ids up to
a mass of mu) and the tail of the teacher's distribution, without gradient:
forward KL fits the head first, reverse KL the tail.

Paper: Wu et al., 2024, arXiv:2404.02657.
Fidelity: code.
Departures: paper and code differ in the id with which the mass passes mu, see
`boundary`. Ids of equal probability there stay together instead of falling to
either side by their position in a sort.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax

from jdistill import losses, types
from jdistill.methods import base


@dataclasses.dataclass(frozen=True)
class AdaptiveKL(base.TokenMethod):
  """Mean over target tokens of the adaptive KL, in nats.

  `boundary` says where the id belongs with which the mass passes mu: to the
  tail as in the authors' code, or to the head as in the paper's text.
  """

  mu: float = 0.5
  tau: float = 1.0
  boundary: Literal["head", "tail"] = "tail"

  def needs(self) -> base.Needs:
    return base.Needs(sparse=base.at_temperature(base.COARSE, self.tau))

  def terms(
    self,
    logits: Mapping[str, jax.Array],
    data: Mapping[str, jax.Array],
    params: types.PyTree,
    step: jax.Array,
  ) -> dict[str, base.Term]:
    del data, params, step
    value = losses.adaptive_kl(
      logits["student"],
      logits["teacher"],
      mu=self.mu,
      tau=self.tau,
      boundary=self.boundary,
    )
    return {"adaptive_kl": base.Term(value)}
