# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Losses of methods through the step, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import methods, schedules, step, types
from jdistill.models import FunctionArchitecture
from jdistill.models.classifier import MLPConfig

B, V = 8, 11
RNG = np.random.default_rng(0)
Z = 2 * RNG.normal(size=(B, V))
ZT = 3 * RNG.normal(size=(B, V))
Y = RNG.integers(V, size=B)
M = np.array([1, 1, 0, 1, 1, 1, 0, 1.0])
N = M.sum()
ROWS = types.Batch(
  {
    "student": types.Examples(
      jnp.arange(B), jnp.asarray(Y, jnp.int32), jnp.asarray(M, jnp.float32)
    )
  },
  {},
  jnp.arange(B),
)
TABLE = FunctionArchitecture(
  apply=lambda params, rows: params["logits"][rows],
  make=lambda key: {"logits": jnp.zeros((B, V))},
  kind="inputs",
  shape=(),
  input_dtype="int32",
)


def run(method, at=0, microbatches=1):
  """Loss, gradient [B, V] of the student's logits, and metrics."""
  gradient = step.make_gradient(
    TABLE, {"teacher": TABLE}, method, microbatches=microbatches
  )
  table = lambda z: {"logits": jnp.asarray(z, jnp.float32)}  # noqa: E731
  params = {"student": table(Z), "method": {}}
  grads, loss = jax.jit(gradient)(
    params, {"teacher": table(ZT)}, ROWS, jnp.int32(at)
  )
  return float(loss.total), np.asarray(grads["student"]["logits"]), loss.metrics


def logs(z, tau=1.0):
  z = z / tau
  z = z - z.max(-1, keepdims=True)
  return z - np.log(np.exp(z).sum(-1, keepdims=True))


def kl(a, b):
  """KL of distributions given by their logarithms, [B]."""
  return (np.exp(a) * (a - b)).sum(-1)


CE = -logs(Z)[np.arange(B), Y]
D_CE = np.exp(logs(Z)) - np.eye(V)[Y]


def mean(values):
  return (M * values).sum() / N


def close(found, expected):
  np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


def test_hinton():
  lam, tau = 0.7, 3.0
  soft = kl(logs(ZT, tau), logs(Z, tau))
  d_soft = tau * (np.exp(logs(Z, tau)) - np.exp(logs(ZT, tau)))
  total, grad, metrics = run(methods.Hinton(lam=lam, tau=tau))
  close(total, mean((1 - lam) * CE + lam * tau**2 * soft))
  close(grad, M[:, None] / N * ((1 - lam) * D_CE + lam * d_soft))
  close(metrics["ce"].sum / metrics["ce"].weight, mean(CE))
  close(metrics["kl"].sum / metrics["kl"].weight, mean(soft))


def test_hinton_with_a_schedule():
  method = methods.Hinton(lam=schedules.Linear(0.0, 1.0, 4), tau=2.0)
  soft = 4 * mean(kl(logs(ZT, 2.0), logs(Z, 2.0)))
  for at, lam in ((0, 0.0), (1, 0.25), (4, 1.0), (9, 1.0)):
    close(run(method, at)[0], (1 - lam) * mean(CE) + lam * soft)


def decoupled(targets, tau):
  """TCKD and NCKD, [B] each."""
  q, p = np.exp(logs(Z, tau)), np.exp(logs(ZT, tau))
  hit = np.eye(V, dtype=bool)[targets]
  q_y, p_y = q[hit], p[hit]
  pairs = [np.log(np.stack([x, 1 - x], -1)) for x in (p_y, q_y)]
  others = [
    np.log(x[~hit].reshape(B, V - 1) / (1 - x[hit])[:, None]) for x in (p, q)
  ]
  return kl(*pairs), kl(*others)


@pytest.mark.parametrize(
  ("at", "rise"), [(0, 1 / 8), (3, 1 / 2), (7, 1.0), (50, 1.0)]
)
def test_dkd_with_warmup(at, rise):
  target, others = decoupled(Y, 4.0)
  method = methods.DKD(alpha=0.5, beta=6.0, tau=4.0, ce=0.8, warmup=8)
  expected = 0.8 * CE + rise * 16 * (0.5 * target + 6.0 * others)
  close(run(method, at)[0], mean(expected))


def test_dkd_splits_off_what_the_teacher_says():
  target, others = decoupled(ZT.argmax(-1), 2.0)
  method = methods.DKD(beta=2.0, tau=2.0, ce=0.0, targets="teacher")
  close(run(method)[0], mean(4 * (target + 2 * others)))


def test_dkd_contains_kd():
  """TCKD + (1 - p_y) NCKD is the plain KL."""
  target, others = decoupled(Y, 1.0)
  p_y = np.exp(logs(ZT))[np.arange(B), Y]
  close(run(methods.KD())[0], mean(target + (1 - p_y) * others))


def scores(kind):
  p, q = logs(ZT), logs(Z)
  entropy = -(np.exp(p) * p).sum(-1) / np.log(V)
  return {
    "entropy": entropy,
    "certainty": 1 - entropy,
    "target_prob": np.exp(p)[np.arange(B), Y],
    "correct": (p.argmax(-1) == Y).astype(float),
    "kl": kl(p, q),
  }[kind]


@pytest.mark.parametrize("microbatches", [1, 2, 4])
@pytest.mark.parametrize(
  "kind", ["entropy", "certainty", "target_prob", "correct", "kl"]
)
def test_weighted_kd(kind, microbatches):
  raw = scores(kind) * M
  weights = raw * N / raw.sum() if raw.sum() else M
  total, grad, metrics = run(
    methods.WeightedKD(kind), microbatches=microbatches
  )
  close(total, (weights * kl(logs(ZT), logs(Z))).sum() / N)
  # The weights carry no gradient, "kl" neither.
  gap = np.exp(logs(Z)) - np.exp(logs(ZT))
  close(grad, weights[:, None] / N * gap)
  close(metrics["forward_kl"].weight, N)


@pytest.mark.parametrize("boundary", ["head", "tail"])
def test_adaptive_kl(boundary):
  p, q = np.exp(logs(ZT)), np.exp(logs(Z))
  expected = np.zeros(B)
  for b in range(B):
    order = np.argsort(-p[b])
    before = np.cumsum(p[b][order]) - p[b][order]
    mass = np.cumsum(p[b][order])
    head = before < 0.6 if boundary == "head" else mass <= 0.6
    head[0] = True
    gap = np.abs(p[b] - q[b])[order]
    share = gap[head].sum() / gap.sum()
    p_b, q_b = logs(ZT[b]), logs(Z[b])
    expected[b] = share * kl(p_b, q_b) + (1 - share) * kl(q_b, p_b)
  method = methods.AdaptiveKL(mu=0.6, boundary=boundary)
  close(run(method)[0], mean(expected))


def test_divergences():
  p, q = logs(ZT, 1.5), logs(Z, 1.5)
  mix = lambda a, x, y: np.log(a * np.exp(x) + (1 - a) * np.exp(y))  # noqa: E731
  m = mix(0.3, p, q)
  jsd = 0.3 * kl(p, m) + 0.7 * kl(q, m)
  e_p, e_q = np.exp(p), np.exp(q)
  a, b = 0.2, 0.7
  powers = e_p**a * e_q**b - (a * e_p ** (a + b) + b * e_q ** (a + b)) / (a + b)
  expected = {
    methods.JSD(0.3, tau=1.5): jsd,
    methods.JSD(0.3, tau=1.5, rescale=True): jsd / 0.21,
    methods.SkewKL("forward", tau=1.5): kl(p, mix(0.1, p, q)),
    methods.SkewKL("reverse", tau=1.5): kl(q, mix(0.1, q, p)),
    methods.AlphaBetaKD(a, b, tau=1.5): -powers.sum(-1) / (a * b),
  }
  for method, values in expected.items():
    close(run(method)[0], mean(values))


def features(method):
  """Loss and parameters of a method on hidden features of two perceptrons."""
  student = MLPConfig(classes=V, shape=(5,), widths=(6,))
  teacher = MLPConfig(classes=V, shape=(5,), widths=(9,))
  inputs = jnp.asarray(np.random.default_rng(1).normal(size=(B, 5)))
  view = ROWS["student"]
  rows = types.Batch(
    {"student": types.Examples(inputs, view.targets, view.mask)},
    {},
    ROWS.example_id,
  )
  s, t = (a.init(jax.random.key(i)) for i, a in enumerate((student, teacher)))
  wants = method.wants()
  own = student.bind(s)(rows["student"], want=wants["student"])
  other = teacher.bind(t)(rows["student"], want=wants["teacher"])
  params = method.init(jax.random.key(2), {"student": own, "teacher": other})
  gradient = step.make_gradient(student, {"teacher": teacher}, method)
  _, loss = gradient(
    {"student": s, "method": params}, {"teacher": t}, rows, jnp.int32(0)
  )
  wide = lambda tree: jax.tree.map(lambda x: np.asarray(x, np.float64), tree)  # noqa: E731
  return float(loss.total), *wide((params, own.features, other.features))


def test_features_with_a_projector():
  method = methods.Features((("layers/0/out", "layers/0/out"),))
  total, params, own, other = features(method)
  projector = params["0"]
  assert projector["kernel"].shape == (6, 9)
  there = own["layers/0/out"] @ projector["kernel"] + projector["bias"]
  gap = there - other["layers/0/out"]
  close(total, mean((gap**2).mean(-1)))


def test_features_are_a_mean_over_pairs():
  pairs = (("pooled", "pooled"), ("layers/0/out", "pooled"))
  total, params, own, other = features(methods.Features(pairs, "cosine"))
  expected = 0.0
  for i, (name, target) in enumerate(pairs):
    there = own[name] @ params[str(i)]["kernel"]
    lengths = np.linalg.norm(there, axis=-1) * np.linalg.norm(
      other[target], axis=-1
    )
    expected += mean(1 - (there * other[target]).sum(-1) / lengths) / 2
  close(total, expected)


def test_layer_map():
  assert methods.layer_map(2, 6) == (
    ("layers/0/out", "layers/2/out"),
    ("layers/1/out", "layers/5/out"),
  )


def test_info_nce_meets_rows_that_exist():
  total, params, own, other = features(methods.InfoNCE(width=4, tau=0.5))
  unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
  a = unit(own["pooled"] @ params["student"])[M > 0]
  b = unit(other["pooled"] @ params["teacher"])[M > 0]
  close(total, -np.diagonal(logs(a @ b.T / 0.5)).mean())


def test_info_nce_needs_vectors():
  shapes = {
    name: types.Outputs(None, None, {"layers/0/out": jnp.zeros((2, 3, 4))}, {})
    for name in ("student", "teacher")
  }
  method = methods.InfoNCE("layers/0/out", "layers/0/out")
  with pytest.raises(
    types.UserError, match=r"\(2, 3, 4\), expected one vector"
  ):
    method.init(jax.random.key(0), shapes)


def test_a_part_of_weight_0_is_left_out_with_its_teacher():
  parts = {
    "kd": methods.Part(methods.KD(), 0.0),
    "ce": methods.Part(methods.CrossEntropy(), 2.0),
  }
  method = methods.Sum(parts)
  assert method.needs().teachers == ()
  gradient = step.make_gradient(TABLE, {}, method)
  params = {
    "student": {"logits": jnp.asarray(Z, jnp.float32)},
    "method": method.init(jax.random.key(0), {}),
  }
  grads, loss = jax.jit(gradient)(params, {}, ROWS, jnp.int32(0))
  total, expected, _ = run(methods.CrossEntropy())
  assert list(loss.metrics) == ["ce/ce"]
  np.testing.assert_allclose(float(loss.total), 2 * total, rtol=1e-6)
  np.testing.assert_allclose(
    grads["student"]["logits"], 2 * expected, rtol=1e-5, atol=1e-7
  )
  # A schedule counts, even where it is 0 at first.
  later = methods.Part(methods.KD(), schedules.Linear(0.0, 1.0, 10))
  assert methods.Sum(parts | {"kd": later}).needs().teachers == ("teacher",)


def test_a_sum_of_nothing_is_refused():
  method = methods.Sum({"kd": methods.Part(methods.KD(), 0.0)})
  with pytest.raises(types.UserError, match=r"kd.*weight 0"):
    method.needs()
