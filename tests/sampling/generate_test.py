# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import contextlib
import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import types
from jdistill.beds.markov import MarkovChain
from jdistill.models.decoder import DecoderConfig
from jdistill.models.rope import Rope
from jdistill.models.spec import Mixture, Segment
from jdistill.sampling import Sampling, answers, generate, memory

LM = DecoderConfig(
  vocab_size=23,
  width=16,
  mlp_width=24,
  num_heads=4,
  num_kv_heads=2,
  head_dim=8,
  segments=(Segment(windows=(0, 5), ropes=(0, 0)),),
  ropes=(Rope(theta=100.0),),
)
CHAIN = MarkovChain(vocab_size=6, order=2, concentration=1.0)
PROMPTS = [[3, 1, 4, 1, 5, 9, 2], [6], [5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4]]


class Letters:
  """A tokenizer of 23 letters."""

  def decode(self, ids, skip_special_tokens):
    assert skip_special_tokens
    return "".join(chr(97 + int(i)) for i in ids)


@pytest.fixture(scope="module")
def params():
  # Large weights, so that the likeliest token depends on the text.
  drawn = jax.jit(LM.init)(jax.random.key(0))
  return jax.tree.map(lambda p: 3 * p if p.ndim > 2 else p, drawn)


def one_by_one(arch, params, prompt, count):
  """Greedy continuation, the whole text read again for every token."""

  @jax.jit
  def likeliest(params, tokens, places):
    view = types.Tokens(tokens, tokens, places * 0.0, places, places * 0 + 1)
    return arch.bind(params)(view).logits[0].argmax(axis=-1)

  # What is behind the text cannot be seen from inside it.
  size = len(prompt) + count
  text, places = list(prompt), jnp.arange(size)[None]
  for _ in range(count):
    tokens = np.zeros((1, size), np.int32)
    tokens[0, : len(text)] = text
    text.append(int(likeliest(params, tokens, places)[len(text) - 1]))
  return text[len(prompt) :]


def greedy(arch, params, prompts, **kwargs):
  return generate(arch, params, prompts, temperature=0, **kwargs)


def test_cached_equals_uncached_for_prompts_of_any_length(params):
  texts = greedy(LM, params, PROMPTS, max_new_tokens=9)
  for prompt, text in zip(PROMPTS, texts, strict=True):
    assert text.tolist() == one_by_one(LM, params, prompt, 9)
  assert len({token for text in texts for token in text.tolist()}) > 5


def test_without_a_cache_the_whole_text_is_read():
  assert isinstance(memory.of(CHAIN), memory.WholeText)
  assert isinstance(memory.of(LM), memory.Cached)
  params = CHAIN.init(jax.random.key(0))
  prompts = [[3, 1], [0], [5, 3, 5]]
  for prompt, text in zip(
    prompts, greedy(CHAIN, params, prompts, max_new_tokens=6), strict=True
  ):
    assert text.tolist() == one_by_one(CHAIN, params, prompt, 6)


@pytest.mark.parametrize("ends", ["one", "two"])
def test_an_end_ends_its_row_only(ends, params):
  free = greedy(LM, params, PROMPTS, max_new_tokens=12)
  stops = [int(free[0][3])]
  if ends == "two":
    stops.append(int(free[2][1]))
  eos = stops[0] if ends == "one" else stops
  texts = greedy(LM, params, PROMPTS, max_new_tokens=12, eos_id=eos)
  for whole, text in zip(free, texts, strict=True):
    cut = [i for i, token in enumerate(whole.tolist()) if token in stops]
    expected = whole[: cut[0] + 1] if cut else whole
    np.testing.assert_array_equal(text, expected)
  assert len(texts[0]) <= 4
  assert len({len(text) for text in texts}) > 1


@pytest.mark.parametrize("arch", [LM, CHAIN], ids=["cached", "whole text"])
@pytest.mark.parametrize("temperature", [0, 1.3])
def test_streamed_equals_returned(arch, temperature, params):
  params = params if arch is LM else CHAIN.init(jax.random.key(0))
  prompts = [[3, 1, 4], [2], [5, 3, 5, 1]]
  settings = {
    "max_new_tokens": 8,
    "temperature": temperature,
    "key": jax.random.key(5),
    "eos_id": 4,
  }
  seen = []
  texts = generate(
    arch, params, prompts, on_token=lambda *pair: seen.append(pair), **settings
  )
  for row, (text, other) in enumerate(
    zip(texts, generate(arch, params, prompts, **settings), strict=True)
  ):
    np.testing.assert_array_equal(text, other)
    assert [token for place, token in seen if place == row] == text.tolist()
  # Row by row within a step: the first tokens come before any second one.
  assert [place for place, _ in seen[:3]] == [0, 1, 2]


def test_draws_follow_the_distribution_and_its_temperature():
  params = CHAIN.init(jax.random.key(0))
  row = CHAIN.table[5 + 7 * 2]  # after 2, 5
  for temperature in (1.0, 0.5):
    expected = row ** (1 / temperature)
    expected /= expected.sum()
    texts = generate(
      CHAIN,
      params,
      [[2, 5]] * 3000,
      max_new_tokens=1,
      temperature=temperature,
      key=jax.random.key(1),
    )
    shares = np.bincount([int(t[0]) for t in texts], minlength=6) / 3000
    error = np.abs(shares - expected)
    # Five standard errors of a frequency.
    assert (error <= 5 * np.sqrt(expected * (1 - expected) / 3000)).all()


def test_top_k_draws_among_the_likeliest_only():
  params = CHAIN.init(jax.random.key(0))
  best = np.argsort(-CHAIN.table[5 + 7 * 2])[:2]
  settings = {"max_new_tokens": 1, "temperature": 50.0, "top_k": 2}
  texts = generate(
    CHAIN, params, [[2, 5]] * 200, key=jax.random.key(1), **settings
  )
  assert {int(text[0]) for text in texts} == set(best.tolist())


@pytest.mark.slow
def test_noise_belongs_to_the_row_not_to_its_company(params):
  settings = {"max_new_tokens": 8, "temperature": 1.0, "key": jax.random.key(2)}
  together = generate(LM, params, PROMPTS, **settings)
  company = [list(range(20)), PROMPTS[1]]  # another padding, another place
  alone = generate(LM, params, company, row_ids=[7, 1], **settings)
  np.testing.assert_array_equal(together[1], alone[1])
  same_prompt = generate(LM, params, [PROMPTS[1]] * 2, **settings)
  assert same_prompt[0].tolist() != same_prompt[1].tolist()


def test_one_compilation_for_texts_of_like_sizes(params):
  traces = []

  class Counted(DecoderConfig):
    def bind(self, params):
      traces.append(1)
      return super().bind(params)

  arch = Counted(**{f: getattr(LM, f) for f in LM.__dataclass_fields__})
  greedy(arch, params, [[1, 2], [3]], max_new_tokens=3)
  once = len(traces)
  greedy(arch, params, [[4], [5, 6, 7, 8]], max_new_tokens=3)
  generate_at = {"max_new_tokens": 3, "key": jax.random.key(0)}
  assert len(traces) == once
  generate(arch, params, [[1], [2]], temperature=0.7, **generate_at)
  twice = len(traces)
  generate(arch, params, [[1], [2]], temperature=0.9, **generate_at)
  assert len(traces) == twice


def test_parameters_may_be_sharded(params):
  from jdistill import sharding

  mesh = sharding.make_mesh(sharding.MeshShape(data=2, fsdp=2, tensor=2))
  places = sharding.param_shardings(LM.axes(), LM.shapes(), mesh)
  spread = jax.device_put(params, places)
  chex.assert_trees_all_equal(
    greedy(LM, spread, PROMPTS, max_new_tokens=6),
    greedy(LM, params, PROMPTS, max_new_tokens=6),
  )


@pytest.mark.parametrize(
  "context",
  [pytest.param(m, marks=pytest.mark.slow) for m in (True, False)],
  ids=["mesh set", "mesh not set"],
)
def test_experts_generate_divided_and_whole(context):
  from jdistill import sharding

  arch = dataclasses.replace(
    LM,
    segments=(Segment.uniform(1, sparse=True),),
    experts=Mixture(4, 2, 12),
  )
  params = arch.init(jax.random.key(0))
  params = jax.tree.map(lambda p: 3 * p if p.ndim > 2 else p, params)
  expected = one_by_one(arch, params, PROMPTS[0], 5)
  mesh = sharding.make_mesh(sharding.MeshShape(data=2, tensor=2, expert=2))
  places = sharding.param_shardings(arch.axes(), arch.shapes(), mesh)
  spread = jax.device_put(params, places)
  with jax.set_mesh(mesh) if context else contextlib.nullcontext():
    found = greedy(arch, spread, PROMPTS, max_new_tokens=5)
  assert found[0].tolist() == expected


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"prompts": []}, "no prompts"),
    ({"prompts": [[1], []]}, "prompt 1 has no tokens"),
    ({"prompts": [[1, 23]]}, "the token 23, expected 0 to 22"),
    ({"prompts": [[-1]]}, "the token -1"),
    ({"max_new_tokens": 0}, "max_new_tokens=0"),
    ({"temperature": -1.0}, "temperature=-1"),
    ({"temperature": 1.0}, "needs key="),
    ({"top_k": 24}, "top_k=24, expected 1 to 23"),
    ({"row_ids": [1, 2]}, "row_ids"),
    ({"top_p": 0.0}, "top_p=0.0"),
    ({"stop": ["x"]}, "need tokenizer="),
    ({"stop": ["x", ""], "tokenizer": Letters()}, "empty text"),
  ],
)
def test_faults_are_named(change, message, params):
  settings = {"prompts": [[1]], "max_new_tokens": 1, "temperature": 0}
  settings |= change
  with pytest.raises(types.UserError, match=message):
    generate(LM, params, settings.pop("prompts"), **settings)


def test_stop_strings_cut_rows_apart(params):
  free = greedy(LM, params, PROMPTS, max_new_tokens=20)
  texts = [Letters().decode(text, skip_special_tokens=True) for text in free]
  stops = (texts[0][3:5], texts[2][17:19])
  cut = greedy(
    LM, params, PROMPTS, max_new_tokens=20, stop=stops, tokenizer=Letters()
  )
  for text, tokens, whole in zip(texts, cut, free, strict=True):
    found = [text.index(stop) for stop in stops if stop in text]
    end = min(found, default=len(text))
    said = Letters().decode(tokens, skip_special_tokens=True)
    assert said == text[:end]
    np.testing.assert_array_equal(tokens, whole[: len(tokens)])
  assert len(cut[0]) <= 3


@pytest.mark.parametrize("count", [1, 3, 17])
def test_a_stop_string_that_never_comes_changes_nothing(params, count):
  free = greedy(LM, params, PROMPTS, max_new_tokens=count)
  watched = greedy(
    LM,
    params,
    PROMPTS,
    max_new_tokens=count,
    stop=["never"],
    tokenizer=Letters(),
  )
  for found, expected in zip(watched, free, strict=True):
    np.testing.assert_array_equal(found, expected)


def test_answers_say_how_they_ended_and_how_likely_they_were(params):
  free = greedy(LM, params, PROMPTS, max_new_tokens=12)
  stop = Letters().decode(free[0][2:4], skip_special_tokens=True)
  pieces = ["", "", ""]

  def show(row, piece):
    pieces[row] += piece

  found = answers(
    LM,
    params,
    PROMPTS,
    Sampling(12, temperature=0.0),
    ends=[int(free[2][1])],
    stop=[stop],
    tokenizer=Letters(),
    on_text=show,
  )
  assert found[0].finish == "stop"
  assert found[2].finish == "end"
  for answer, piece in zip(found, pieces, strict=True):
    assert piece == answer.text
    assert answer.log_probs.shape == answer.tokens.shape
  tokens = jnp.asarray([PROMPTS[2]])
  places = jnp.arange(tokens.shape[1])[None]
  view = types.Tokens(tokens, tokens, places * 0.0, places, places * 0 + 1)
  logits = jax.jit(lambda p: LM.bind(p)(view).logits[0, -1])(params)
  expected = jax.nn.log_softmax(logits)[found[2].tokens[0]]
  assert abs(found[2].log_probs[0] - expected) < 1e-4
