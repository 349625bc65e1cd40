# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""On-policy distillation from sampled tokens: the student's text, judged.

    A_t = log p(y_t) - log q_old(y_t), without gradient
    importance:  L = mean_t -(q(y_t) / q_old(y_t)) A_t
    clip:        L = mean_t max(-A_t r_t, -A_t clip(r_t)),  r_t = q / q_old
    k2:          L = mean_t (log p(y_t) - log q(y_t))^2 / 2

q_old is the student that wrote y. For q = q_old all three have the gradient of
mean_t KL(q || p) at the tokens' prefixes, on average over the text; they need
one number per token of the teacher. Where the teacher gives its whole
distribution, `KD("reverse_kl")` on the same text is that KL itself: the same
expected gradient, without the noise of the draw.

Paper: Agarwal et al., 2023 (GKD, on-policy text), arXiv:2306.13649; Lu &
Thinking Machines Lab, 2025, "On-Policy Distillation" (the importance form); Xu
et al., 2025 (KDRL, k2), arXiv:2506.02208.
Fidelity: code (of the Tinker cookbook; k2 from the paper).
Departures: their discount of later advantages, 0 by default, is left out;
`MiniLLM` has one. The mean is over all target tokens of the global batch.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from jdistill import losses, types
from jdistill.methods import base


@dataclasses.dataclass(frozen=True)
class OnPolicyDistillation(base.WrittenTextMethod):
  """Mean over the student's own tokens of a policy loss towards the teacher.

  `clip` is for the loss "clip". `truncate` weighs each token by `min(q_old /
  sampler, truncate)`, where the sampler is what the tokens were really drawn
  from; None takes q_old for the sampler. The metric `k1` is log q - log p, an
  estimate of KL(q || p) in nats.
  Rows that no model wrote do not count.
  """

  kind: Literal["importance", "clip", "k2"] = "importance"
  clip: float = 0.2
  truncate: float | None = None

  def needs(self) -> base.Needs:
    drawn = () if self.truncate is None else ("sampling_log_probs",)
    return base.Needs(data=("log_probs", *drawn))

  def terms(
    self,
    logits: Mapping[str, jax.Array],
    data: Mapping[str, jax.Array],
    params: types.PyTree,
    step: jax.Array,
  ) -> dict[str, base.Term]:
    del params, step
    q = base.log_probs(logits["student"], data["targets"])
    p = base.log_probs(logits["teacher"], data["targets"])
    if self.kind == "k2":
      value = losses.k2(q, p)
    else:
      clip = self.clip if self.kind == "clip" else jnp.inf
      old = data["log_probs"]
      value = losses.clipped_surrogate(q, old, p - old, clip=clip)
    if self.truncate is not None:
      value = value * losses.truncated_weights(
        data["log_probs"], data["sampling_log_probs"], limit=self.truncate
      )
    return {
      self.kind: base.Term(value),
      "k1": base.Term(losses.k1(q, p), scale=0.0),
    }
