# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""ALM against its authors' code, and what the paper says of it.

`data/alm.npz` was made with `compute_alm_loss` and `compute_alm_latents_loss`
of github.com/bminixhofer/tokenkit at bcacdef: two rows of random logits and
hidden states, and chunks as the matrices that these take; `/grad` is with
respect to the student's logits or hidden states. The count of chunks that the
code merges a second time, which divides by too few, was merged once.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import methods, step, types
from jdistill.methods import base

STORED = np.load(pathlib.Path(__file__).parent / "data" / "alm.npz")
SIDES = ("student", "teacher")
# Compiles in half the time; each program runs once.
jit = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


def view(ids, mask) -> types.Tokens:
  """Pairs of tokens: what is read and what follows."""
  real = mask.astype(np.int32)
  at = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
  return types.Tokens(
    ids[:, :-1], ids[:, 1:], mask[:, 1:], at[:, :-1], real[:, :-1]
  )


def stored_batch() -> types.Batch:
  views = {s: view(STORED[f"{s}_ids"], STORED[f"{s}_mask"]) for s in SIDES}
  chunks = {f"{s}_chunks": STORED[f"{s}_chunks"][:, 1:] for s in SIDES}
  found = types.Batch(views, chunks, np.arange(2))
  return jax.tree.map(jnp.asarray, found)


def speaker(batch, name, logits, features=None) -> step.Speaker:
  """One that says given logits [B, T, V]."""
  out = types.Outputs(
    logits, types.IdentityHead(logits.shape[-1]), features or {}, {}
  )
  table = {"boundary": jnp.asarray(STORED[f"{name}_boundary"])}
  want = tuple(features or ())
  return step.Speaker(lambda view, want: out, batch, want, tables=table)


def say(method, batch, logits, features=None):
  """The loss of what student and teacher say, by name."""
  features = features or {}
  voices = {s: speaker(batch, s, logits[s], features.get(s)) for s in SIDES}
  pair = voices["student"], {"teacher": voices["teacher"]}
  arrays = method.survey({}, *pair, batch)
  keys = jax.random.split(jax.random.key(0), len(batch.example_id))
  ready = method.prepare(arrays, batch, keys)
  ctx = base.Context(jnp.int32(0), keys, method.norms(ready))
  return method.loss({}, *pair, ready, ctx)


def stored_logits():
  return {s: jnp.asarray(STORED[f"{s}_logits"][:, :-1]) for s in SIDES}


PLAIN = {"ending": "any", "merge_above": None, "tau": 5.0}
CASES = {
  "binary_ce": methods.ALM(merge_above=0.3),
  "reverse_binary_kl": methods.ALM("reverse_binary_kl", 5.0, merge_above=0.3),
  "binary_kl_temp_limit": methods.ALM("binary_kl_limit", merge_above=0.3),
  "abs": methods.ALM("abs", merge_above=0.3),
  "abs_exp": methods.ALM("abs_exp", 5.0, merge_above=0.3),
  "renyi": methods.ALM("renyi", merge_above=0.3),
  "joschu_k2": methods.ALM("k2", 5.0, merge_above=0.3),
  "joschu_k3": methods.ALM("k3", 5.0, merge_above=0.3),
  "plain": methods.ALM(**PLAIN),
  "add": methods.ALM(merge_above=None, tau=5.0),
  "tokens": methods.ALM(weight="token", merge_above=0.3, tau=5.0),
}


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(
      name,
      marks=[] if name in ("binary_ce", "renyi", "plain") else pytest.mark.slow,
    )
    for name in CASES
  ],
)
def test_it_is_the_authors_loss(name):
  batch, logits = stored_batch(), stored_logits()

  def total(student):
    return say(CASES[name], batch, {**logits, "student": student}).total

  with jax.enable_x64(True):
    found, slope = jit(jax.value_and_grad(total))(logits["student"])
  np.testing.assert_allclose(found, STORED[f"alm/{name}"], rtol=2e-5)
  expected = STORED[f"alm/{name}/grad"]
  assert not expected[:, -1].any()  # what nothing follows
  scale = np.abs(expected).max()
  np.testing.assert_allclose(slope, expected[:, :-1], atol=2e-4 * scale)


def same_pair(logits):
  """A student with the teacher's tokenizer, chunks of a token each."""
  side = view(STORED["teacher_ids"], STORED["teacher_mask"])
  chunks = np.cumsum(side.mask, axis=1) * side.mask
  batch = types.Batch(
    dict.fromkeys(SIDES, side),
    dict.fromkeys((f"{s}_chunks" for s in SIDES), chunks.astype(np.int32)),
    np.arange(2),
  )
  return jax.tree.map(jnp.asarray, batch), dict.fromkeys(SIDES, logits)


@pytest.mark.parametrize(
  "difference",
  ["binary_ce", pytest.param("reverse_binary_kl", marks=pytest.mark.slow)],
)
def test_the_teacher_itself_has_nothing_to_learn(difference, monkeypatch):
  """With its tokenizer: no slope, and the value is the entropy of the event."""
  batch, logits = same_pair(jnp.asarray(STORED["teacher_logits"][:, :-1]))
  method = methods.ALM(difference, tau=5.0)
  boundary = STORED["teacher_boundary"]
  both = dict.fromkeys((f"{s}_boundary" for s in SIDES), boundary)
  monkeypatch.setitem(globals(), "STORED", both)

  def total(student):
    return say(method, batch, {**logits, "student": student}).total

  found, slope = jit(jax.value_and_grad(total))(logits["student"])
  np.testing.assert_allclose(slope, 0, atol=1e-7)
  if difference == "binary_ce":
    p = np.exp(np.minimum(groups_of(method, batch, logits), 0) / 5.0)
    entropy = -(p * np.log(p) + (1 - p) * np.log1p(-p)).mean()
    np.testing.assert_allclose(found, entropy, rtol=1e-4)
  else:
    np.testing.assert_allclose(found, 0, atol=1e-6)


def groups_of(method, batch, logits) -> np.ndarray:
  """The teacher's log-likelihoods of all groups that there are."""
  voices = {s: speaker(batch, s, logits[s]) for s in SIDES}
  found = jit(lambda: method.survey({}, voices["student"], voices, batch))()
  return np.asarray(found["teacher"])[np.asarray(found["tokens"]) > 0]


def test_merging_goes_by_the_teachers_boundaries_and_stays_in_documents():
  """Text whose boundaries are all but certain, of two documents in a row."""
  ids = jnp.zeros((1, 6), jnp.int32)
  segments = jnp.array([[1, 1, 1, 2, 2, 2]])
  side = types.Tokens(ids, ids, jnp.ones((1, 6)), ids, segments)
  chunks = jnp.arange(1, 7)[None]
  batch = types.Batch(
    dict.fromkeys(SIDES, side),
    dict.fromkeys((f"{s}_chunks" for s in SIDES), chunks),
    jnp.arange(1),
  )
  sure, unsure = [0.0, 9.0], [9.0, 0.0]  # of the boundary, the second id
  says = jnp.array([[unsure, sure, unsure, unsure, unsure, sure]])
  out = types.Outputs(says, types.IdentityHead(2), {}, {})
  table = {"boundary": jnp.array([False, True])}
  voice = step.Speaker(lambda view, want: out, batch, tables=table)

  def survey(method):
    say = lambda: method.survey({}, voice, {"teacher": voice}, batch)  # noqa: E731
    return jit(say)()

  found = survey(methods.ALM())
  # Position 1 says what follows target 0; nothing follows a document's last.
  assert found["groups"].tolist() == [[1, 2, 2, 3, 3, 4]]
  own = -np.log1p(np.exp(9.0)) + np.array([9, 0, 9, 9, 9, 0.0])
  sure = -np.log1p(np.exp(-9.0))
  expected = [own[0] + sure, own[1] + own[2], own[3] + own[4] + sure, own[5]]
  np.testing.assert_allclose(found["teacher"][0, :4], expected, atol=1e-6)
  found = survey(methods.ALM(merge_above=None))
  assert found["groups"].tolist() == [[1, 2, 3, 4, 5, 6]]
