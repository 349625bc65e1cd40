# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Every divergence with every kind of few ids: right, or refused."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import losses, methods, types

V, K, N = 9, 3, 6
RESTS = get_args(types.Rest)


def kl(a, b):
  return sum(x * np.log(x / y) for x, y in zip(a, b, strict=True) if x > 0)


def alpha_beta(p, q, a=0.2, b=0.7):
  c = a + b
  terms = p**a * q**b - a / c * p**c - b / c * q**c
  return -terms.sum() / (a * b)


VALUES = {
  "forward": (methods.KD(), lambda p, q: kl(p, q)),
  "reverse": (methods.KD("reverse_kl"), lambda p, q: kl(q, p)),
  "jeffreys": (
    methods.KD("jeffreys"),
    lambda p, q: (kl(p, q) + kl(q, p)) / 2,
  ),
  "tv": (
    methods.KD("total_variation"),
    lambda p, q: np.abs(p - q).sum() / 2,
  ),
  "jsd": (
    methods.JSD(0.3),
    lambda p, q: (
      0.3 * kl(p, 0.3 * p + 0.7 * q) + 0.7 * kl(q, 0.3 * p + 0.7 * q)
    ),
  ),
  "skew forward": (
    methods.SkewKL("forward"),
    lambda p, q: kl(p, 0.1 * p + 0.9 * q),
  ),
  "skew reverse": (
    methods.SkewKL("reverse"),
    lambda p, q: kl(q, 0.9 * p + 0.1 * q),
  ),
  "alpha-beta": (methods.AlphaBetaKD(), alpha_beta),
  "adaptive": (methods.AdaptiveKL(), None),
}
QUICK = {"forward", "reverse", "jsd"}
EVERYWHERE = {"bucket", "renormalise_both"}
FINITE = {*EVERYWHERE, "renormalise", "gold"}
RIGHT = {
  "forward": set(RESTS),
  "tv": FINITE,
  "jsd": FINITE,
  "skew forward": FINITE,
  "skew reverse": FINITE,
}


def test_what_is_right_is_said():
  for name, (method, _) in VALUES.items():
    assert set(method.needs().sparse) == RIGHT.get(name, EVERYWHERE), name
  for method in (
    methods.KD("total_variation", 2.0),
    methods.JSD(tau=0.5),
    methods.SkewKL(tau=3.0),
  ):
    assert method.needs().sparse == ("renormalise_both",)
  assert methods.JSD(1.0, rescale=True).needs().sparse == (
    "bucket",
    "renormalise_both",
  )
  for method in (methods.Hinton(), methods.DKD(), methods.WeightedKD()):
    assert not method.needs().sparse
  both = methods.Sum(
    {
      "kd": methods.Part(methods.KD()),
      "jsd": methods.Part(methods.JSD()),
      "ce": methods.Part(methods.CrossEntropy()),
    }
  )
  assert set(both.needs().sparse) == FINITE


def draw():
  rng = np.random.default_rng(5)
  student, teacher = rng.normal(size=(2, N, V)) * 3
  exp = np.exp(teacher)
  return student, exp / exp.sum(-1, keepdims=True)


def signal(p, rest):
  """What is listed, and the whole distribution that it stands for, or None."""
  if rest == "drawn":
    counts = np.random.default_rng(1).multinomial(K, p)
    ids = np.argsort(-counts, -1)[:, :K].astype(np.int32)
    with np.errstate(divide="ignore"):
      shares = np.log(np.take_along_axis(counts, ids, -1) / K)
    return types.Sparse(ids, shares, None, rest), counts / K
  ids = np.argsort(-p, -1)[:, :K].astype(np.int32)
  top = np.take_along_axis(p, ids, -1)
  said = types.Sparse(ids, np.log(top), np.log(1 - top.sum(-1)), rest)
  cut = np.zeros_like(p)
  np.put_along_axis(cut, ids, top, -1)
  return said, cut


def distributions(p, q, cut, rest, target):
  """The teacher's and the student's, of one position."""
  inside = cut > 0
  if rest == "bucket":
    return [np.append(x[inside], x[~inside].sum()) for x in (p, q)]
  if rest == "renormalise_both":
    return [x[inside] / x[inside].sum() for x in (p, q)]
  whole = cut.copy()
  if rest == "gold":
    whole[target] += 1 - whole.sum()
  # Ids without mass are one for the student: so much is in the loss's words.
  there = whole > 0
  return [
    np.append(x[there], x[~there].sum()) for x in (whole / whole.sum(), q)
  ]


@pytest.mark.parametrize("rest", RESTS)
@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in VALUES
  ],
)
def test_each_is_its_formula(name, rest):
  method, formula = VALUES[name]
  if rest not in method.needs().sparse:
    pytest.skip("refused")
  student, p = draw()
  said, cut = signal(p, rest)
  targets = np.arange(N) % V

  def loss(x):
    q, t = losses.coarse(x, said, jnp.asarray(targets))
    terms = method.terms({"student": q, "teacher": t}, {}, {}, jnp.int32(0))
    [term] = terms.values()
    return term.value

  found = loss(jnp.asarray(student, jnp.float32))
  grad = jax.grad(lambda x: loss(x).sum())(jnp.asarray(student, jnp.float32))
  assert np.isfinite(found).all()
  assert np.isfinite(grad).all()
  assert (np.abs(grad).sum(-1) > 0).all()
  if formula is None:
    return
  q = np.exp(student) / np.exp(student).sum(-1, keepdims=True)
  want = [
    formula(*distributions(p[i], q[i], cut[i], rest, targets[i]))
    for i in range(N)
  ]
  np.testing.assert_allclose(found, want, rtol=2e-4, atol=1e-6)
