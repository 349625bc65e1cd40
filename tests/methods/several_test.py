# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Ensembles and routes of teachers, against NumPy in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import methods, schedules, step, types
from jdistill.methods import several
from jdistill.models import FunctionArchitecture

B, V = 8, 11
RNG = np.random.default_rng(0)
Z = 2 * RNG.normal(size=(B, V))
TEACHERS = {name: 3 * RNG.normal(size=(B, V)) for name in ("a", "b", "c")}
WEIGHTS = np.array([0.5, 0.2, 0.3])
Y = RNG.integers(V, size=B)
M = np.array([1, 1, 0, 1, 1, 1, 1, 1.0])
DOMAIN = np.array([0, 1, 2, 0, 1, 0, 1, 1])
EXCLUDED = RNG.random((B, V)) < 0.2


def table(read=None):
  """A model whose logits of row i are row i of its table."""

  def apply(params, rows):
    said = params["logits"][rows]
    if read is None:
      return said
    # What nobody reads is not called.
    return jax.pure_callback(
      lambda x: (read(), x)[1],
      jax.ShapeDtypeStruct(said.shape, said.dtype),
      said,
    )

  return FunctionArchitecture(
    apply=apply,
    make=lambda key: {"logits": jnp.zeros((B, V))},
    kind="inputs",
    shape=(),
    input_dtype="int32",
  )


TABLE = table()


def batch(domain=DOMAIN, **data):
  view = types.Examples(jnp.arange(B), jnp.asarray(Y, jnp.int32),
                        jnp.asarray(M))  # fmt: skip
  data = {"domain": domain, **data}
  return types.Batch(
    {"student": view},
    {k: jnp.asarray(v) for k, v in data.items()},
    jnp.arange(B),
  )


def run(method, teachers=TEACHERS, *, at=0, own=None, rows=None, shapes=None):
  """Gradient and loss; `teachers` are tables of logits by name."""
  method.needs()
  shapes = shapes or dict.fromkeys(teachers, TABLE)
  rows = batch() if rows is None else rows
  outputs = step.output_shapes(TABLE, shapes, method, rows)
  if own is None:
    own = method.init(jax.random.key(0), outputs)
  params = {"student": {"logits": jnp.asarray(Z)}, "method": own}
  frozen = {k: {"logits": jnp.asarray(z)} for k, z in teachers.items()}
  gradient = step.make_gradient(TABLE, shapes, method)
  quick = jax.jit(
    gradient, compiler_options={"xla_backend_optimization_level": 0}
  )
  return quick(params, frozen, rows, jnp.int32(at))


def logs(z):
  z = z - z.max(-1, keepdims=True)
  return z - np.log(np.exp(z).sum(-1, keepdims=True))


def mixed(kind, tables, weights):
  """The logarithm of the average distribution."""
  if kind == "probability":
    return np.log(np.einsum("n,nbv->bv", weights, np.exp(logs(tables))))
  if kind == "logit":
    return logs(np.einsum("n,nbv->bv", weights, tables))
  return logs(np.einsum("n,nbv->bv", weights, logs(tables)))


@pytest.mark.parametrize("kind", ["probability", "logit", "log_prob"])
def test_averages(kind, x64):
  tables = np.stack(list(TEACHERS.values()))
  found = several.average(
    [jnp.asarray(z) for z in tables], jnp.asarray(WEIGHTS), kind
  )
  expected = mixed(kind, tables, WEIGHTS)
  np.testing.assert_allclose(logs(np.asarray(found)), expected, rtol=1e-12)
  if kind == "logit":  # as they are
    plain = np.einsum("n,nbv->bv", WEIGHTS, tables)
    np.testing.assert_allclose(found, plain, rtol=1e-12)
  else:
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", ["probability", "logit", "log_prob"])
def test_what_one_teacher_excludes(kind, x64):
  """A mixture says it all the same; a product of experts does not."""
  tables = [np.where(EXCLUDED, -np.inf, Z), TEACHERS["a"]]
  found = several.average(
    [jnp.asarray(z) for z in tables], jnp.asarray([0.4, 0.6]), kind
  )
  assert not np.isnan(found).any()
  assert (np.isneginf(found) == (EXCLUDED & (kind != "probability"))).all()
  # One who does not count excludes nothing.
  alone = several.average(
    [jnp.asarray(z) for z in tables], jnp.asarray([0.0, 1.0]), kind
  )
  np.testing.assert_allclose(
    logs(np.asarray(alone)), logs(tables[1]), rtol=1e-12
  )


INNER = {
  "kd": methods.KD(),
  "tempered": methods.KD("reverse_kl", tau=2.0),
  "jsd": methods.JSD(beta=0.3),
  "survey": methods.AdaSPEC(fraction=0.6),
  "sum": methods.Sum(
    {
      "kd": methods.Part(methods.AdaptiveKL(), 0.7),
      "ce": methods.Part(methods.CrossEntropy(), 0.3),
    }
  ),
}


@pytest.mark.parametrize(
  ("inner", "kind"),
  [
    ("kd", "probability"),
    ("tempered", "log_prob"),
    ("jsd", "logit"),
    ("survey", "log_prob"),
    ("sum", "probability"),
  ],
)
def test_any_method_learns_from_an_ensemble(inner, kind, x64):
  """As from one teacher that says what they say together."""
  method = INNER[inner]
  also = [k for k in method.needs().teachers if k != "teacher"]
  others = {name: TEACHERS["c"] for name in also}
  tables = np.stack([TEACHERS[k] for k in ("a", "b", "c")])
  one = {"teacher": mixed(kind, tables, WEIGHTS), **others}
  weights = dict(zip(TEACHERS, (10 * WEIGHTS).tolist(), strict=True))
  grads, loss = run(
    methods.Ensemble(method, weights, kind), {**TEACHERS, **others}
  )
  expected, want = run(method, one)
  np.testing.assert_allclose(
    grads["student"]["logits"],
    expected["student"]["logits"],
    rtol=1e-8,
    atol=1e-12,
  )
  np.testing.assert_allclose(loss.total, want.total, rtol=1e-9)
  assert loss.metrics.keys() == want.metrics.keys()


def test_a_member_may_have_the_name_of_the_whole(x64):
  tables = {"teacher": TEACHERS["a"], "second": TEACHERS["b"]}
  weights = {"teacher": 1.0, "second": 1.0}
  grads, _ = run(methods.Ensemble(methods.KD(), weights), tables)
  halves = np.array([0.5, 0.5])
  whole = mixed("probability", np.stack(list(tables.values())), halves)
  expected, _ = run(methods.KD(), {"teacher": whole})
  np.testing.assert_allclose(
    grads["student"]["logits"], expected["student"]["logits"], rtol=1e-8
  )


@pytest.mark.parametrize("kind", ["probability", "logit"])
def test_learned_weights_follow_the_cross_entropy(kind, x64):
  """Theirs is its gradient; the student's is that of weights that stay."""
  start = dict(zip(TEACHERS, WEIGHTS.tolist(), strict=True))
  method = methods.Ensemble(methods.KD(), start, kind, "learned", pace=7.0)
  own = {"method": {}, "weights": jnp.asarray(np.log(WEIGHTS) / 7)}
  grads, loss = run(method, own=own)
  fixed, want = run(methods.Ensemble(methods.KD(), start, kind))
  np.testing.assert_allclose(
    grads["student"]["logits"], fixed["student"]["logits"], rtol=1e-10
  )
  np.testing.assert_allclose(loss.total, want.total, rtol=1e-12)

  def ce(theta):
    weights = np.exp(7 * theta) / np.exp(7 * theta).sum()
    tables = np.stack(list(TEACHERS.values()))
    said = mixed(kind, tables, weights)[np.arange(B), Y]
    return -(said * M).sum() / M.sum()

  theta, eps = np.log(WEIGHTS) / 7, 1e-6
  expected = [
    (ce(theta + eps * unit) - ce(theta - eps * unit)) / (2 * eps) / 7
    for unit in np.eye(3)
  ]
  np.testing.assert_allclose(
    grads["method"]["weights"], expected, rtol=1e-7, atol=1e-10
  )
  found = loss.metrics["teachers/ce"]
  np.testing.assert_allclose(found.sum / found.weight, ce(theta), rtol=1e-10)
  found = loss.metrics["teachers/b"]
  np.testing.assert_allclose(found.sum / found.weight, WEIGHTS[1], rtol=1e-6)


def test_learned_weights_begin_where_they_were_given():
  start = dict(zip(TEACHERS, (4 * WEIGHTS).tolist(), strict=True))
  method = methods.Ensemble(methods.KD(), start, weights="learned")
  _, loss = run(method)
  for name, weight in zip(TEACHERS, WEIGHTS, strict=True):
    found = loss.metrics[f"teachers/{name}"]
    np.testing.assert_allclose(found.sum / found.weight, weight, rtol=1e-5)


def test_what_a_model_wrote_teaches_no_weights():
  method = methods.Ensemble(
    methods.KD(), dict.fromkeys(TEACHERS, 1.0), weights="learned"
  )
  wrote = np.where(np.arange(B) < 4, -1.0, 0.0).astype(np.float32)
  grads, _ = run(method, rows=batch(log_probs=wrote))
  view = batch()["student"]
  few = types.Examples(
    view.inputs, view.targets, view.mask * jnp.asarray(wrote == 0)
  )
  rest = types.Batch({"student": few}, batch().data, jnp.arange(B))
  expected, _ = run(method, rows=rest)
  np.testing.assert_allclose(
    grads["method"]["weights"], expected["method"]["weights"], rtol=1e-5
  )


def counting():
  """Tables that count how often each is read, and the counts."""
  counts = dict.fromkeys(TEACHERS, 0)

  def add(name):
    counts[name] += 1

  shapes = {
    name: table(functools.partial(add, name)) for name in TEACHERS
  }  # fmt: skip
  return shapes, counts


def routed(rows, names=("c", "a", "a")):
  shapes, counts = counting()
  method = methods.Routed(methods.KD(), names)
  found = jax.block_until_ready(run(method, rows=rows, shapes=shapes))
  return found, counts


def test_each_row_is_taught_by_its_domain_s_teacher(x64):
  (grads, loss), counts = routed(batch())
  chosen = np.where((DOMAIN == 0)[:, None], TEACHERS["c"], TEACHERS["a"])
  expected, want = run(methods.KD(), {"teacher": chosen})
  np.testing.assert_allclose(
    grads["student"]["logits"], expected["student"]["logits"], rtol=1e-10
  )
  np.testing.assert_allclose(loss.total, want.total, rtol=1e-12)
  assert counts == {"a": 1, "b": 0, "c": 1}


@pytest.mark.parametrize(("domain", "who"), [(0, "c"), (1, "a"), (2, "a")])
def test_a_teacher_without_rows_reads_nothing(domain, who):
  (grads, _), counts = routed(batch(np.full(B, domain)))
  expected, _ = run(methods.KD(), {"teacher": TEACHERS[who]})
  np.testing.assert_allclose(
    grads["student"]["logits"], expected["student"]["logits"], rtol=1e-5
  )
  assert counts == {name: int(name == who) for name in TEACHERS}


def test_rows_that_do_not_count_ask_nobody():
  rows = np.where(M > 0, 1, 0)
  _, counts = routed(batch(rows))
  assert counts == {"a": 1, "b": 0, "c": 0}


@pytest.mark.parametrize(
  ("at", "weights", "read"),
  [
    (0, (1.0, 0.0), {"a": 1, "b": 0, "c": 0}),
    (3, (0.25, 0.75), {"a": 1, "b": 1, "c": 0}),
    (4, (0.0, 1.0), {"a": 0, "b": 1, "c": 0}),
  ],
)
def test_one_teacher_hands_over_to_another(at, weights, read):
  shapes, counts = counting()
  handed = {
    "a": schedules.Linear(1.0, 0.0, 4),
    "b": schedules.Linear(0.0, 1.0, 4),
    "c": 0.0,
  }
  method = methods.Ensemble(methods.KD(), handed)
  assert method.needs().teachers == ("a", "b")
  grads, _ = jax.block_until_ready(run(method, at=at, shapes=shapes))
  tables = np.stack([TEACHERS["a"], TEACHERS["b"]])
  whole = mixed("probability", tables, np.array(weights))
  expected, _ = run(methods.KD(), {"teacher": whole})
  np.testing.assert_allclose(
    grads["student"]["logits"],
    expected["student"]["logits"],
    rtol=1e-4,
    atol=1e-6,
  )
  assert counts == read


LINEAR = schedules.Linear(1.0, 0.0, 4)


@pytest.mark.parametrize(
  ("method", "said"),
  [
    (methods.Ensemble(methods.KD(), {}), "no teacher with a weight above 0"),
    (methods.Ensemble(methods.KD(), {"a": 0.0}), "no teacher with a weight"),
    (methods.Ensemble(methods.KD(), {"a": -1.0}), r"teachers\.a is -1"),
    (methods.Ensemble(methods.KD(), {"a": 1.0}, pace=0.0), r"pace is 0"),
    (
      methods.Ensemble(methods.KD(), {"a": LINEAR}, weights="learned"),
      r"teachers\.a is a schedule.*'learned'",
    ),
    (
      methods.Ensemble(methods.CrossEntropy(), {"a": 1.0}),
      "CrossEntropy a teacher named 'teacher', which that does not ask for",
    ),
    (
      methods.Ensemble(methods.Features(), {"a": 1.0}),
      "Features reads features of its teacher",
    ),
    (
      methods.Ensemble(methods.WeightedKD("kl"), {"a": LINEAR}),
      "WeightedKD looks at whole batches before the update",
    ),
    (methods.Routed(methods.KD(), ()), "one for each domain"),
  ],
)
def test_what_cannot_be(method, said):
  with pytest.raises(types.UserError, match=said):
    run(method)


def test_vocabularies_are_cut_to_what_all_know():
  """Of heads that are padded, as they often are."""
  rng = np.random.default_rng(1)
  blend = several.Blend(jnp.array([0.5, 0.5]), "log_prob", skips=False)
  outputs, cut = [], []
  for width, size in ((6, V + 3), (5, V)):
    hidden, weight = rng.normal(size=(B, width)), rng.normal(size=(size, width))
    head = types.Head(jnp.asarray(weight, jnp.float32))
    hidden = jnp.asarray(hidden, jnp.float32)
    outputs.append(types.Outputs(hidden, head, {}, {}))
    cut.append(logs(np.asarray(hidden @ weight[:V].T)))
  found = several.join(outputs, blend)
  assert found.head.vocab_size == V
  expected = logs((cut[0] + cut[1]) / 2)
  np.testing.assert_allclose(found.logits, expected, rtol=1e-5, atol=1e-5)
