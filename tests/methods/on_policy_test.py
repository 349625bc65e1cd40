# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Methods of written text, through the step.

`data/on_policy.npz` holds random logits of two texts of 4 rows and 6 positions,
and what the authors' own code makes of them in float64 (functions taken from
microsoft/LMOps 4f2a9de `minillm`, jongwooko/distillm-2 fe4cf9b
`distillm_trainer.py` and lasgroup/SDPO 0e6d510 `core_algos.py`, under PyTorch
2.13): losses and their gradients by the student's logits. MiniLLM's are of rows
without padding, which its code counts in.
"""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import methods, run_checks, schedules, step, types
from jdistill.methods import base
from jdistill.models import FunctionArchitecture

FILE = pathlib.Path(__file__).parent / "data" / "on_policy.npz"
AUTHORS = dict(np.load(FILE))
B, T, V = AUTHORS["student"].shape
PLACES = B * T
# Tokens number the places of both texts: a model is a table of logits.
TABLE = FunctionArchitecture(
  apply=lambda params, tokens: params["logits"][tokens],
  make=lambda key: {"logits": jnp.zeros((2 * PLACES, V))},
)
FULL = np.ones((B, T))


def table(own: str, text: str):
  rows = [AUTHORS[own].reshape(-1, V), AUTHORS[text].reshape(-1, V)]
  return {"logits": jnp.asarray(np.concatenate(rows), jnp.float32)}


STUDENT = table("student", "text/student")
TEACHER = table("teacher", "text/teacher")


def view(targets, mask, first=0, segments=None) -> types.Tokens:
  at = np.broadcast_to(np.arange(T), (B, T))
  return types.Tokens(
    tokens=jnp.asarray(first + np.arange(PLACES).reshape(B, T), jnp.int32),
    targets=jnp.asarray(targets, jnp.int32),
    mask=jnp.asarray(mask, jnp.float32),
    positions=jnp.asarray(at, jnp.int32),
    segment_ids=jnp.asarray(
      np.ones((B, T)) if segments is None else segments, jnp.int32
    ),
  )


def rows(mask=FULL, views=None, segments=None, **data) -> types.Batch:
  own = view(AUTHORS["targets"], mask, segments=segments)
  data = {k: jnp.asarray(v) for k, v in data.items()}
  return types.Batch({"student": own, **(views or {})}, data, jnp.arange(B))


WRITTEN = {k: AUTHORS[k] for k in ("log_probs", "sampling_log_probs")}


COMPILED = {}
# Compiles in half the time; each program runs once or twice.
jit = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


def run(method, batch, *, at=0, microbatches=1, student=STUDENT, **teachers):
  """Loss, gradient [2 B, T, V] of the student's logits, and metrics."""
  found = {"teacher": TEACHER, **teachers}
  name = repr((method, sorted(found), microbatches))
  if name not in COMPILED:
    gradient = step.make_gradient(
      TABLE, dict.fromkeys(found, TABLE), method, microbatches=microbatches
    )
    COMPILED[name] = jit(gradient)
  outputs = TABLE.bind(student)(batch["student"])
  own = method.init(
    jax.random.key(0), dict.fromkeys(("student", *found), outputs)
  )
  params = {"student": student, "method": own}
  grads, loss = COMPILED[name](params, found, batch, jnp.int32(at))
  grad = np.asarray(grads["student"]["logits"]).reshape(2 * B, T, V)
  return float(loss.total), grad, loss.metrics


def close(found, expected):
  np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


def logs(z):
  z = np.asarray(z, np.float64)
  z = z - z.max(-1, keepdims=True)
  return z - np.log(np.exp(z).sum(-1, keepdims=True))


def of_targets(name):
  ids = AUTHORS["targets"][..., None]
  return np.take_along_axis(logs(AUTHORS[name]), ids, -1)[..., 0]


Q, P = logs(AUTHORS["student"]), logs(AUTHORS["teacher"])
LOG_Q, LOG_P, OLD = of_targets("student"), of_targets("teacher"), (
  AUTHORS["log_probs"].astype(np.float64)
)  # fmt: skip
MASK = AUTHORS["mask"].astype(np.float64)


def mean(values, mask=MASK):
  return (mask * values).sum() / mask.sum()


# ------------------------------------------------------- the authors' own code


def test_minillm():
  total, grad, metrics = run(methods.MiniLLM(), rows(**WRITTEN), microbatches=2)
  policy, single = AUTHORS["minillm/policy"], AUTHORS["minillm/single_step"]
  close(total, policy + single)
  close(metrics["policy"].sum / PLACES, policy)
  close(metrics["reverse_kl"].sum / PLACES, single)
  close(grad[:B], AUTHORS["minillm/grad"])


@pytest.mark.parametrize(("beta", "microbatches"), [(1.0, 1), (1.3, 4)])
def test_distillm2(beta, microbatches):
  other = view(AUTHORS["text/targets"], AUTHORS["text/mask"], PLACES)
  total, grad, _ = run(
    methods.DistiLLM2(beta=schedules.Linear(1.0, 1.5, 10)),
    rows(MASK, {"teacher_text": other}),
    at=round((beta - 1) * 20),
    microbatches=microbatches,
  )
  close(total, AUTHORS[f"distillm2/{beta}"])
  close(grad[:B], AUTHORS[f"distillm2/{beta}/student"])
  close(grad[B:], AUTHORS[f"distillm2/{beta}/text"])


@pytest.mark.parametrize(
  ("name", "method"),
  [
    ("bucket", methods.SelfDistillation(top=5)),
    ("top", methods.SelfDistillation("reverse_kl", support="top", top=5,
                                     clip=None)),
    ("full", methods.SelfDistillation("forward_kl", support="full", clip=1.1)),
    ("sampled", methods.SelfDistillation(support="sampled")),
  ],
)  # fmt: skip
def test_self_distillation(name, method):
  method = dataclasses.replace(method, rows="told")
  # The teacher reads the same answer from the end of its view to the start.
  back = np.arange(T)[::-1]
  flat = TEACHER["logits"].reshape(2, B, T, V)
  privileged = {"logits": flat[:, :, back].reshape(-1, V)}
  index = np.where(MASK > 0, back, 99).astype(np.int32)
  batch = rows(
    MASK,
    {"privileged": view(AUTHORS["targets"], FULL)},
    teacher_index=index,
    told=AUTHORS["told"],
    **WRITTEN,
  )
  total, grad, _ = run(method, batch, teacher=privileged)
  if name != "sampled":  # another value, the same gradient
    close(total, AUTHORS[f"sdpo/{name}"])
  close(grad[:B], AUTHORS[f"sdpo/{name}/grad"])


# --------------------------------------------------------------- by the paper


def test_self_distillation_skips_the_first_targets():
  batch = rows(
    MASK,
    {"privileged": view(AUTHORS["targets"], FULL)},
    teacher_index=np.broadcast_to(np.arange(T), (B, T)).astype(np.int32),
  )
  method = methods.SelfDistillation(support="full", clip=None, skip=2)
  left = MASK * (np.cumsum(MASK, -1) > 2)
  mix = np.log((np.exp(P) + np.exp(Q)) / 2)
  kl = lambda a, b: (np.exp(a) * (a - b)).sum(-1)  # noqa: E731
  close(run(method, batch)[0], mean((kl(P, mix) + kl(Q, mix)) / 2, left))


def test_on_policy_distillation():
  batch = rows(MASK, **WRITTEN)
  ratio, gain = np.exp(LOG_Q - OLD), LOG_P - OLD
  total, grad, metrics = run(methods.OnPolicyDistillation(), batch)
  close(total, mean(-ratio * gain))
  hit = np.eye(V)[AUTHORS["targets"]] - np.exp(Q)
  weights = MASK / MASK.sum()
  close(grad[:B], (weights * -ratio * gain)[..., None] * hit)
  close(metrics["k1"].sum / metrics["k1"].weight, mean(LOG_Q - LOG_P))

  total, _, _ = run(methods.OnPolicyDistillation("clip", clip=0.05), batch)
  held = np.clip(ratio, 0.95, 1.05)
  close(total, mean(np.maximum(-gain * ratio, -gain * held)))

  drawn = np.minimum(np.exp(OLD - AUTHORS["sampling_log_probs"]), 1.1)
  total, grad, _ = run(methods.OnPolicyDistillation("k2", truncate=1.1), batch)
  close(total, mean(drawn * (LOG_P - LOG_Q) ** 2 / 2))
  slope = weights * drawn * (LOG_Q - LOG_P)
  close(grad[:B], slope[..., None] * hit)


@pytest.mark.parametrize(
  "method",
  [methods.OnPolicyDistillation(), methods.MiniLLM(), methods.GRPO()],
  ids=lambda m: type(m).__name__,
)
def test_rows_that_no_model_wrote_do_not_count(method):
  """As if the row were empty; its reward is no sibling's concern either."""
  told = {"reward": np.arange(B), "group": np.zeros(B, int)}
  written = {k: np.where(np.arange(B)[:, None] == 2, 0, v)
             for k, v in WRITTEN.items()}  # fmt: skip
  empty = np.where(np.arange(B)[:, None] == 2, 0, MASK)
  found = run(method, rows(MASK, **written, **told))
  expected = run(method, rows(empty, **WRITTEN, **told))
  close(found[0], expected[0])
  close(found[1], expected[1])
  assert not found[1][2].any()
  assert found[1][1].any()


@pytest.mark.parametrize("kind", ["importance", "clip", "k2"])
def test_sampled_forms_have_the_gradient_of_reverse_kl(kind):
  """Each id once at every place, weighed by q: the expectation as a sum."""
  q = np.exp(Q)
  exact = run(methods.KD("reverse_kl"), rows(MASK))[1][:B]
  found = np.zeros((B, T, V))
  for v in range(V):
    targets = np.full((B, T), v)
    own = view(targets, MASK * q[..., v])
    batch = types.Batch(
      {"student": own}, {"log_probs": jnp.asarray(Q[..., v], jnp.float32)},
      jnp.arange(B),
    )  # fmt: skip
    grad = run(methods.OnPolicyDistillation(kind), batch)[1][:B]
    found += grad * (own.mask.sum() / MASK.sum())
  assert np.abs(exact).max() > 0.01
  np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", ["std", "none"])
def test_grpo(scale):
  reward, group = np.array([1.0, 0.0, 3.0, 0.5]), np.array([2, 5, 2, 2])
  own = reward[group == 2]
  advantages = np.where(group == 2, reward - own.mean(), 0)
  if scale == "std":
    advantages /= own.std(ddof=1) + 1e-4
  ratio = np.exp(LOG_Q - OLD)
  a = advantages[:, None]
  expected = np.maximum(-a * ratio, -a * np.clip(ratio, 0.8, 1.3))
  method = methods.GRPO(scale=scale, clip_high=0.3)
  assert method.needs().teachers == ()
  batch = rows(MASK, reward=reward, group=group, **WRITTEN)
  close(run(method, batch, microbatches=4)[0], mean(expected))


def test_minillm_pays_within_documents():
  """Two documents in a row are worth what they are worth apart."""
  segments = np.where(np.arange(T) < 3, 1, 2) * np.ones((B, 1))
  packed = rows(MASK, segments=segments, **WRITTEN)
  method = methods.MiniLLM()
  found = method.prepare(jnp.asarray(LOG_P), packed, jnp.zeros(B))
  advantages = np.asarray(base.per_token(found, "minillm/advantages"))
  reward = np.clip((LOG_P - OLD) / 0.5, -100, 100)
  expected = np.zeros((B, T))
  for b, t in zip(*np.nonzero(MASK), strict=True):
    same = [i for i in range(t, T) if MASK[b, i] and (i < 3) == (t < 3)]
    paid = [0.95**n * reward[b, i] for n, i in enumerate(same)]
    expected[b, t] = sum(paid) / len(paid)
  inside = expected[MASK > 0]
  expected = MASK * (expected - inside.mean()) / inside.std()
  np.testing.assert_allclose(advantages, expected, rtol=1e-4, atol=1e-5)


KL = (np.exp(P) * (P - Q)).sum(-1)
OTHER = {"logits": TEACHER["logits"] + 0.5 * jnp.roll(STUDENT["logits"], 3, 0)}
REF = logs(np.asarray(OTHER["logits"])[:PLACES].reshape(B, T, V))
GAIN = KL - (np.exp(P) * (P - REF)).sum(-1)


@pytest.mark.parametrize(
  ("keep", "scores", "microbatches"),
  [("gain", GAIN, 4), ("lowest", -GAIN, 1), ("largest_loss", KL, 2)],
)
def test_adaspec(keep, scores, microbatches):
  """The quantile is NumPy's, over the target tokens of the whole batch."""
  method = methods.AdaSPEC(fraction=0.3, keep=keep)
  total, grad, metrics = run(
    method, rows(MASK), microbatches=microbatches, reference=OTHER
  )
  kept = MASK * (scores >= np.quantile(scores[MASK > 0], 0.7))
  assert 1 < kept.sum() < MASK.sum() - 1
  close(total, mean(KL, kept))
  close(metrics["forward_kl"].weight, kept.sum())
  close(metrics["all_tokens"].sum / metrics["all_tokens"].weight, mean(KL))
  gap = (np.exp(Q) - np.exp(P)) * (kept / kept.sum())[..., None]
  close(grad[:B], gap)


def test_adaspec_at_random_draws_anew_at_each_step():
  method = methods.AdaSPEC(fraction=0.3, keep="random")
  assert method.needs().teachers == ("teacher",)
  found = []
  for at in range(8):
    _, grad, metrics = run(method, rows(MASK), at=at)
    kept = np.abs(grad[:B]).sum(-1) > 0
    assert kept.sum() == metrics["forward_kl"].weight
    assert kept.sum() == 1 + int(0.3 * (MASK.sum() - 1))
    assert not kept[MASK == 0].any()
    found.append(kept)
  assert len({k.tobytes() for k in found}) > 4
  assert np.any(found, axis=0).sum() > 0.8 * MASK.sum()


def test_span_loss():
  spans = np.array([1, 1, 1, 0, 0, 2]) * np.ones((B, 1), int)
  segments = np.where(np.arange(T) < 2, 1, 2) * np.ones((B, 1), int)
  batch = rows(MASK, segments=segments, spans=spans.astype(np.int32))
  expected, count = 0.0, 0
  for b in range(B):
    for t in range(T - 1):
      same = spans[b, t] == spans[b, t + 1] != 0
      if same and segments[b, t] == segments[b, t + 1] and MASK[b, t + 1]:
        teacher = np.exp(P[b, t] + P[b, t + 1])
        student = np.exp(Q[b, t] + Q[b, t + 1])
        expected, count = expected + ((teacher - student) ** 2).sum(), count + 1
  assert count == 3  # rows of one target have no pair
  total, grad, metrics = run(methods.SpanLoss(), batch)
  close(total, expected / count)
  close(metrics["span"].weight, count)
  # Both neighbours learn; by differences.
  assert (np.abs(grad[:B]).sum(-1) > 0).sum() == 2 * count
  moved = STUDENT["logits"].at[1, 4].add(0.01)
  lower = STUDENT["logits"].at[1, 4].add(-0.01)
  up, down = (
    run(methods.SpanLoss(), batch, student={"logits": x})[0]
    for x in (moved, lower)
  )
  np.testing.assert_allclose(grad[0, 1, 4], (up - down) / 0.02, rtol=5e-3)


def test_dac_kl():
  """At its first step, when the gate is the same for all tokens."""
  method = methods.DACKL(top=V, width=0.05, guard=2.0, floor=0.95)
  total, grad, metrics = run(method, rows(MASK))
  p, mass = np.exp(P), np.zeros((B, T, V))
  order = np.argsort(-p, -1)
  np.put_along_axis(
    mass, order, np.cumsum(np.take_along_axis(p, order, -1), -1), -1
  )
  sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
  low, high = sigmoid(-4), sigmoid(4)
  gate = sigmoid((mass - low) / 0.05) * sigmoid((high - mass) / 0.05)
  gate = np.where(np.eye(V)[AUTHORS["targets"]] > 0, 1, gate)
  a, b = (x / x.sum(-1, keepdims=True) for x in (gate * p, gate * np.exp(Q)))
  passed = (gate * p).sum(-1)
  kl, guard = (a * np.log(a / b)).sum(-1), np.maximum(0.95 - passed, 0)
  assert 0 < mean(guard) < 0.5
  close(total, mean(kl + 2 * guard))
  close(metrics["passed"].sum / metrics["passed"].weight, mean(passed))
  close(grad[:B], (MASK / MASK.sum())[..., None] * (b - a))


def test_the_guard_of_dac_kl_holds_the_gate_open():
  """Without it the gate shuts where the loss is; with it, it stays."""
  gradient = {}
  for guard in (0.0, 50.0):
    method = methods.DACKL(top=8, width=0.2, guard=guard, floor=1.0)
    make = step.make_gradient(TABLE, {"teacher": TABLE}, method)
    shapes = {"student": TABLE.bind(STUDENT)(rows()["student"])}
    own = method.init(jax.random.key(0), shapes)
    grads, _ = jit(make)(
      {"student": STUDENT, "method": own}, {"teacher": TEACHER}, rows(MASK),
      jnp.int32(0),
    )  # fmt: skip
    gradient[guard] = grads["method"]["outer"]["bias"]
  low, high = gradient[50.0]
  assert low > 0 > high  # descent lowers l and raises u
  assert not np.allclose(gradient[0.0], gradient[50.0])


def test_sums_keep_streams_of_one_name_apart():
  """The same teacher reads two views, and neighbours side by side."""
  index = np.broadcast_to(np.arange(T), (B, T)).astype(np.int32)
  batch = rows(
    MASK,
    {"privileged": view(AUTHORS["targets"], FULL, PLACES)},
    teacher_index=index,
    spans=np.ones((B, T), np.int32),
    **WRITTEN,
  )
  parts = {
    "kd": methods.KD(),
    "self": methods.SelfDistillation(),
    "span": methods.SpanLoss(),
    "sampled": methods.OnPolicyDistillation("k2"),
  }
  whole = methods.Sum({k: methods.Part(m, 0.5) for k, m in parts.items()})
  assert set(whole.needs().data) == {"teacher_index", "log_probs", "spans"}
  total, grad, _ = run(whole, batch)
  apart = [run(method, batch) for method in parts.values()]
  close(total, sum(0.5 * one[0] for one in apart))
  close(grad, sum(0.5 * one[1] for one in apart))


# --------------------------------------------------------------------- errors


@pytest.mark.parametrize(
  ("method", "missing"),
  [
    (methods.GRPO(), r"GRPO needs an array.*'reward'.*have log_probs"),
    (methods.DistiLLM2(), r"DistiLLM2 needs a view.*'teacher_text'.*student"),
    (methods.SelfDistillation(rows="told"), "'privileged'"),
  ],
)
def test_a_batch_without_what_a_method_needs_is_refused(method, missing):
  batch = rows(log_probs=AUTHORS["log_probs"])
  run_checks.check_batch(methods.KD(), batch)
  run_checks.check_batch(methods.OnPolicyDistillation(), batch)
  with pytest.raises(types.UserError, match=missing):
    run_checks.check_batch(method, batch)


def test_labels_are_no_text():
  examples = types.Examples(jnp.zeros((B, 1)), jnp.zeros(B, int), jnp.ones(B))
  batch = types.Batch({"student": examples}, {}, jnp.arange(B))
  with pytest.raises(types.UserError, match=r"MiniLLM: .*expected text"):
    methods.MiniLLM().prepare(jnp.zeros(B), batch, jnp.zeros(B))
  spans = dataclasses.replace(batch, data={"spans": jnp.zeros((B, T), int)})
  with pytest.raises(types.UserError, match=r"SpanLoss: .*expected text"):
    methods.SpanLoss().norms(spans)
