# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses

import jax
import pytest

from jdistill import types
from jdistill.beds.markov import MarkovChain
from jdistill.sampling import generate, speculative
from jdistill.sampling.speculative.tree import Tree

PROMPTS = [[3, 1, 4, 1, 5, 9, 2], [6], [5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4]]
TREE = Tree((0, 0, 0, 1, 1, 2, 4, 4))
CHAIN = MarkovChain(vocab_size=6, order=2, concentration=1.0)


def helped(lm, draft_params, prompts=PROMPTS, **settings):
  arch, params = lm
  settings = {"temperature": 0, "max_new_tokens": 20} | settings
  draft = settings.pop("draft", speculative.ModelDraft(arch))
  return speculative.generate(
    arch, draft, params, draft_params, prompts, **settings
  )


def alone(lm, prompts=PROMPTS, **settings):
  settings = {"temperature": 0, "max_new_tokens": 20} | settings
  return generate(*lm, prompts, **settings)


def assert_same(texts, others):
  assert [t.tolist() for t in texts] == [t.tolist() for t in others]


@pytest.mark.slow
def test_an_end_inside_a_block_ends_the_row(pair):
  model, near = pair
  settings = {"temperature": 1.0, "key": jax.random.key(3)}
  free = helped(model, near, tree=TREE, **settings).texts
  ends = [int(free[0][3]), int(free[2][6])]
  settings["eos_id"] = ends
  found = helped(model, near, tree=TREE, **settings)
  # Noise belongs to a place, so that the texts are the same up to there.
  for text, whole in zip(found.texts, free, strict=True):
    stops = [i for i, token in enumerate(whole.tolist()) if token in ends]
    expected = whole[: stops[0] + 1] if stops else whole
    assert text.tolist() == expected.tolist()
  assert len({len(text) for text in found.texts}) > 1
  assert found.counts.tokens == sum(map(len, found.texts))


@pytest.mark.slow
def test_streamed_equals_returned(pair):
  lm, near = pair
  settings = {"temperature": 1.3, "key": jax.random.key(5), "eos_id": 4}
  seen = []
  found = helped(lm, near, on_token=lambda *pair: seen.append(pair), **settings)
  returned = helped(lm, near, **settings)
  assert_same(found.texts, returned.texts)
  assert found.counts == returned.counts
  for row, text in enumerate(found.texts):
    assert [token for at, token in seen if at == row] == text.tolist()
  assert [row for row, _ in seen[:3]] == [0, 1, 2]


class Letters:
  """A tokenizer whose tokens are letters."""

  def decode(self, ids, skip_special_tokens):
    assert skip_special_tokens
    return "".join(chr(97 + i) for i in ids)


def test_stop_strings_cut_rows_and_hold_back_what_is_shown(pair):
  lm, near = pair
  settings = {"temperature": 1.0, "key": jax.random.key(3), "draft_tokens": 3}
  free = helped(lm, near, **settings)
  texts = [Letters().decode(t.tolist(), True) for t in free.texts]
  stop = [texts[0][5:8], texts[1][9:11]]
  shown = [""] * 3

  def show(row, text):
    shown[row] += text

  found = helped(
    lm, near, stop=stop, tokenizer=Letters(), on_text=show, **settings
  )
  for row, text in enumerate(texts):
    cuts = [text.index(one) for one in stop if one in text]
    expected = text[: min(cuts, default=len(text))]
    assert Letters().decode(found.texts[row].tolist(), True) == expected
    assert shown[row] == expected
  assert len(found.texts[0]) <= 5
  assert found.counts.passes < free.counts.passes


def test_models_without_a_cache_guess_in_chains():
  params = CHAIN.init(jax.random.key(0))
  other = dataclasses.replace(CHAIN, noise=0.3).init(jax.random.key(0))
  prompts = [[3, 1], [0], [5, 3, 5]]
  expected = generate(CHAIN, params, prompts, max_new_tokens=9, temperature=0)
  draft = speculative.ModelDraft(CHAIN)
  settings = {"max_new_tokens": 9, "temperature": 0}
  found = speculative.generate(
    CHAIN, draft, params, other, prompts, draft_tokens=3, **settings
  )
  assert_same(found.texts, expected)
  with pytest.raises(types.UserError, match="target has no cache"):
    speculative.generate(
      CHAIN, draft, params, other, prompts, tree=TREE, **settings
    )


@pytest.mark.parametrize("size", [7, 40])
@pytest.mark.slow
def test_vocabularies_may_be_padded_differently(size, pair):
  """Ids that one model lacks are never guessed, and may be written."""
  model, _ = pair
  draft = dataclasses.replace(model[0], size=size)
  params = draft.init(jax.random.key(1))
  common = min(size, 23)
  like = model[1]["log_probs"][:common, :common]
  params["log_probs"] = params["log_probs"].at[:common, :common].set(like)
  settings = {"draft": speculative.ModelDraft(draft)}
  found = helped(model, params, **settings)
  assert_same(found.texts, alone(model))
  settings |= {"temperature": 3.0, "key": jax.random.key(0)}
  found = helped(model, params, **settings)
  assert 7 < max(text.max() for text in found.texts) < 23
  assert sum(found.counts.accepted) > 0


def test_one_compilation_for_any_temperature_and_draft(pair):
  traces = []
  (arch, params), near = pair

  class Counted(type(arch)):
    def bind(self, params):
      traces.append(1)
      return super().bind(params)

  arch = Counted(arch.size)
  settings = {"max_new_tokens": 4, "draft_tokens": 2}
  settings["key"] = jax.random.key(0)
  helped((arch, near), near, temperature=0.7, **settings)
  once = len(traces)
  helped((arch, params), near, [[1, 2]] * 3, temperature=0.9, **settings)
  assert len(traces) == once


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"prompts": [[1], []]}, "prompt 1 has no tokens"),
    ({"draft_tokens": 0}, "draft_tokens=0"),
    ({"temperature": 1.0}, "needs key="),
    ({"lenience": 0.5}, "at temperature=0 nothing is drawn"),
    ({"lenience": 1.5}, "lenience=1.5"),
    ({"row_ids": [1, 2]}, "row_ids"),
    ({"tree": Tree.branching((24,))}, "24 guesses under one token"),
    ({"stop": ["x"]}, "need tokenizer="),
  ],
)
def test_faults_are_named(change, message, pair):
  lm, _ = pair
  settings = {"prompts": [[1]], "max_new_tokens": 2} | change
  with pytest.raises(types.UserError, match=message):
    helped(lm, lm[1], **settings)
