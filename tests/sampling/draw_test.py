# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill.sampling import Sampling, draw

ROWS = 20_000
VOCAB = 40

SETTINGS = {
  "plain": Sampling(),
  "cool": Sampling(temperature=0.6),
  "hot": Sampling(temperature=1.7),
  "top k": Sampling(top_k=7),
  "top p": Sampling(top_p=0.8),
  "min p": Sampling(min_p=0.05),
  "penalty": Sampling(repetition_penalty=1.6),
  "mild penalty": Sampling(repetition_penalty=0.8, temperature=0.9),
  "all": Sampling(
    temperature=1.4, top_k=20, top_p=0.9, min_p=0.02, repetition_penalty=1.2
  ),
}


def logits_and_seen(seed=0, rows=1, size=VOCAB):
  rng = np.random.default_rng(seed)
  logits = rng.normal(size=(rows, size)).astype(np.float32) * 2.5
  return logits, rng.random((rows, size)) < 0.3


def reference(logits, seen, sampling):
  """The law in float64, token by token, sorted; [V]."""
  scores = logits.astype(np.float64)
  penalty = sampling.repetition_penalty
  for token in np.flatnonzero(seen):
    old = scores[token]
    scores[token] = old / penalty if old > 0 else old * penalty
  scores = scores / sampling.temperature
  order = np.argsort(-scores)
  kept = order if sampling.top_k is None else order[: sampling.top_k]
  probs = np.exp(scores - scores.max())
  if sampling.top_p is not None:
    share = probs[kept] / probs[kept].sum()
    before = np.cumsum(share) - share
    kept = kept[before < sampling.top_p]
  if sampling.min_p is not None:
    kept = kept[probs[kept] >= sampling.min_p * probs[order[0]]]
  law = np.zeros_like(probs)
  law[kept] = probs[kept]
  return law / law.sum()


def law(logits, seen, sampling):
  numbers = sampling.numbers()
  scores = jax.jit(draw.law, static_argnums=2)(
    logits, seen, sampling.top_k, numbers
  )
  return np.asarray(jax.nn.softmax(scores, axis=-1))


@pytest.mark.parametrize("name", SETTINGS)
def test_laws_are_those_of_the_definition(name):
  sampling = SETTINGS[name]
  logits, seen = logits_and_seen(rows=50)
  found = law(logits, seen, sampling)
  expected = np.stack(
    [reference(*pair, sampling) for pair in zip(logits, seen, strict=True)]
  )
  np.testing.assert_array_equal(found > 0, expected > 0)
  np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", SETTINGS)
def test_draws_follow_the_law(name):
  """Chi-square over the tokens that are expected five times or more."""
  from scipy import stats

  sampling = SETTINGS[name]
  logits, seen = logits_and_seen()
  expected = ROWS * reference(logits[0], seen[0], sampling)
  keys = jax.random.split(jax.random.key(3), ROWS)
  picked = jax.jit(functools.partial(draw.pick, top_k=sampling.top_k))(
    jnp.asarray(np.repeat(logits, ROWS, 0)),
    keys,
    jnp.full(ROWS, 9),
    jnp.asarray(np.repeat(seen, ROWS, 0)),
    numbers=sampling.numbers(),
  )
  counts = np.bincount(np.asarray(picked.tokens), minlength=VOCAB)
  assert not counts[expected == 0].any()
  often = expected >= 5
  rest = ~often & (expected > 0)
  observed = [*counts[often], counts[rest].sum()]
  wanted = [*expected[often], expected[rest].sum()]
  if not rest.any() or wanted[-1] < 5:
    observed, wanted = observed[:-1], wanted[:-1]
    observed = np.array(observed) * (sum(wanted) / sum(observed))
  assert stats.chisquare(observed, wanted).pvalue > 1e-4
  np.testing.assert_allclose(
    np.asarray(picked.sampling_log_probs),
    np.log(expected[np.asarray(picked.tokens)] / ROWS),
    atol=1e-5,
  )


def test_equals_stay_together():
  logits = np.log(np.array([[4, 2, 2, 2, 1, 1]], np.float32))
  seen = np.zeros_like(logits, bool)
  kept = {
    "top_k": law(logits, seen, Sampling(top_k=2)) > 0,
    "top_p": law(logits, seen, Sampling(top_p=0.5)) > 0,
    "all of them": law(logits, seen, Sampling(top_p=1.0, min_p=0.0)) > 0,
  }
  assert kept["top_k"].tolist() == [[True] * 4 + [False] * 2]
  assert kept["top_p"].tolist() == [[True] * 4 + [False] * 2]
  assert kept["all of them"].all()


def test_the_likeliest_token_is_always_kept():
  logits, seen = logits_and_seen(rows=200)
  tiny = law(logits, seen, Sampling(top_p=1e-6))
  np.testing.assert_array_equal((tiny > 0).sum(axis=1), 1)
  np.testing.assert_array_equal(tiny.argmax(1), logits.argmax(1))


def test_nuclei_of_large_vocabularies_are_exact():
  logits, _ = logits_and_seen(rows=8, size=50_000)
  probs = np.asarray(jax.nn.softmax(logits * 1.5, axis=-1))
  bound = np.asarray(draw.nucleus(jnp.asarray(probs), 0.9))
  for row, least in zip(probs.astype(np.float64), bound[:, 0], strict=True):
    # At the bound the mass is there, and without its last token it is not.
    assert row[row >= least].sum() >= 0.9 - 1e-5
    assert row[row > least].sum() < 0.9 + 1e-5
    assert least in row


def test_what_is_close_is_said():
  keys = jax.random.split(jax.random.key(0), 3)
  logits = np.zeros((3, 5), np.float32)
  logits[0, 2], logits[0, 4] = 1.0, 1.0 - 5e-5
  logits[1, 2], logits[1, 4] = 1.0, 1.0 - 5e-4
  logits[2, 2:] = 1.0
  places = jnp.zeros(3, int)
  picked = draw.pick(jnp.asarray(logits), keys, places, None, None, {})
  assert picked.tokens.tolist() == [2, 2, 2]
  assert picked.close.tolist() == [True, False, True]


def test_noise_depends_on_key_and_place_alone():
  keys = jax.random.split(jax.random.key(0), 4)
  places = jnp.array([3, 4, 3, 9])
  whole = draw.noise(keys, places, 11)
  some = draw.noise(keys[2:3], places[2:3], 11)
  np.testing.assert_array_equal(whole[2:3], some)
  other = draw.noise(keys, places + 1, 11)
  assert (np.asarray(whole) != np.asarray(other)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_laws_are_those_of_transformers(name):
  torch = pytest.importorskip("torch")
  from transformers.generation import logits_process as hf

  sampling = SETTINGS[name]
  logits, _ = logits_and_seen(rows=30, size=300)
  rng = np.random.default_rng(5)
  ids = rng.integers(0, 300, (30, 40))
  seen = np.zeros(logits.shape, bool)
  np.put_along_axis(seen, ids, True, axis=1)
  scores = torch.tensor(logits)
  steps = [hf.TemperatureLogitsWarper(sampling.temperature)]
  if sampling.repetition_penalty != 1:
    steps.insert(
      0, hf.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)
    )
  if sampling.top_k is not None:
    steps.append(hf.TopKLogitsWarper(sampling.top_k))
  if sampling.top_p is not None:
    steps.append(hf.TopPLogitsWarper(sampling.top_p))
  if sampling.min_p is not None:
    steps.append(hf.MinPLogitsWarper(sampling.min_p))
  for step in steps:
    scores = step(torch.tensor(ids), scores)
  expected = torch.softmax(scores, -1).numpy()
  found = law(logits, seen, sampling)
  np.testing.assert_array_equal(found > 0, expected > 0)
  np.testing.assert_allclose(found, expected, atol=1e-6)
