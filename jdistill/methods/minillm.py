# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""MiniLLM: reverse KL of whole answers, by policy gradient and a direct part.

    r_t = clip((log p(y_t) - log q_old(y_t)) / scale),  w_t = q_old / sampler
    A_t = whiten((r_t + g r_{t+1} + g^2 r_{t+2} + ...) / tokens from t on)
    policy:       L = mean_t max(-A_t w_t q/q_old, -A_t clip(w_t q/q_old))
    single step:  L = mean_t KL(q_t || p_t), over the vocabulary
    sum:          L = policy + single step

The first says what a token leads to, the second what is wrong with it now. The
answers are to be drawn from 0.2 p + 0.8 q, which is the writer's choice; w
makes up for it.

Paper: Gu, Dong, Wei & Huang, 2023, arXiv:2306.08543, Sec. 2.2.
Fidelity: code.
Departures: the code whitens over all places of the batch, padding included,
and each mean is one of a process; here it is over target tokens of the global
batch. Documents that share a row pay each other nothing. The part on
pre-training text is not in it.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jdistill import losses, types
from jdistill.methods import base

ADVANTAGES = "minillm/advantages"


@dataclasses.dataclass(frozen=True)
class MiniLLM(base.WrittenTextMethod):
  """PPO on the teacher's log-ratio to come, and single-step reverse KL.

  `discount` is g; `scale` divides rewards, which are then held to
  `reward_clip`; `clip` is PPO's; `single_step` weighs the second part. Rows
  that no model wrote do not count.
  """

  discount: float = 0.95
  scale: float = 0.5
  reward_clip: float = 100.0
  clip: float = 0.2
  single_step: float = 1.0

  def needs(self) -> base.Needs:
    return base.Needs(data=("log_probs", "sampling_log_probs"))

  def arrays(self) -> tuple[str, ...]:
    return (*self.needs().data, ADVANTAGES)

  def survey(
    self,
    params: types.PyTree,
    student: base.Speaker,
    teachers: base.Teachers,
    batch: types.Batch,
  ) -> types.PyTree:
    """The teacher's log-probabilities of the targets, [B, T]."""
    del params
    view = base.text(batch, "student", "MiniLLM")
    streams = base.same_ids(
      {"student": student("student"), "teacher": teachers["teacher"]("student")}
    )
    return base.look(
      lambda logits, targets: base.log_probs(logits["teacher"], targets),
      {"teacher": streams["teacher"]},
      view.targets,
    )

  def prepare(
    self, arrays: types.PyTree, batch: types.Batch, keys: jax.Array
  ) -> types.Batch:
    del keys
    view = base.text(batch, "student", "MiniLLM")
    mask = self.written(batch)
    rewards = (arrays - batch.data["log_probs"]) / self.scale
    returns = losses.discounted_returns(
      jnp.clip(rewards, -self.reward_clip, self.reward_clip),
      mask,
      view.segment_ids,
      discount=self.discount,
      divide="remaining",
    )
    advantages = losses.whiten(returns, mask)
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
    old = data["log_probs"]
    policy = losses.clipped_surrogate(
      base.log_probs(logits["student"], data["targets"]),
      old,
      data[ADVANTAGES],
      clip=self.clip,
      weights=losses.truncated_weights(
        old, data["sampling_log_probs"], limit=jnp.inf
      ),
    )
    single = losses.reverse_kl(logits["student"], logits["teacher"])
    return {
      "policy": base.Term(policy),
      "reverse_kl": base.Term(single, self.single_step),
    }
