# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""ABKD: the alpha-beta divergence between teacher and student.

    L = mean_t -1/(a b) sum_v (p^a q^b - a/(a+b) p^(a+b) - b/(a+b) q^(a+b))

(1, 0) is forward KL and (0, 1) reverse KL; a larger alpha attends less to the
ids where the two differ most, a larger beta more to those the student is sure
of.

Paper: Wang et al., 2025, arXiv:2505.04560.
Fidelity: code.
Departures: alpha, beta and alpha + beta may be 0, or near it, without a jump;
the code switches to the limit's formula at exactly 0.
"""

import dataclasses
from collections.abc import Mapping

import jax

from jdistill import losses, types
from jdistill.methods import base


@dataclasses.dataclass(frozen=True)
class AlphaBetaKD(base.TokenMethod):
  """Mean over target tokens of the alpha-beta divergence.

  The defaults are the paper's for GPT-2.
  """

  alpha: float = 0.2
  beta: float = 0.7
  tau: float = 1.0

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
    value = losses.alpha_beta(
      logits["student"],
      logits["teacher"],
      alpha=self.alpha,
      beta=self.beta,
      tau=self.tau,
    )
    return {"alpha_beta": base.Term(value)}
