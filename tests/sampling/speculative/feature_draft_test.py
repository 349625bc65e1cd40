# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Drafts that go by features: exact, the same in blocks as in whole texts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import types
from jdistill.models.attention import Branches
from jdistill.sampling import generate, speculative
from jdistill.sampling.speculative.drafts import News, Nodes
from jdistill.sampling.speculative.tree import BestTree, Tree

W = 16
PROMPTS = [[3, 1, 4, 1, 5, 9, 2], [6], [5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4]]
SHAPES = {
  "chain": Tree.chain(3),
  "tree": Tree((0, 0, 0, 1, 1, 2, 4, 4)),
  "best": BestTree(guesses=7, width=3, depth=3),
}


@pytest.fixture(scope="module")
def made(lm, feature_draft):
  """A draft and its parameters."""
  return feature_draft(*lm)


def text(tokens, begin: int = 0, width: int | None = None) -> types.Tokens:
  """A text of one row from a position on, with room for `width` tokens."""
  count = len(tokens)
  width = width or count
  places = np.arange(width)[None]
  ids = np.pad(np.array(tokens), (0, width - count))[None]
  there = (places < count).astype(np.int32)
  made = types.Tokens(ids, ids, there.astype(np.float32), begin + places, there)
  return jax.tree.map(
    lambda x: jnp.asarray(x, jnp.int32 if x.dtype == int else x.dtype), made
  )


class Whole:
  """What target and draft say of whole texts, read from their begin."""

  def __init__(self, lm, made):
    arch, target = lm
    draft, params = made

    @jax.jit
    def say(view, guesses, given):
      heard = arch.bind(target)(view, want=("embed",))
      hidden = jnp.where(given[None, :, None], guesses[None], heard.hidden)
      told = dataclasses.replace(heard, hidden=hidden)
      own = draft.architecture.bind(params["own"])
      said = own(view, want=("guess",), heard=told)
      return said.logits[0], said.features["guess"][0], heard.hidden[0]

    self.say, self.width = say, arch.width

  def draft(self, tokens, guesses=()):
    """Logits [V] of what follows and the guess [D] of the last feature; the
    features of the last tokens but one are `guesses`."""
    given = np.zeros(W, bool)
    told = np.zeros((W, self.width), np.float32)
    end = len(tokens) - 1
    given[end - len(guesses) : end] = True
    for at, guess in enumerate(guesses, end - len(guesses)):
      told[at] = guess
    logits, features, _ = self.say(text(tokens, width=W), told, given)
    return logits[end], features[end]

  def news(self, tokens, begin: int) -> News:
    """The tokens from a place on."""
    none = np.zeros((W, self.width), np.float32)
    hidden = self.say(text(tokens, width=W), none, np.zeros(W, bool))[2]
    hidden = jnp.pad(hidden[:-1], ((1, 0), (0, 0)))
    count = len(tokens) - begin
    return News(
      text(tokens[begin:], begin),
      hidden[None, begin : len(tokens)],
      jnp.array([count - 1]),
      jnp.array([begin - 1]),
    )


def close(found, expected):
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_blocks_say_what_the_whole_text_says(lm, made):
  """With the target's features of all that is certain, and its own below."""
  draft, params = made
  whole = Whole(lm, made)
  settle = jax.jit(draft.settle)
  extend = jax.jit(lambda p, k, n: draft.extend(p, k, n._replace(chain=False)))
  tokens = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
  like = jax.ShapeDtypeStruct((1, 1, whole.width), jnp.float32)
  kept = draft.empty(params, 1, 20, like)
  kept = draft.read(params, kept, whole.news(tokens[:4], 0))
  for begin, end in ((4, 5), (5, 8), (8, 11)):
    new = whole.news(tokens[:end], begin)
    kept, logits = settle(params, kept, new, None)
    expected, guess = whole.draft(tokens[:end])
    close(logits[0], expected)
  # A tree below the root: 7 and 8, then 1 under 7, and 1 and 2 under 8.
  depths = jnp.array([[0, 1, 1, 2, 2, 2]])
  seen = np.eye(6, dtype=bool)
  seen[:, 0] = seen[3, 1] = seen[4, 2] = seen[5, 2] = True
  paths = {1: [7], 2: [8], 3: [7, 1], 4: [8, 1], 5: [8, 2]}
  parents = {1: 0, 2: 0, 3: 1, 4: 2, 5: 2}
  found = {0: [guess]}  # the guesses that lead to each node
  for level in ((1, 2), (3, 4, 5)):
    numbers = np.array([[*level, -1][:3]])
    nodes = Nodes(
      jnp.array([[paths.get(n, [0])[-1] for n in numbers[0]]]),
      jnp.array([[parents.get(n, 0) for n in numbers[0]]]),
      Branches(
        jnp.asarray(numbers),
        jnp.array([len(tokens) - 1]),
        depths,
        jnp.asarray(seen[numbers]),
      ),
      chain=False,
    )
    kept, logits = extend(params, kept, nodes)
    for column, n in enumerate(level):
      above = found[parents[n]]
      expected, guess = whole.draft(tokens + paths[n], above)
      close(logits[0, column], expected)
      found[n] = [*above, guess]
  # They are forgotten once the text goes on elsewhere.
  kept, logits = settle(params, kept, whole.news([*tokens, 8], 11), None)
  close(logits[0], whole.draft([*tokens, 8])[0])


@pytest.mark.parametrize(
  "shape",
  [
    pytest.param(
      shape, id=name, marks=() if name == "tree" else pytest.mark.slow
    )
    for name, shape in SHAPES.items()
  ],
)
def test_greedy_text_is_the_targets_own(shape, lm, made):
  arch, target = lm
  draft, params = made
  found = speculative.generate(
    arch,
    draft,
    target,
    params,
    PROMPTS,
    tree=shape,
    temperature=0,
    max_new_tokens=20,
  )
  expected = generate(arch, target, PROMPTS, temperature=0, max_new_tokens=20)
  assert [t.tolist() for t in found.texts] == [t.tolist() for t in expected]
  assert 0 < sum(found.counts.accepted) < sum(found.counts.asked)


def test_its_parameters_share_what_the_target_has(lm, made):
  _, target = lm
  draft, params = made
  assert params["ends"].table is target["embedding"]["weight"]
  assert params["ends"].weight is target["embedding"]["weight"]
  shape = dataclasses.replace(draft.architecture, vocab_size=9)
  other = speculative.FeatureDraft(shape)
  with pytest.raises(types.UserError, match="vocab_size 9 cannot go by"):
    other.params({}, *lm)
