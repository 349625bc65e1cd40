# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import types
from jdistill.beds.markov import MarkovChain

CHAIN = MarkovChain(vocab_size=5, order=2, concentration=0.5, seed=3)


def view_of(rows, positions=None):
  tokens = jnp.asarray(rows, jnp.int32)
  if positions is None:
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
  return types.Tokens(
    tokens,
    tokens,
    jnp.ones(tokens.shape),
    jnp.asarray(positions, jnp.int32),
    jnp.ones(tokens.shape, jnp.int32),
  )


def row_of(chain, context):
  """The row of a context, oldest token first, by the definition."""
  context = (chain.vocab_size,) * chain.order + tuple(context)
  digits = context[::-1][: chain.order]
  return sum(d * (chain.vocab_size + 1) ** i for i, d in enumerate(digits))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_teacher_says_the_row_of_its_context(order):
  chain = dataclasses.replace(CHAIN, order=order)
  tokens = [[4, 0, 2, 2, 1, 3], [1, 1, 0, 4, 3, 2]]
  params = chain.init(jax.random.key(0))
  logits = jax.jit(lambda p, v: chain.bind(p)(v).logits)(
    params, view_of(tokens)
  )
  for b, row in enumerate(tokens):
    for t in range(len(row)):
      expected = chain.table[row_of(chain, row[: t + 1])]
      np.testing.assert_allclose(jnp.exp(logits[b, t]), expected, rtol=1e-5)


def test_contexts_stop_at_the_start_of_a_document():
  packed = view_of([[4, 0, 2, 1, 3]], positions=[[0, 1, 2, 0, 1]])
  log_probs = CHAIN.log_probs(packed.tokens, packed.positions)
  alone = view_of([[1, 3]])
  np.testing.assert_array_equal(
    log_probs[:, 3:], CHAIN.log_probs(alone.tokens, alone.positions)
  )


def test_rows_are_distributions_with_the_floor():
  table = CHAIN.table
  assert table.shape == (36, 5)
  np.testing.assert_allclose(table.sum(1), 1)
  assert table.min() >= CHAIN.floor / 5


def test_concentration_is_that_of_a_dirichlet():
  chain = MarkovChain(
    vocab_size=6, order=3, concentration=0.7, floor=0.0, seed=1
  )
  # Var(p) of a symmetric Dirichlet: (1/V) (1 - 1/V) / (V a + 1).
  expected = (1 / 6) * (5 / 6) / (6 * 0.7 + 1)
  assert chain.table.var() == pytest.approx(expected, rel=0.1)


def test_knobs():
  def entropy(chain):
    return -(chain.table * np.log(chain.table)).sum(1).mean()

  hot, cold = (
    entropy(dataclasses.replace(CHAIN, temperature=t)) for t in (3.0, 0.3)
  )
  assert cold < entropy(CHAIN) < hot
  other = dataclasses.replace(CHAIN, seed=CHAIN.noise_seed)
  mixed = dataclasses.replace(CHAIN, noise=0.25)
  np.testing.assert_allclose(
    mixed.table, 0.75 * CHAIN.table + 0.25 * other.table
  )


def test_samples_follow_the_chain():
  chain = MarkovChain(vocab_size=3, order=1, concentration=1.0, seed=5)
  docs = chain.documents(0, 400, length=50)
  counts = np.zeros((4, 3))
  for doc in docs:
    np.add.at(counts, (np.append(3, doc.tokens[:-1]), doc.tokens), 1)
  totals = counts.sum(1, keepdims=True)
  assert totals.min() >= 300
  error = np.abs(counts / totals - chain.table)
  # Five standard errors of a frequency.
  assert (error < 5 * np.sqrt(chain.table / totals)).all()


def test_samples_depend_on_seed_and_index_only():
  few, many = (CHAIN.documents(7, n, length=9) for n in (3, 20))
  for a, b in zip(few, many, strict=False):
    np.testing.assert_array_equal(a.tokens, b.tokens)
  other = CHAIN.documents(8, 3, length=9)
  assert any(
    (a.tokens != b.tokens).any() for a, b in zip(few, other, strict=True)
  )


def test_parts_are_drawn_apart():
  train, heldout = (
    CHAIN.documents(7, 3, part, length=9) for part in ("train", "heldout")
  )
  assert all(
    (a.tokens != b.tokens).any() for a, b in zip(train, heldout, strict=True)
  )


def test_continuations_condition_on_their_prompts():
  # No room for chance: each context has one successor.
  sure = dataclasses.replace(CHAIN, temperature=1e-4, floor=0.0)
  best = sure.table.argmax(1)
  prompts = [[], [1], [0, 3, 2]]
  for prompt, doc in zip(
    prompts, sure.continuations(prompts, seed=0, length=4), strict=True
  ):
    tokens = list(prompt)
    for _ in range(4):
      tokens.append(int(best[row_of(sure, tokens)]))
    assert doc.tokens.tolist() == tokens
    assert doc.prompt.tolist() == prompt
  with pytest.raises(types.UserError, match="found token 5"):
    sure.continuations([[5]], seed=0, length=1)


def test_golden_kl_is_exact():
  view = view_of([[4, 0, 2, 2], [1, 1, 0, 4]])
  logits = jax.random.normal(jax.random.key(0), (2, 4, 7))
  kl = CHAIN.golden_kl(logits, view.tokens, view.positions)
  wide = np.asarray(logits, np.float64)
  model = np.exp(wide) / np.exp(wide).sum(-1, keepdims=True)
  for b in range(2):
    for t in range(4):
      truth = CHAIN.table[row_of(CHAIN, np.asarray(view.tokens)[b, : t + 1])]
      expected = (truth * np.log(truth / model[b, t, :5])).sum()
      assert kl[b, t] == pytest.approx(expected, rel=1e-4)
  with pytest.raises(types.UserError, match="logits over 4 ids"):
    CHAIN.golden_kl(logits[..., :4], view.tokens, view.positions)


def test_golden_kl_of_teachers_grows_with_noise():
  docs = CHAIN.documents(0, 16, length=12)
  view = view_of(np.stack([doc.tokens for doc in docs]))

  def distance(noise):
    teacher = dataclasses.replace(CHAIN, noise=noise)
    said = teacher.bind(teacher.init(jax.random.key(0)))(view).logits
    return float(CHAIN.golden_kl(said, view.tokens, view.positions).mean())

  distances = [distance(noise) for noise in (0.0, 0.1, 0.4, 1.0)]
  assert distances[0] == pytest.approx(0, abs=1e-6)
  assert distances == sorted(distances)
  assert distances[-1] > 0.1


def test_without_a_floor_nothing_becomes_nan():
  chain = dataclasses.replace(CHAIN, concentration=1e-3, floor=0.0)
  assert (chain.table == 0).any()
  view = view_of([[0, 1, 2, 3]])
  logits = jnp.zeros((1, 4, 5))
  kl, grad = jax.value_and_grad(
    lambda x: chain.golden_kl(x, view.tokens, view.positions).sum()
  )(logits)
  assert jnp.isfinite(kl)
  assert jnp.isfinite(grad).all()


@pytest.mark.parametrize(
  ("field", "value"),
  [("order", 0), ("floor", 1.5), ("temperature", 0.0), ("order", 30)],
)
def test_impossible_chains_are_refused(field, value):
  with pytest.raises(types.UserError, match=field):
    MarkovChain(**{field: value})
