# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Skewed KL divergences, the loss of DistiLLM.

    forward:  L = mean_t KL(p || skew p + (1 - skew) q)
    reverse:  L = mean_t KL(q || (1 - skew) p + skew q)

Gradients flow through q in the mixture too; the mixture keeps them bounded
where the two have little in common.

Paper: Ko, Kim, Chen & Yun, 2024, arXiv:2402.03898.
Fidelity: code.
Departures: this is the divergence alone; the adaptive choice of the text and
the language-model term on pre-training text are not part of it (`Sum` adds
`CrossEntropy`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax

from jdistill import losses, types
from jdistill.methods import base


@dataclasses.dataclass(frozen=True)
class SkewKL(base.TokenMethod):
  """Mean over target tokens of a skewed KL, in nats.

  `forward` starts from the teacher, `reverse` from the student; `skew` is
  its share in the mixture.
  """

  direction: Literal["forward", "reverse"] = "reverse"
  skew: float = 0.1
  tau: float = 1.0

  def needs(self) -> base.Needs:
    finite = self.direction == "forward" or self.skew > 0
    rests = base.FORWARD if finite else base.COARSE
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
      "forward": losses.skew_forward_kl,
      "reverse": losses.skew_reverse_kl,
    }[self.direction]
    value = divergence(
      logits["student"], logits["teacher"], skew=self.skew, tau=self.tau
    )
    return {f"skew_{self.direction}_kl": base.Term(value)}
