# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Knowledge distillation: a divergence per token between full distributions.

    L = mean_t D(p_t, q_t),  p teacher, q student, both at temperature tau

Paper: Hinton, Vinyals & Dean, 2015, arXiv:1503.02531, without the label term
(`Sum` adds `CrossEntropy`).
Fidelity: code (of DistiLLM and DSKD).
Departures: no tau**2 factor; at tau = 1, the language-model practice, there is
none to apply. `Hinton` has it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax

from jdistill import losses, types
from jdistill.methods import base


@dataclasses.dataclass(frozen=True)
class KD(base.TokenMethod):
  """Mean over target tokens of a divergence to the teacher, in nats.

  `forward_kl` is KL(teacher || student), `reverse_kl` the other way round,
  `jeffreys` their sum, `total_variation` half the L1 distance (no unit).
  """

  divergence: Literal[
    "forward_kl", "reverse_kl", "jeffreys", "total_variation"
  ] = "forward_kl"
  tau: float = 1.0

  def needs(self) -> base.Needs:
    rests = {
      "forward_kl": base.LINEAR,
      "total_variation": base.FORWARD,
    }.get(self.divergence, base.COARSE)
    return base.Needs(sparse=base.at_temperature(rests, self.tau))

  def terms(
    self,
    logits: Mapping[str, jax.Array],
    data: Mapping[str, jax.Array],
    params: types.PyTree,
    step: jax.Array,
  ) -> dict[str, base.Term]:
    del data, params, step
    divergence = {
      "forward_kl": losses.forward_kl,
      "reverse_kl": losses.reverse_kl,
      "jeffreys": losses.jeffreys,
      "total_variation": losses.total_variation,
    }[self.divergence]
    value = divergence(logits["student"], logits["teacher"], tau=self.tau)
    return {self.divergence: base.Term(value)}
