# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import types
from jdistill.beds import ChainMixture, MarkovChain

BED = ChainMixture(MarkovChain(vocab_size=5, order=2, concentration=0.5), 3)


def texts(documents) -> np.ndarray:
  return np.array([document.tokens for document in documents])


def test_the_law_weighs_the_chains_by_what_they_make_of_the_text():
  """Against sums over the chains in float64, document by document."""
  tokens = texts(BED.documents(0, 4, length=9))
  tokens[1, 4:] = tokens[2, :5]  # another document begins
  places = np.tile(np.arange(9), (4, 1))
  places[1, 4:] = np.arange(5)
  found = BED.log_probs(jnp.asarray(tokens), jnp.asarray(places))

  def chance(chain, text, token):
    row = chain._context_after(text)
    return chain.table[row, token]

  for row, begin, end in ((0, 0, 9), (1, 0, 4), (1, 4, 9)):
    weights = np.ones(3)
    for at in range(begin, end):
      text = tokens[row, begin:at]
      weights *= [chance(c, text, tokens[row, at]) for c in BED.chains]
      text = tokens[row, begin : at + 1]
      said = [[chance(c, text, v) for v in range(5)] for c in BED.chains]
      expected = weights @ np.array(said) / weights.sum()
      np.testing.assert_allclose(np.exp(found[row, at]), expected, rtol=2e-4)


def test_documents_are_of_every_chain():
  documents = texts(BED.documents(1, 300, length=20))
  again = texts(BED.documents(1, 30, length=20))
  np.testing.assert_array_equal(documents[:30], again)
  held = texts(BED.documents(1, 300, "heldout", length=20))
  assert (documents != held).any(axis=1).mean() > 0.99
  places = jnp.tile(jnp.arange(20), (300, 1))
  likelihoods = []
  for chain in BED.chains:
    said = chain.log_probs(jnp.asarray(documents), places)[:, :-1]
    own = np.take_along_axis(np.asarray(said), documents[:, 1:, None], 2)
    likelihoods.append(own.sum((1, 2)))
  counts = np.bincount(np.argmax(likelihoods, axis=0), minlength=3)
  assert counts.min() > 70


@pytest.mark.slow
def test_as_a_model_it_is_the_truth():
  tokens = jnp.asarray(texts(BED.documents(2, 3, length=6)), jnp.int32)
  places = jnp.tile(jnp.arange(6, dtype=jnp.int32), (3, 1))
  ones = jnp.ones_like(tokens)
  view = types.Tokens(tokens, tokens, ones * 1.0, places, ones)
  params = BED.init(jax.random.key(0))
  said = BED.bind(params)(view)
  np.testing.assert_array_equal(said.logits, BED.log_probs(tokens, places))
  assert jax.tree.map(
    len, BED.axes(), is_leaf=lambda x: isinstance(x, tuple)
  ) == {"log_probs": params["log_probs"].ndim}
  with pytest.raises(types.UserError, match="a ChainMixture has no features"):
    BED.bind(params)(view, want=("embed",))
  with pytest.raises(types.UserError, match="num_chains: found 0"):
    dataclasses.replace(BED, num_chains=0)
