# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What is written follows the target's distribution, whatever the draft."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from scipy import stats

from jdistill import types
from jdistill.sampling import speculative
from jdistill.sampling.speculative import verify
from jdistill.sampling.speculative.tree import BestTree, Tree

ROWS = 4000
SHAPES = {
  "chain of 1": Tree.chain(1),
  "chain of 3": Tree.chain(3),
  "fan of 2, then 3": Tree.branching((2, 3)),
  "uneven tree": Tree((0, 0, 0, 1, 1, 2, 4)),
  "best 5": BestTree(guesses=5, width=3, depth=2),
}
DRAFTS = ("same", "good", "bad", "disjoint")
CASES = [
  ("chain of 3", 0.8, 2),
  ("fan of 2, then 3", 1.0, None),
  *(
    pytest.param(*case, marks=pytest.mark.slow)
    for case in (
      *((shape, heat, None) for shape in SHAPES for heat in (1.0, 0.6)),
      ("fan of 2, then 3", 0.8, 2),
    )
    if case != ("fan of 2, then 3", 1.0, None)
  ),
]


def tempered(table, temperature, top_k):
  probs = table ** (1 / temperature)
  if top_k is not None:
    least = np.sort(probs, axis=-1)[..., -top_k, None]
    probs = np.where(probs >= least, probs, 0)
  return probs / probs.sum(-1, keepdims=True)


def p_value(texts, expected):
  """Of the joint frequencies of the first three tokens; `expected` [4, 4, 4]
  is their law."""
  codes = np.array([text[:3] for text in texts]) @ np.array([16, 4, 1])
  found = np.bincount(codes, minlength=64)
  expected = expected.ravel() * len(texts)
  assert not found[expected == 0].any()
  # The test wants five in a cell: what is rarer shares one.
  rare = (expected < 5) & (expected > 0)
  cells = [(found[i], expected[i]) for i in np.flatnonzero(expected >= 5)]
  if expected[rare].sum() >= 5:
    cells.append((found[rare].sum(), expected[rare].sum()))
  seen, wanted = map(np.array, zip(*cells, strict=True))
  # What was left out are a few rows at most.
  return stats.chisquare(seen, wanted * seen.sum() / wanted.sum()).pvalue


def joint(table, after):
  """The law of the next three tokens."""
  return table[after][:, None, None] * table[:, :, None] * table[None, :, :]


def write(bigram, params, draft_params, shape, **settings):
  settings = {"max_new_tokens": 4, "key": jax.random.key(1)} | settings
  return speculative.generate(
    bigram,
    speculative.ModelDraft(bigram),
    params,
    draft_params,
    [[2, 1]] * ROWS,
    tree=shape,
    **settings,
  )


@pytest.mark.parametrize(("shape", "temperature", "top_k"), CASES)
def test_texts_follow_the_target(
  shape, temperature, top_k, bigram, tables, as_params
):
  expected = joint(tempered(tables["target"], temperature, top_k), after=1)
  params = as_params(tables["target"])
  settings = {"temperature": temperature, "top_k": top_k}
  for name in DRAFTS:
    found = write(
      bigram, params, as_params(tables[name]), SHAPES[shape], **settings
    )
    assert p_value(found.texts, expected) > 1e-4, name


def penalised_joint(logits, prompt, penalty, temperature, *, forgets=False):
  """The law of the next three tokens where those of the text are worse; one
  that `forgets` knows the prompt alone."""

  def after(last, seen):
    row = logits[last]
    worse = np.where(row > 0, row / penalty, row * penalty)
    row = np.where(np.isin(np.arange(4), list(seen)), worse, row) / temperature
    probs = np.exp(row - row.max())
    return probs / probs.sum()

  law, start = np.zeros((4, 4, 4)), set(prompt)
  for a, b, c in itertools.product(range(4), repeat=3):
    one = after(prompt[-1], start)[a]
    two = after(a, start if forgets else start | {a})[b]
    law[a, b, c] = one * two * after(b, start if forgets else start | {a, b})[c]
  return law


@pytest.mark.parametrize(
  ("shape", "temperature"),
  [
    ("chain of 3", 0.8),
    pytest.param("fan of 2, then 3", 1.0, marks=pytest.mark.slow),
    pytest.param("uneven tree", 1.0, marks=pytest.mark.slow),
    pytest.param("best 5", 1.0, marks=pytest.mark.slow),
  ],
)
def test_penalised_texts_follow_the_target(
  shape, temperature, bigram, tables, as_params
):
  """Guesses before a guess are part of its text."""

  def raised(table):  # so that some logits are positive
    return {"log_probs": as_params(table)["log_probs"] + 1.5}

  params, penalty = raised(tables["target"]), 2.5
  logits = np.asarray(params["log_probs"], np.float64)
  law = penalised_joint(logits, [2, 1], penalty, temperature)
  wrong = penalised_joint(logits, [2, 1], penalty, temperature, forgets=True)
  for name in DRAFTS:
    found = write(
      bigram,
      params,
      raised(tables[name]),
      SHAPES[shape],
      temperature=temperature,
      repetition_penalty=penalty,
    )
    assert p_value(found.texts, law) > 1e-4, name
    assert p_value(found.texts, wrong) < 1e-6, name


def test_the_test_sees_what_is_not_exact(bigram, tables, as_params):
  expected = joint(tables["target"], after=1)
  params, draft = as_params(tables["target"]), as_params(tables["bad"])
  lenient = write(bigram, params, draft, SHAPES["chain of 3"], lenience=0.5)
  assert p_value(lenient.texts, expected) < 1e-6
  exact = write(bigram, params, draft, SHAPES["chain of 3"])
  assert sum(lenient.counts.accepted) > sum(exact.counts.accepted)


@pytest.mark.parametrize("shape", ["chain of 1", "fan of 2, then 3"])
def test_without_the_residual_it_is_not_exact(
  shape, bigram, tables, as_params, monkeypatch
):
  expected = joint(tables["target"], after=1)
  params, draft = as_params(tables["target"]), as_params(tables["bad"])
  monkeypatch.setattr(verify, "_rest", lambda p, q: p)
  # Another length, as what is compiled already would be taken.
  found = write(bigram, params, draft, SHAPES[shape], max_new_tokens=5)
  assert p_value(found.texts, expected) < 1e-6


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=() if name == "good" else pytest.mark.slow)
    for name in DRAFTS
  ],
)
def test_acceptance_is_one_minus_total_variation(
  name, bigram, tables, as_params
):
  target, draft = tables["target"], tables[name]
  params = as_params(target), as_params(draft)
  counts = write(bigram, *params, SHAPES["chain of 3"]).counts
  for asked, accepted, overlap in zip(
    counts.asked, counts.accepted, counts.overlap, strict=True
  ):
    # Five standard errors of as many coins, at most.
    assert abs(accepted - overlap) <= 5 * np.sqrt(asked / 4)
  # One guess for each text, after a token of known law.
  counts = write(bigram, *params, Tree.chain(1), max_new_tokens=2).counts
  assert counts.asked == (ROWS,)
  overlaps = np.minimum(target, draft).sum(1)
  mean, spread = target[1] @ overlaps, np.sqrt(target[1] @ overlaps**2)
  error = 5 * spread / np.sqrt(ROWS) + 1e-5
  assert abs(counts.overlap[0] / ROWS - mean) <= error
  error = 5 * np.sqrt(mean * (1 - mean) / ROWS) + 1e-5
  assert abs(counts.accepted[0] / ROWS - mean) <= error
  assert name != "same" or counts.accepted == (ROWS,)


def decoder_law(lm, params, prompt, size):
  """The joint law of the next three tokens, read from all texts at once."""
  ends = np.array(list(itertools.product(range(size), repeat=3)), np.int32)
  starts = np.tile(np.array(prompt, np.int32), (len(ends), 1))
  tokens = np.concatenate([starts, ends], axis=1)
  places = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
  ones = np.ones_like(tokens)
  view = types.Tokens(tokens, tokens, ones * 1.0, places, ones)
  logits = jax.jit(lambda p, v: lm.bind(p)(v).logits)(params, view)
  probs = np.asarray(jax.nn.softmax(logits.astype(np.float32)), np.float64)
  first = len(prompt) - 1
  found = np.ones(len(ends))
  for n in range(3):
    found *= probs[np.arange(len(ends)), first + n, ends[:, n]]
  return found.reshape(size, size, size)


@pytest.fixture(scope="module")
def small(lm):
  """A decoder over few tokens: `drawn(seed)` are parameters, `law` is that of
  the three tokens after the prompt."""
  arch = dataclasses.replace(lm[0], vocab_size=4)

  def drawn(seed):
    params = jax.jit(arch.init)(jax.random.key(seed))
    return jax.tree.map(lambda p: 4 * p if p.ndim > 1 else p, params)

  params, prompt = drawn(0), [1, 2, 0, 3, 3]
  return arch, params, drawn, prompt, decoder_law(arch, params, prompt, 4)


@pytest.mark.slow
def test_a_tree_in_a_cache_follows_the_target(small):
  """As above, of a decoder, whose cache the tree is written to."""
  arch, params, drawn, prompt, expected = small
  for draft_params in (params, drawn(5)):
    found = speculative.generate(
      arch,
      speculative.ModelDraft(arch),
      params,
      draft_params,
      [prompt] * ROWS,
      max_new_tokens=4,
      tree=SHAPES["fan of 2, then 3"],
      key=jax.random.key(2),
    )
    assert p_value(found.texts, expected) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["chain of 3", "fan of 2, then 3"])
def test_a_draft_that_goes_by_features_changes_nothing(
  shape, small, feature_draft
):
  arch, params, _, prompt, expected = small
  draft, draft_params = feature_draft(arch, params)
  found = speculative.generate(
    arch,
    draft,
    params,
    draft_params,
    [prompt] * ROWS,
    max_new_tokens=4,
    tree=SHAPES[shape],
    key=jax.random.key(2),
  )
  assert p_value(found.texts, expected) > 1e-4
  assert 0 < sum(found.counts.accepted) < sum(found.counts.asked)
