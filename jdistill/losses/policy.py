# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Losses and weights of text that a model wrote itself, token by token.

All arrays hold one number per token (or per row): log-probabilities of the
tokens that were written, rewards, advantages. As everywhere, values are
unreduced, the arithmetic is at least float32, and what a mask leaves out may be
any number without changing anything.

Sums over documents and groups belong to the *global* batch: call them there.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jdistill.losses.pairs import compute_dtype, widened
from jdistill.types import Nats, Scalar

Values = Float[Array, "*B"]
Mask = Float[Array, "*B"] | Bool[Array, "*B"]

LOG_RATIO_LIMIT = 20.0
"""Log-ratios of probabilities are cut here: e^20 weighs like infinity and does
not overflow, also where what is masked holds anything."""


def _log_ratio(student, teacher):
  """R = log p - log q; the teacher's side carries no gradient."""
  student, teacher = widened(student, teacher)
  return jax.lax.stop_gradient(teacher) - student


@jax.jit
def k1(student: Nats, teacher: Nats) -> Nats:
  """log q - log p of sampled tokens: KL(q || p) on average, in nats.

  A *value* to report, not a loss: its expected gradient is 0 for tokens drawn
  from q. As a reward (without gradient, of a policy gradient) it gives that of
  reverse KL.

  Args:
    student: [*B] log q of the tokens; gradients flow.
    teacher: [*B] log p of the tokens; no gradient.
  Returns: [*B], unreduced, of either sign.
  References: Tang & Munos, 2025, arXiv:2506.09477.
  Example:
    >>> q, p = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.75]))
    >>> print(k1(q, p).round(4))
    [ 0.6931 -0.4055]
  """
  return -_log_ratio(student, teacher)


@jax.jit
def k2(student: Nats, teacher: Nats) -> Nats:
  """(log p - log q)^2 / 2 of sampled tokens, in nats squared.

  For tokens drawn from q its expected gradient *is* that of reverse KL, KL(q ||
  p), taken over that one token; its mean is not that KL.

  Args:
    student: [*B] log q of the tokens; gradients flow.
    teacher: [*B] log p of the tokens; no gradient.
  Returns: [*B], unreduced, at least 0.
  References: Xu et al., 2025 (KDRL), arXiv:2506.02208; Tang & Munos, 2025,
    arXiv:2506.09477.
  Example:
    >>> q, p = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.75]))
    >>> print(k2(q, p).round(4))
    [0.2402 0.0822]
  """
  return jnp.square(_log_ratio(student, teacher)) / 2


@jax.jit
def k3(student: Nats, teacher: Nats) -> Nats:
  """R' - 1 - log R' of sampled tokens, R' = p/q: KL(q || p) on average.

  For tokens drawn from q its expected gradient is that of *forward* KL, KL(p ||
  q), though its mean is the reverse one.

  Args:
    student: [*B] log q of the tokens; gradients flow.
    teacher: [*B] log p of the tokens; no gradient.
  Returns: [*B], unreduced, at least 0, nats. Log-ratios beyond
    `LOG_RATIO_LIMIT` count as that and carry no gradient.
  References: Xu et al., 2025 (KDRL), arXiv:2506.02208; Tang & Munos, 2025,
    arXiv:2506.09477.
  Example:
    >>> q, p = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.75]))
    >>> print([f"{x:.3f}" for x in k3(q, p).tolist()])
    ['0.193', '0.095']
  """
  ratio = _limited(_log_ratio(student, teacher))
  return jnp.maximum(jnp.expm1(ratio) - ratio, 0)


def _limited(log_ratio):
  return jnp.clip(log_ratio, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


@jax.jit
def clipped_surrogate(
  log_probs: Nats,
  old_log_probs: Nats,
  advantages: Values,
  *,
  clip: Scalar = 0.2,
  clip_high: Scalar | None = None,
  weights: Values | None = None,
) -> Values:
  """max(-A r, -A clip(r)), r = w q / q_old: the policy loss of PPO.

  With `clip` infinite it is the plain importance form, -A q / q_old, whose
  gradient at q = q_old is the policy gradient.

  Args:
    log_probs: [*B] log q of the tokens; gradients flow.
    old_log_probs: [*B] log q_old, of the model that wrote them; no gradient.
    advantages: [*B] A; no gradient.
    clip: the ratio is held at or above 1 - clip.
    clip_high: and at or below 1 + clip_high; None takes `clip`.
    weights: [*B] w, of the ratio, where the tokens were drawn from something
      other than q_old; no gradient.
  Returns: [*B], unreduced, to be minimised. Log-ratios beyond
    `LOG_RATIO_LIMIT` count as that and carry no gradient.
  References: Schulman et al., 2017, arXiv:1707.06347, Eq. 7; Yu et al., 2025
    (DAPO, the higher upper clip), arXiv:2503.14476.
  Example:
    >>> old = jnp.log(jnp.array([0.5, 0.5]))
    >>> new = jnp.log(jnp.array([0.75, 0.75]))
    >>> print(clipped_surrogate(new, old, jnp.array([1.0, -1.0]), clip=0.25))
    [-1.25  1.5 ]
  """
  log_probs, old, advantages = widened(log_probs, old_log_probs, advantages)
  advantages = jax.lax.stop_gradient(advantages)
  ratio = jnp.exp(_limited(log_probs - jax.lax.stop_gradient(old)))
  if weights is not None:
    ratio = ratio * jax.lax.stop_gradient(weights).astype(ratio.dtype)
  high = clip if clip_high is None else clip_high
  low = jnp.asarray(1 - clip, ratio.dtype)
  held = jnp.clip(ratio, low, jnp.asarray(1 + high, ratio.dtype))
  return jnp.maximum(-advantages * ratio, -advantages * held)


@jax.jit
def truncated_weights(
  log_probs: Nats, old_log_probs: Nats, *, limit: Scalar = 2.0
) -> Values:
  """min(q / q_old, limit) of sampled tokens, without gradient.

  They turn a mean over tokens of q_old into (nearly) one over tokens of q:
  for text of an older student, or of a sampler that rounds differently.

  Args:
    log_probs: [*B] log q of the tokens.
    old_log_probs: [*B] log q_old, of what they were drawn from.
    limit: the most that a token weighs.
  Returns: [*B], in [0, limit].
  References: Espeholt et al., 2018 (IMPALA), arXiv:1802.01561.
  Example:
    >>> old = jnp.log(jnp.array([0.1, 0.5]))
    >>> print(truncated_weights(jnp.log(jnp.array([0.5, 0.25])), old).round(2))
    [2.  0.5]
  """
  log_probs, old = jax.lax.stop_gradient(widened(log_probs, old_log_probs))
  ratio = jnp.exp(_limited(log_probs - old))
  return jnp.minimum(ratio, jnp.asarray(limit, ratio.dtype))


@jax.jit(static_argnames="scale")
def group_advantages(
  rewards: Float[Array, " B"],
  groups: Int[Array, " B"],
  mask: Float[Array, " B"] | Bool[Array, " B"] | None = None,
  *,
  scale: Literal["std", "none"] = "std",
  eps: Scalar = 1e-4,
) -> Float[Array, " B"]:
  """Rewards less the mean of their group, over its deviation; no gradient.

  Args:
    rewards: [B] one per answer.
    groups: [B] any ids; answers to one prompt share theirs, wherever they are.
    mask: [B] 1 for answers that exist; None for all.
    scale: "std" divides by the group's standard deviation (of n - 1) plus eps;
      "none" leaves the difference.
    eps: added to the deviation.
  Returns: [B], 0 for an answer alone in its group and where the mask is 0.
  References: Shao et al., 2024 (GRPO), arXiv:2402.03300; Liu et al., 2025
    (Dr. GRPO, without the deviation), arXiv:2503.20783.
  Example:
    >>> rewards = jnp.array([1.0, 0.0, 2.0, 5.0])
    >>> groups = jnp.array([7, 7, 7, 3])
    >>> print(group_advantages(rewards, groups, eps=0.0))
    [ 0. -1.  1.  0.]
  """
  rewards = jax.lax.stop_gradient(rewards).astype(compute_dtype(rewards))
  real = jnp.ones(rewards.shape, bool) if mask is None else mask != 0
  rewards = jnp.where(real, rewards, 0)
  same = (groups[:, None] == groups[None, :]) & real[None, :]  # [B, B]

  def total(values):
    return jnp.sum(jnp.where(same, values, 0), axis=-1)

  count = total(jnp.ones_like(rewards)[None])
  mean = total(rewards[None]) / jnp.maximum(count, 1)
  gap = jnp.where(real & (count > 1), rewards - mean, 0)
  if scale == "none":
    return gap
  square = total(jnp.square(rewards[None] - mean[:, None]))
  std = jnp.sqrt(square / jnp.maximum(count - 1, 1))
  return jnp.where(gap == 0, 0, gap / (std + eps))


def _carried(values, decay):
  """[*B, T] G with G_t = values_t + decay_t G_{t+1}."""

  def after(later, now):
    return later[0] * now[0], now[0] * later[1] + now[1]

  _, sums = jax.lax.associative_scan(
    after, (decay, values), reverse=True, axis=values.ndim - 1
  )
  return sums


def _joined_to_next(segment_ids, like):
  """[*B, T] True where the next position is of the same document."""
  if segment_ids is None:
    return jnp.ones(like.shape, bool)
  following = jnp.concatenate(
    [segment_ids[..., 1:], segment_ids[..., -1:]], axis=-1
  )
  return segment_ids == following


@jax.jit(static_argnames="divide")
def discounted_returns(
  rewards: Float[Array, "*B T"],
  mask: Float[Array, "*B T"] | Bool[Array, "*B T"],
  segment_ids: Int[Array, "*B T"] | None = None,
  *,
  discount: Scalar = 1.0,
  divide: Literal["none", "remaining"] = "none",
) -> Float[Array, "*B T"]:
  """What is still to come: G_t = r_t + discount G_{t+1}; no gradient.

  Only tokens under the mask count, as if the others were not there: they pay
  nothing, and no discount is due for passing over them.

  Args:
    rewards: [*B, T] one per token.
    mask: [*B, T] 1 where a token counts.
    segment_ids: [*B, T] documents, which pay each other nothing; None for one
      document a row.
    discount: in [0, 1].
    divide: "remaining" divides by the number of tokens from t on, so that early
      tokens do not weigh more for what comes after them.
  Returns: [*B, T], 0 where the mask is 0.
  References: Gu, Dong, Wei & Huang, 2023 (MiniLLM), arXiv:2306.08543, Sec. 2.2.
  Example:
    >>> rewards = jnp.array([1.0, 9.0, 2.0, 4.0])
    >>> mask = jnp.array([1.0, 0.0, 1.0, 1.0])
    >>> print(discounted_returns(rewards, mask, discount=0.5))
    [3. 0. 4. 4.]
    >>> print(discounted_returns(rewards, mask, divide="remaining").round(2))
    [2.33 0.   3.   4.  ]
  """
  rewards = jax.lax.stop_gradient(rewards).astype(compute_dtype(rewards))
  counts = mask != 0
  joined = _joined_to_next(segment_ids, rewards).astype(rewards.dtype)
  step = jnp.where(counts, jnp.asarray(discount, rewards.dtype), 1)
  found = _carried(jnp.where(counts, rewards, 0), step * joined)
  if divide == "remaining":
    left = _carried(counts.astype(rewards.dtype), joined)
    found = found / jnp.maximum(left, 1)
  return jnp.where(counts, found, 0)


@jax.jit
def place_in_document(
  mask: Float[Array, "*B T"] | Bool[Array, "*B T"],
  segment_ids: Int[Array, "*B T"] | None = None,
) -> tuple[Float[Array, "*B T"], Float[Array, "*B T"]]:
  """How many tokens of its document count up to each token, and in all.

  Args:
    mask: [*B, T] 1 where a token counts.
    segment_ids: [*B, T] documents; None for one document a row.
  Returns: (place, total), [*B, T] each: place is 1 at the first token of a
    document that counts. Both are 0 where the mask is 0.
  References: Gu, Dong, Wei & Huang, 2023, arXiv:2306.08543, Sec. 2.2 (lengths
    to divide by).
  Example:
    >>> place, total = place_in_document(jnp.array([0.0, 1.0, 1.0]))
    >>> print(place, total)
    [0. 1. 2.] [0. 2. 2.]
  """
  counts = (mask != 0).astype(compute_dtype(mask))
  left = _carried(counts, _joined_to_next(segment_ids, counts) * 1.0)
  back = counts[..., ::-1]
  ids = None if segment_ids is None else segment_ids[..., ::-1]
  place = _carried(back, _joined_to_next(ids, back) * 1.0)[..., ::-1]
  return place * counts, (place + left - 1) * counts


@jax.jit
def whiten(values: Values, mask: Mask, *, eps: Scalar = 1e-8) -> Values:
  """Values with mean 0 and variance 1 under the mask, without gradient.

  Args:
    values: [*B].
    mask: [*B], 1 where a value counts.
    eps: added to the variance.
  Returns: [*B], 0 where the mask is 0.
  References: Gu, Dong, Wei & Huang, 2023, arXiv:2306.08543 (its code).
  Example:
    >>> print(whiten(jnp.array([1.0, 3.0, 9.0]), jnp.array([1.0, 1.0, 0.0])))
    [-1.  1.  0.]
  """
  values = jax.lax.stop_gradient(values).astype(compute_dtype(values))
  counts = mask != 0
  number = jnp.maximum(jnp.sum(counts), 1).astype(values.dtype)
  mean = jnp.sum(jnp.where(counts, values, 0)) / number
  gap = jnp.where(counts, values - mean, 0)
  return gap * jax.lax.rsqrt(jnp.sum(jnp.square(gap)) / number + eps)
