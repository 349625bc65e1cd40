# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Group relative policy optimisation: the student's answers and their rewards.

    A_i = (r_i - mean of its group) / (std of its group + eps)
    L = mean_t max(-A_i r_t, -A_i clip(r_t)),  r_t = q(y_t) / q_old(y_t)

Beside `OnPolicyDistillation("k2")` in a `Sum` it is KDRL: rewards say which
answers are good, the teacher which tokens.

Paper: Shao et al., 2024, arXiv:2402.03300; Liu et al., 2025 (Dr. GRPO:
`scale="none"`), arXiv:2503.20783; Yu et al., 2025 (DAPO: mean over the tokens
of all answers, `clip_high`), arXiv:2503.14476.
Fidelity: paper.
Departures: no KL to a reference, as in KDRL and DAPO; `KD` adds one. The
deviation is that of n - 1 answers, as in TRL and verl.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from jdistill import losses, types
from jdistill.methods import base

ADVANTAGES = "grpo/advantages"


@dataclasses.dataclass(frozen=True)
class GRPO(base.WrittenTextMethod):
  """Mean over the student's own tokens of PPO's loss, by rewards in groups.

  No teacher. Rows that no model wrote do not count. Groups may lie anywhere in
  the global batch; an answer alone in its group teaches nothing.
  """

  scale: Literal["std", "none"] = "std"
  clip: float = 0.2
  clip_high: float | None = None
  eps: float = 1e-4

  def needs(self) -> base.Needs:
    return base.Needs(
      teachers=(),
      same_vocabulary=False,
      data=("log_probs", "reward", "group"),
    )

  def arrays(self) -> tuple[str, ...]:
    return ("log_probs", ADVANTAGES)

  def prepare(
    self, arrays: types.PyTree, batch: types.Batch, keys: jax.Array
  ) -> types.Batch:
    del arrays, keys
    advantages = losses.group_advantages(
      jnp.asarray(batch.data["reward"], jnp.float32),
      batch.data["group"],
      base.has_targets(self.written(batch)),
      scale=self.scale,
      eps=self.eps,
    )
    return dataclasses.replace(
      batch, data={**batch.data, ADVANTAGES: advantages}
    )

  def terms(
    self,
    logits: Mapping[str, jax.Array],
    data: Mapping[str, jax.Array],
    params: types.PyTree,
    step: jax.Array,
  ) -> dict[str, base.Term]:
    del params, step
    value = losses.clipped_surrogate(
      base.log_probs(logits["student"], data["targets"]),
      data["log_probs"],
      data[ADVANTAGES],
      clip=self.clip,
      clip_high=self.clip_high,
    )
    return {"policy": base.Term(value)}
