# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Policy losses against sums over every token and loops over every position."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import losses

V, B, T = 12, 5, 9
RNG = np.random.default_rng(0)
Z, ZT = RNG.normal(size=V), 2 * RNG.normal(size=V)
MASK = RNG.random((B, T)) < 0.7
MASK[3] = False
REWARDS = RNG.normal(size=(B, T))


def mean_over_tokens(loss, drawn_from):
  """E_y[loss(log q(y), log p(y))], y drawn from a fixed distribution."""

  def of(logits):
    log_q, log_p = jax.nn.log_softmax(logits), jax.nn.log_softmax(ZT)
    return jnp.sum(drawn_from * loss(log_q, log_p))

  return of


def near(found, expected):
  np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
  ("estimator", "divergence"),
  [
    (losses.k1, None),
    (losses.k2, losses.reverse_kl),
    (losses.k3, losses.forward_kl),
  ],
)
def test_expected_gradients_of_estimators(estimator, divergence, x64):
  q = jax.nn.softmax(Z)
  found = jax.grad(mean_over_tokens(estimator, q))(Z)
  if divergence is None:
    np.testing.assert_allclose(found, 0, atol=1e-12)
    return
  expected = jax.grad(lambda z: divergence(z, jnp.asarray(ZT)))(Z)
  assert np.abs(expected).max() > 0.05
  near(found, expected)


def test_values_of_estimators(x64):
  q = jax.nn.softmax(Z)
  exact = float(losses.reverse_kl(jnp.asarray(Z), jnp.asarray(ZT)))
  value = lambda k: float(mean_over_tokens(k, q)(jnp.asarray(Z)))  # noqa: E731
  near(value(losses.k1), exact)
  near(value(losses.k3), exact)
  assert abs(value(losses.k2) - exact) > 0.1 * exact  # biased as a value


def test_policy_gradient_of_the_log_ratio_is_that_of_reverse_kl(x64):
  """k1 as a reward, in the importance form at q = q_old."""

  def form(log_q, log_p):
    old = jax.lax.stop_gradient(log_q)
    return losses.clipped_surrogate(log_q, old, log_p - old, clip=np.inf)

  found = jax.grad(mean_over_tokens(form, jax.nn.softmax(Z)))(Z)
  near(
    found,
    jax.grad(lambda z: losses.reverse_kl(z, jnp.asarray(ZT)))(jnp.array(Z)),
  )


def test_importance_form_of_another_writer_is_unbiased(x64):
  """Tokens of q_old: the mean is that over q, of advantages that are given."""
  old = jax.nn.log_softmax(RNG.normal(size=V))
  advantages = jnp.asarray(RNG.normal(size=V))
  form = lambda q, _: losses.clipped_surrogate(q, old, advantages, clip=np.inf)  # noqa: E731
  of_q = lambda z: -jnp.sum(jax.nn.softmax(z) * advantages)  # noqa: E731
  found = mean_over_tokens(form, jnp.exp(old))
  near(found(jnp.asarray(Z)), of_q(jnp.asarray(Z)))
  near(jax.grad(found)(Z), jax.grad(of_q)(Z))


def test_teachers_get_no_gradient(x64):
  q, p = jnp.asarray(REWARDS), jnp.asarray(REWARDS[::-1])
  for fn in (losses.k1, losses.k2, losses.k3):
    assert not np.any(jax.grad(lambda p, fn=fn: fn(q, p).sum())(p))
  of = lambda old, a, w: losses.clipped_surrogate(q, old, a, weights=w).sum()  # noqa: E731
  for grad in jax.grad(of, (0, 1, 2))(p, q, jnp.exp(p)):
    assert not np.any(grad)


@pytest.mark.parametrize("clip_high", [None, 0.5])
def test_clipped_surrogate(clip_high, x64):
  new, old = RNG.normal(size=(2, 40)) * 0.5
  advantages, weights = RNG.normal(size=40), RNG.uniform(0.5, 1.5, 40)
  ratio = np.exp(new - old) * weights
  high = 1.2 if clip_high is None else 1.5
  held = np.clip(ratio, 0.8, high)
  expected = np.maximum(-advantages * ratio, -advantages * held)

  def of(new):
    return losses.clipped_surrogate(
      new, old, advantages, clip_high=clip_high, weights=weights
    )

  near(of(jnp.asarray(new)), expected)
  grad = jax.grad(lambda x: of(x).sum())(jnp.asarray(new))
  lost = ((advantages > 0) & (ratio > high)) | (
    (advantages < 0) & (ratio < 0.8)
  )
  assert 0 < lost.sum() < 40
  near(grad, np.where(lost, 0, -advantages * ratio))


def test_far_log_ratios_stay_finite():
  new, old = jnp.array([0.0, -300.0, -jnp.inf]), jnp.array([-300.0, 0.0, -1.0])
  ones = jnp.ones(3)
  for fn in (
    lambda x: losses.clipped_surrogate(x, old, -ones),
    lambda x: losses.k3(x, old) * jnp.array([1.0, 1.0, 0.0]),
  ):
    assert np.isfinite(fn(new)).all()
    assert np.isfinite(jax.grad(lambda x, fn=fn: fn(x).sum())(new)).all()
  found = losses.truncated_weights(new, old, limit=3.0)
  np.testing.assert_allclose(found, [3, 0, 0], atol=1e-8)


def returns(rewards, mask, segments, discount, divide):
  """One token after another, over those that count."""
  out = np.zeros(rewards.shape)
  for b in range(len(rewards)):
    for t in np.flatnonzero(mask[b]):
      later = [
        i for i in np.flatnonzero(mask[b]) if i >= t
        and segments[b, i] == segments[b, t]
      ]  # fmt: skip
      out[b, t] = sum(discount**n * rewards[b, i] for n, i in enumerate(later))
      out[b, t] /= len(later) if divide == "remaining" else 1
  return out


@pytest.mark.parametrize("divide", ["none", "remaining"])
@pytest.mark.parametrize("discount", [0.0, 0.9, 1.0])
def test_discounted_returns(discount, divide, x64):
  segments = np.sort(RNG.integers(1, 4, size=(B, T)), axis=-1)
  for ids in (np.ones((B, T), np.int64), segments):
    found = losses.discounted_returns(
      np.where(MASK, REWARDS, np.nan), MASK, ids, discount=discount,
      divide=divide,
    )  # fmt: skip
    near(found, returns(REWARDS, MASK, ids, discount, divide))
  alone = losses.discounted_returns(
    REWARDS, MASK, discount=discount, divide=divide
  )
  near(alone, returns(REWARDS, MASK, np.ones((B, T)), discount, divide))


def test_padding_shifts_no_return():
  """The same answer at another place in a longer row."""
  rewards = jnp.asarray(REWARDS, jnp.float32)
  longer = jnp.pad(rewards, ((0, 0), (3, 4)), constant_values=7.0)
  mask = jnp.pad(jnp.asarray(MASK), ((0, 0), (3, 4)))
  short = losses.discounted_returns(rewards, MASK, discount=0.8)
  found = losses.discounted_returns(longer, mask, discount=0.8)
  np.testing.assert_allclose(found[:, 3:-4], short, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_place_in_document():
  segments = np.sort(RNG.integers(1, 4, size=(B, T)), axis=-1)
  place, total = losses.place_in_document(MASK, segments)
  for b in range(B):
    for s in range(1, 4):
      own = MASK[b] & (segments[b] == s)
      assert place[b][own].tolist() == list(range(1, own.sum() + 1))
      assert (total[b][own] == own.sum()).all()
  assert not place[~MASK].any()
  assert not total[~MASK].any()


@pytest.mark.parametrize("scale", ["std", "none"])
def test_group_advantages(scale, x64):
  rewards = RNG.normal(size=11)
  groups = np.array([4, -7, 4, 4, 9, -7, -7, 4, 9, 100, 9])
  mask = np.ones(11)
  mask[[2, 8]] = 0
  expected = np.zeros(11)
  for i in np.flatnonzero(mask):
    own = rewards[(groups == groups[i]) & (mask > 0)]
    if len(own) > 1:
      spread = np.std(own, ddof=1) + 1e-4 if scale == "std" else 1
      expected[i] = (rewards[i] - own.mean()) / spread
  rewards[[2, 8]] = np.nan
  near(losses.group_advantages(rewards, groups, mask, scale=scale), expected)
  order = RNG.permutation(11)
  near(
    losses.group_advantages(
      rewards[order], groups[order], mask[order], scale=scale
    ),
    expected[order],
  )


def test_a_group_that_agrees_teaches_nothing():
  rewards = jnp.full((6,), 0.1)
  found = losses.group_advantages(rewards, jnp.zeros(6, jnp.int32), eps=0.0)
  assert not np.any(found)


def test_whiten(x64):
  found = losses.whiten(np.where(MASK, REWARDS, np.inf), MASK)
  own = REWARDS[MASK]
  near(found[MASK], (own - own.mean()) / np.sqrt(own.var() + 1e-8))
  assert not np.any(np.asarray(found)[~MASK])
  assert not np.any(losses.whiten(REWARDS, np.zeros((B, T))))
