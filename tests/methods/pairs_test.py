# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Other losses towards a teacher with another tokenizer.

`data/dskd.npz` was made with `compute_baseline_dskd_loss` of
github.com/bminixhofer/tokenkit at bcacdef: one row of random embeddings, hidden
states, heads and projectors; `/grad` is with respect to the student's hidden
states and to kernels. The latent term is in `data/alm.npz`, see `alm_test`.
The others are compared with NumPy in float64.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import methods, step, types
from jdistill.methods import base

DATA = pathlib.Path(__file__).parent / "data"
ALM, DSKD = (np.load(DATA / f"{name}.npz") for name in ("alm", "dskd"))
SIDES = ("student", "teacher")
jit = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


def view(ids, mask) -> types.Tokens:
  real = mask.astype(np.int32)
  at = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
  return types.Tokens(
    ids[:, :-1], ids[:, 1:], mask[:, 1:], at[:, :-1], real[:, :-1]
  )


def as_batch(views, chunks=None) -> types.Batch:
  count = len(views["student"].tokens)
  found = types.Batch(views, chunks or {}, np.arange(count))
  return jax.tree.map(jnp.asarray, found)


def speaker(batch, out: types.Outputs, tables=None) -> step.Speaker:
  want = tuple(out.features)
  say = lambda view, want: out  # noqa: E731
  return step.Speaker(say, batch, want, tables=tables or {})


def loss(method, params, student, teacher, batch) -> types.Loss:
  keys = jax.random.split(jax.random.key(0), len(batch.example_id))
  teachers = {"teacher": teacher}
  arrays = method.survey(params, student, teachers, batch)
  ready = method.prepare(arrays, batch, keys)
  ctx = base.Context(jnp.int32(0), keys, method.norms(ready))
  return method.loss(params, student, teachers, ready, ctx)


def test_dskd_is_the_authors_loss():
  def row(side):
    ids = DSKD[f"{side}_ids"]
    ones = np.ones(ids.shape, np.int32)
    targets = np.pad(ids[:, 1:], ((0, 0), (0, 1)))
    return types.Tokens(ids, targets, ones.astype(np.float32), ones, ones)

  batch = as_batch({side: row(side) for side in SIDES})
  params = {
    k: {p: jnp.asarray(DSKD[f"{k}/{p}"]) for p in ("kernel", "bias")}
    for k in ("query", "t2s", "s2t")
  }
  method = methods.DSKD("forward_kl")

  def total(hidden, params):
    voices = []
    for side in SIDES:
      state = hidden if side == "student" else DSKD["teacher_hidden"]
      embed = jnp.asarray(DSKD[f"{side}_embed"][DSKD[f"{side}_ids"]])
      head = types.Head(jnp.asarray(DSKD[f"{side}_head"]))
      out = types.Outputs(jnp.asarray(state), head, {"embed": embed}, {})
      voices.append(speaker(batch, out))
    found = loss(method, params, *voices, batch)
    return found.total, found.metrics

  with jax.enable_x64(True):
    find = jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
    hidden = jnp.asarray(DSKD["student_hidden"])
    (value, metrics), (slope, slopes) = find(hidden, params)
  means = {k: float(m.sum) / float(m.weight) for k, m in metrics.items()}
  right = float(DSKD["kl/t2s_acc"])
  assert 0 < right < 1
  np.testing.assert_allclose(means["t2s_right"], right)
  parts = {"t2s_ce": DSKD["kl/t2s_ce_loss"], "s2t": DSKD["kl/s2t_kd_loss"]}
  parts["t2s"] = DSKD["kl/t2s_kd_loss"] * right  # over all targets here
  for name, expected in parts.items():
    np.testing.assert_allclose(means[name], expected, rtol=1e-5)
  np.testing.assert_allclose(value, sum(parts.values()), rtol=1e-5)
  # The kernel of t2s learns from the cross entropy alone, that of s2t from the
  # last term: what is divided otherwise is in neither.
  for name in ("t2s", "s2t"):
    np.testing.assert_allclose(
      slopes[name]["kernel"], DSKD[f"kl/grad/{name}"], rtol=1e-3, atol=1e-4
    )
  assert np.abs(slope).max() > 0


@pytest.mark.parametrize(
  "distance", ["l2_channelwise", "l1_channelwise", "l2", "l1"]
)
def test_latents_are_the_authors(distance):
  views = {s: view(ALM[f"{s}_ids"], ALM[f"{s}_mask"]) for s in SIDES}
  chunks = {f"{s}_chunks": ALM[f"{s}_chunks"][:, 1:] for s in SIDES}
  batch = as_batch(views, chunks)
  head = types.IdentityHead(6)
  method = methods.ALMLatents(distance=distance)
  teacher = jnp.asarray(ALM["teacher_hidden"][:, :-1])

  def total(hidden):
    voices = [
      speaker(batch, types.Outputs(x, head, {}, {})) for x in (hidden, teacher)
    ]
    return loss(method, {}, *voices, batch).total

  with jax.enable_x64(True):
    hidden = jnp.asarray(ALM["student_hidden"][:, :-1])
    found, slope = jit(jax.value_and_grad(total))(hidden)
  np.testing.assert_allclose(found, ALM[f"latents/{distance}"], rtol=1e-5)
  expected = ALM[f"latents/{distance}/grad"][:, :-1]
  np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-6)


# Two documents in a row; the first target of each chunk is marked below.
S_CHUNKS = np.array([[1, 2, 2, 3, 0, 4, 4, 0]])
T_CHUNKS = np.array([[1, 2, 3, 3, 4, 0]])
S_SEGMENTS = np.array([[1, 1, 1, 1, 2, 2, 2, 0]])
T_SEGMENTS = np.array([[1, 1, 1, 1, 2, 0]])
RNG = np.random.default_rng(5)
VS, VT = 5, 7
Z = {"student": 2 * RNG.normal(size=(1, 8, VS)),
     "teacher": 2 * RNG.normal(size=(1, 6, VT))}  # fmt: skip
IDS = {"student": RNG.integers(VS, size=(1, 8)),
       "teacher": RNG.integers(VT, size=(1, 6))}  # fmt: skip
SAME = np.array([3, -1, 0, 6, -1])
NEAREST = np.array([3, 2, 0, 6, -1])


def pair(method):
  """The loss of a method on these, its slope, and a direction."""
  views = {}
  for side, segments in (("student", S_SEGMENTS), ("teacher", T_SEGMENTS)):
    mask = (segments > 0).astype(np.float64)
    views[side] = types.Tokens(
      IDS[side], IDS[side], mask, np.zeros_like(segments), segments
    )
  chunks = {"student_chunks": S_CHUNKS, "teacher_chunks": T_CHUNKS}
  batch = as_batch(views, chunks)
  tables = {"same": jnp.asarray(SAME), "nearest": jnp.asarray(NEAREST)}

  def total(student):
    says = {"student": student, "teacher": jnp.asarray(Z["teacher"])}
    own, other = (
      speaker(
        batch,
        types.Outputs(x, types.IdentityHead(x.shape[-1]), {}, {}),
        tables if side == "student" else {},
      )
      for side, x in says.items()
    )
    return loss(method, {}, own, other, batch).total

  with jax.enable_x64(True):
    student = jnp.asarray(Z["student"])
    value, slope = jit(jax.value_and_grad(total))(student)
    nudge = 1e-6 * np.random.default_rng(0).normal(size=student.shape)
    return float(value), np.asarray(slope), nudge


def logs(z):
  z = z - z.max(-1, keepdims=True)
  return z - np.log(np.exp(z).sum(-1, keepdims=True))


def sorted_gap(q, p):
  q, p = (-np.sort(-x) for x in (q, p))
  width = max(len(q), len(p))
  q, p = (np.pad(x, (0, width - len(x))) for x in (q, p))
  return np.abs(q - p).sum()


def check(method, expected):
  """Value and slope, in one direction, against a function of the logits."""
  value, slope, nudge = pair(method)
  own = Z["student"]
  np.testing.assert_allclose(value, expected(own), rtol=2e-6)
  change = (expected(own + nudge) - expected(own - nudge)) / 2
  np.testing.assert_allclose((slope * nudge).sum(), change, rtol=1e-4)


def test_uld_pairs_places_within_documents():
  def expected(z):
    q, p = np.exp(logs(z[0])), np.exp(logs(Z["teacher"][0]))
    # Four of the first document, and the one that the second has on both sides.
    pairs = [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]
    return np.mean([sorted_gap(q[i], p[j]) for i, j in pairs])

  check(methods.ULD(), expected)


def test_mined_compares_nearest_ids_and_else_learns_the_text():
  def expected(z):
    q, p = logs(z[0]), Z["teacher"][0]
    kept = NEAREST >= 0
    near = logs(p[0][NEAREST[kept]])  # of chunk 1, the only one of one and one
    own = logs(z[0][0][kept])
    kl = (np.exp(near) * (near - own)).sum()
    text = [-q[i, IDS["student"][0, i]] for i in (1, 2, 3, 5, 6)]
    return (kl + sum(text)) / 6

  check(methods.MinED(), expected)


@pytest.mark.parametrize("shared", [None, 0.7])
def test_gold_compares_masses_of_chunks(shared):
  """As in TRL: the first token's distribution times the others' own."""
  first = [(0, 0), (1, 1), (3, 2), (5, 4)]
  more = [((), ()), ((2,), ()), ((), (3,)), ((6,), ())]
  kept = SAME >= 0
  taken = np.isin(np.arange(VT), SAME)

  def expected(z):
    q, p = logs(z[0]), logs(Z["teacher"][0])
    found = []
    for (i, j), (own, other) in zip(first, more, strict=True):
      rest = sum(q[k, IDS["student"][0, k]] for k in own)
      theirs = sum(p[k, IDS["teacher"][0, k]] for k in other)
      one, two = np.exp(q[i] + rest), np.exp(p[j] + theirs)
      a, b = one[kept], two[SAME[kept]]
      m = np.log(0.3 * b + 0.7 * a)
      jsd = 0.3 * (b * (np.log(b) - m)).sum()
      jsd += 0.7 * (a * (np.log(a) - m)).sum()
      weight = taken.mean() if shared is None else shared
      rest = sorted_gap(one[~kept], two[~taken])
      found.append(weight * jsd + (1 - weight) * rest)
    return np.mean(found)

  check(methods.GOLD(beta=0.3, shared=shared), expected)
