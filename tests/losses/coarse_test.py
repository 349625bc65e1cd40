# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Distributions over fewer ids, against what each is defined to be."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import losses, types

V, K, N = 7, 3, 5


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def draw(seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(2, N, V)) * 2


def top(p):
  ids = np.argsort(-p, axis=-1)[:, :K].astype(np.int32)
  log_p = np.log(np.take_along_axis(p, ids, -1))
  return ids, log_p, np.log1p(-np.exp(log_p).sum(-1))


def expected(rest, q, p, ids, targets):
  """The two distributions over all ids, or over ids and the rest."""
  found = []
  for row in range(N):
    kept = set(ids[row].tolist())
    own_q, own_p = q[row].copy(), p[row].copy()
    inside = np.array([v in kept for v in range(V)])
    if rest == "bucket":
      found.append(
        [np.append(x[inside], x[~inside].sum()) for x in (own_q, own_p)]
      )
      continue
    if rest == "renormalise_both":
      found.append([x[inside] / x[inside].sum() for x in (own_q, own_p)])
      continue
    cut = np.where(inside, own_p, 0)
    if rest == "gold":
      cut[targets[row]] += own_p[~inside].sum()
    found.append([own_q, cut / cut.sum()])
  return found


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
  "rest", ["bucket", "renormalise", "renormalise_both", "gold"]
)
def test_divergences_are_those_of_the_definition(rest):
  student, teacher = draw()
  q, p = softmax(student), softmax(teacher)
  ids, log_p, log_rest = top(p)
  targets = np.array([ids[0, 0], ids[1, 2], 0, 3, 6])
  said = types.Sparse(ids, log_p, log_rest, rest)
  found = losses.coarse(jnp.asarray(student), said, jnp.asarray(targets))
  forward = losses.forward_kl(*found)
  tv = losses.total_variation(*found)
  for row, (a, b) in enumerate(expected(rest, q, p, ids, targets)):
    kl = sum(y * np.log(y / x) for x, y in zip(a, b, strict=True) if y > 0)
    np.testing.assert_allclose(forward[row], kl, rtol=1e-9)
    np.testing.assert_allclose(tv[row], np.abs(a - b).sum() / 2, rtol=1e-9)
  if rest in ("bucket", "renormalise_both"):
    reverse = losses.reverse_kl(*found)
    for row, (a, b) in enumerate(expected(rest, q, p, ids, targets)):
      kl = (a * np.log(a / b)).sum()
      np.testing.assert_allclose(reverse[row], kl, rtol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
  "rest", ["bucket", "renormalise", "renormalise_both", "gold"]
)
def test_gradients_are_those_of_the_definition(rest):
  student, teacher = draw(1)
  p = softmax(teacher)
  ids, log_p, log_rest = top(p)
  targets = np.array([ids[0, 1], 2, 0, 3, 6])
  said = types.Sparse(ids, log_p, log_rest, rest)

  def loss(x):
    return losses.forward_kl(*losses.coarse(x, said, targets)).sum()

  def plain(x):
    """By automatic differentiation of the definition."""
    q, total = jax.nn.softmax(x), 0.0
    for row in range(N):
      inside = np.isin(np.arange(V), ids[row])
      cut = np.where(inside, p[row], 0.0)
      own = q[row]
      if rest == "bucket":
        last = p[row][~inside].sum()
        total -= last * jnp.log(jnp.where(inside, 0, own).sum())
      elif rest == "renormalise_both":
        own = own / jnp.where(inside, own, 0).sum()
        cut = cut / cut.sum()
      elif rest == "gold":
        cut[targets[row]] += p[row][~inside].sum()
      else:
        cut = cut / cut.sum()
      total -= (cut * jnp.log(own)).sum()
    return total

  np.testing.assert_allclose(
    jax.grad(loss)(jnp.asarray(student)),
    jax.grad(plain)(jnp.asarray(student)),
    rtol=1e-8,
    atol=1e-12,
  )


@pytest.mark.usefixtures("x64")
def test_draws_have_the_dense_gradient_in_expectation():
  """Over every possible pair of draws, each with its probability."""
  size = 4
  student, teacher = draw(2)[:, 0, :size]
  p = softmax(teacher)
  mean, bias = np.zeros(size), 0.0
  for a, b in itertools.product(range(size), repeat=2):
    ids, counts = np.unique([a, b], return_counts=True)
    ids = np.pad(ids, (0, 2 - len(ids)))[None].astype(np.int32)
    shares = np.full((1, 2), -np.inf)
    shares[0, : len(counts)] = np.log(counts / 2)
    said = types.Sparse(ids, shares, None, "drawn")

    def loss(x, said=said):
      return losses.forward_kl(*losses.coarse(x[None], said))[0]

    value, grad = jax.value_and_grad(loss)(jnp.asarray(student))
    mean += p[a] * p[b] * np.asarray(grad)
    share = counts / 2
    bias += p[a] * p[b] * (value - (share * np.log(share)).sum())
  dense = jax.grad(lambda x: losses.forward_kl(x, jnp.asarray(teacher)))
  np.testing.assert_allclose(mean, dense(jnp.asarray(student)), atol=1e-12)
  cross_entropy = -(p * np.log(softmax(student))).sum()
  np.testing.assert_allclose(bias, cross_entropy, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_all_ids_are_the_whole_distribution():
  student, teacher = draw(3)
  log_p = np.log(softmax(teacher))
  ids = np.broadcast_to(np.arange(V)[::-1], log_p.shape).astype(np.int32)
  rest = np.full(N, -np.inf)
  want = losses.reverse_kl(jnp.asarray(student), jnp.asarray(teacher))
  for how in ("bucket", "renormalise_both"):
    said = types.Sparse(ids, log_p[:, ::-1], rest, how)
    found = losses.reverse_kl(*losses.coarse(jnp.asarray(student), said))
    np.testing.assert_allclose(found, want, rtol=1e-9)


def test_ids_beyond_the_students_vocabulary_are_left_out():
  student, teacher = draw(4)
  ids, log_p, log_rest = top(softmax(teacher))
  more = np.concatenate([ids, np.full((N, 1), V + 3)], -1).astype(np.int32)
  logs = np.concatenate([log_p, np.zeros((N, 1))], -1)
  for rest in ("bucket", "renormalise_both"):
    want = losses.forward_kl(
      *losses.coarse(student, types.Sparse(ids, log_p, log_rest, rest))
    )
    found = losses.forward_kl(
      *losses.coarse(student, types.Sparse(more, logs, log_rest, rest))
    )
    np.testing.assert_allclose(found, want, rtol=1e-5)


def test_merging_ids_makes_no_divergence_larger():
  for seed in range(20):
    student, teacher = draw(seed)
    ids, log_p, log_rest = top(softmax(teacher))
    said = types.Sparse(ids, log_p, log_rest, "bucket")
    q, p = losses.coarse(student, said)
    for divergence in (losses.forward_kl, losses.reverse_kl, losses.jsd):
      assert (divergence(q, p) <= divergence(student, teacher) + 1e-5).all()
