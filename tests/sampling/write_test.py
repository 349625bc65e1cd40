# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses
import functools

import jax
import numpy as np
import pytest

from jdistill import sharding, types
from jdistill.models.decoder import DecoderConfig
from jdistill.models.rope import Rope
from jdistill.models.spec import Mixture, Segment
from jdistill.sampling import Blend, Interleaved, Prompts, Sampling, memory
from jdistill.sampling import write as write_tokens

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
KINDS = {
  "windows": LM,
  "biases, own head": dataclasses.replace(
    LM, segments=(Segment.uniform(1),), qkv_bias=True, tied=False
  ),
  "ropes, caps, norms": dataclasses.replace(
    LM,
    ropes=(Rope(theta=100.0), Rope(theta=7.0, scaling="linear", factor=2.0)),
    segments=(
      Segment(windows=(3,), ropes=(1,)),
      Segment(windows=(0,), ropes=(0,)),
    ),
    attention_soft_cap=2.0,
    final_soft_cap=3.0,
    qk_norm=True,
    norm_plus_one=True,
    post_norms=True,
    embed_scale=4.0,
  ),
  "experts": dataclasses.replace(
    LM,
    segments=(Segment.uniform(1, sparse=True),),
    experts=Mixture(4, 2, 12),
  ),
}
PLAIN = Sampling(max_new_tokens=9, temperature=1.2)
TEXTS = [
  [3, 1, 4, 1, 5, 9, 2],
  [6],
  [5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4],
  [2, 7],
  [1, 8, 2, 8],
  [22, 0, 21],
  [11, 12, 13, 14, 15, 16, 17, 18],
  [4, 4, 4, 4, 4],
]


@functools.cache
def drawn(arch, seed=0):
  """Large weights, so that laws are far from uniform and the text matters."""
  params = jax.jit(arch.init)(jax.random.key(seed))
  params = jax.tree.map(lambda p: 3 * p if p.ndim > 2 else p, params)
  for name in {"embedding", "head"} & set(params):
    params[name]["weight"] *= 30
  return params


def side_by_side(texts, width=16):
  tokens = np.full((len(texts), width), 19, np.int32)  # read by nobody
  for row, text in zip(tokens, texts, strict=True):
    row[: len(text)] = text
  return Prompts(tokens, np.array([len(text) for text in texts], np.int32))


def keys_of(ids, seed=0):
  fold = functools.partial(jax.random.fold_in, jax.random.key(seed))
  return jax.vmap(fold)(np.asarray(ids, np.uint32))


@functools.cache
def writer(source, sampling, ends):
  return jax.jit(
    functools.partial(write_tokens, source, sampling=sampling, ends=ends)
  )


def write(source, params, texts, sampling, *, ends=(), ids=None, width=16):
  if isinstance(source, DecoderConfig):
    source = memory.of(source)
  fn = writer(source, sampling, ends)
  keys = keys_of(range(len(texts)) if ids is None else ids)
  return jax.device_get(fn(params, side_by_side(texts, width), keys))


@functools.cache
def reader(arch):
  return jax.jit(lambda p, v: arch.bind(p)(v).logits)


def forced(arch, params, texts, written):
  """Logits [B, N, V] of the whole texts read at once, where tokens follow."""
  both = [
    [*text, *row[:count].tolist()]
    for text, row, count in zip(
      texts, written.tokens, written.counts, strict=True
    )
  ]
  laid = side_by_side(both, 32)
  places = np.arange(32, dtype=np.int32)[None]
  inside = (places < laid.lengths[:, None]).astype(np.int32)
  view = types.Tokens(
    laid.tokens, laid.tokens, inside * 1.0, places * inside, inside
  )
  logits = reader(arch)(params, view)
  starts = np.array([len(text) - 1 for text in texts])
  at = starts[:, None] + np.arange(written.tokens.shape[1])
  return np.take_along_axis(np.asarray(logits), at[..., None], axis=1)


def log_softmax(x):
  return np.asarray(jax.nn.log_softmax(x, axis=-1))


def chosen(log_probs, written):
  picked = np.take_along_axis(log_probs, written.tokens[..., None], axis=-1)
  steps = np.arange(written.tokens.shape[1])[None]
  return np.where(steps < written.counts[:, None], picked[..., 0], 0.0)


@pytest.mark.parametrize(
  "kind",
  [
    pytest.param(k, marks=() if k == "windows" else pytest.mark.slow)
    for k in KINDS
  ],
)
def test_log_probs_are_those_of_the_whole_text(kind):
  arch = KINDS[kind]
  params = drawn(arch)
  written = write(arch, params, TEXTS, PLAIN, ends=(7,))
  logits = forced(arch, params, TEXTS, written)
  np.testing.assert_allclose(
    written.log_probs, chosen(log_softmax(logits), written), atol=1e-4
  )
  np.testing.assert_allclose(
    written.sampling_log_probs,
    chosen(log_softmax(logits / 1.2), written),
    atol=1e-4,
  )
  assert len(set(written.tokens.ravel().tolist())) > 10
  assert 0 < written.ended.sum() < len(TEXTS)


def test_the_end_counts_and_nothing_comes_after_it():
  params = drawn(LM)
  sampling = Sampling(max_new_tokens=12)
  texts = [*TEXTS[:7], []]  # a row without a prompt gets no text
  free = write(LM, params, texts, sampling)
  assert free.counts.tolist() == [12] * 7 + [0]
  assert not free.ended.any()
  ends = (int(free.tokens[0, 3]), int(free.tokens[2, 1]))
  written = write(LM, params, texts, sampling, ends=ends)
  assert not written.tokens[7].any()
  assert written.counts[7] == written.ended[7] == 0
  for row, whole in enumerate(free.tokens[:7].tolist()):
    places = [i for i, token in enumerate(whole) if token in ends]
    count = places[0] + 1 if places else 12
    assert written.counts[row] == count
    assert written.ended[row] == bool(places)
    np.testing.assert_array_equal(written.tokens[row, :count], whole[:count])
    for name in ("tokens", "log_probs", "sampling_log_probs"):
      assert not getattr(written, name)[row, count:].any()


def test_greedy_takes_the_likeliest_and_is_certain():
  params = drawn(LM)
  sampling = Sampling(max_new_tokens=9, temperature=0.0)
  written = write(LM, params, TEXTS, sampling)
  logits = forced(LM, params, TEXTS, written)
  np.testing.assert_array_equal(written.tokens, logits.argmax(-1))
  assert not written.sampling_log_probs.any()


def test_penalties_count_prompt_and_answer():
  params = drawn(LM)
  sampling = Sampling(
    max_new_tokens=9, temperature=0.7, repetition_penalty=1.8, top_k=6
  )
  written = write(LM, params, TEXTS, sampling)
  logits = forced(LM, params, TEXTS, written)
  for row, text in enumerate(TEXTS):
    for step in range(9):
      scores = logits[row, step].copy()
      seen = list({*text, *written.tokens[row, :step].tolist()})
      old = scores[seen]
      scores[seen] = np.where(old > 0, old / 1.8, old * 1.8)
      scores /= 0.7
      scores[scores < np.sort(scores)[-6]] = -np.inf
      token = written.tokens[row, step]
      assert np.isfinite(scores[token])
      expected = log_softmax(scores)[token]
      assert abs(written.sampling_log_probs[row, step] - expected) < 1e-4
  np.testing.assert_allclose(
    written.log_probs, chosen(log_softmax(logits), written), atol=1e-4
  )


def same_but_close(first, second):
  """Rows are the same up to the first token that was close in either."""
  doubt = (first.close > 0) | (second.close > 0)
  np.testing.assert_array_equal(first.tokens[~doubt], second.tokens[~doubt])
  np.testing.assert_allclose(
    first.log_probs[~doubt], second.log_probs[~doubt], atol=1e-4
  )
  assert doubt.mean() < 0.3


SETTINGS = Sampling(
  max_new_tokens=8,
  temperature=1.1,
  top_k=15,
  top_p=0.95,
  min_p=0.01,
  repetition_penalty=1.1,
)


@pytest.mark.slow
def test_company_and_padding_change_nothing():
  params = drawn(LM)
  together = write(LM, params, TEXTS, SETTINGS)
  order = [5, 2, 0]
  apart = write(
    LM, params, [TEXTS[i] for i in order], SETTINGS, ids=order, width=20
  )
  same_but_close(jax.tree.map(lambda x: x[order], together), apart)
  same = write(LM, params, [TEXTS[0]] * 8, SETTINGS)
  assert len(set(map(tuple, same.tokens.tolist()))) > 4


MESHES = {
  "data": sharding.MeshShape(data=8),
  "fsdp, tensor": sharding.MeshShape(data=2, fsdp=2, tensor=2),
  "experts": sharding.MeshShape(data=2, expert=2, tensor=2),
}


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(m, marks=pytest.mark.slow if m == "experts" else ())
    for m in MESHES
  ],
)
def test_meshes_change_nothing(name):
  arch = KINDS["experts"] if name == "experts" else LM
  params = drawn(arch)
  alone = write(arch, params, TEXTS, SETTINGS)
  mesh = sharding.make_mesh(MESHES[name])
  places = sharding.param_shardings(arch.axes(), arch.shapes(), mesh)
  with jax.set_mesh(mesh):
    spread = jax.device_put(params, places)
    divided = write(arch, spread, TEXTS, SETTINGS)
  same_but_close(alone, divided)


def test_the_cache_is_divided_and_so_is_what_was_written():
  mesh = sharding.make_mesh(MESHES["fsdp, tensor"])
  prompts = side_by_side(TEXTS)
  places = sharding.param_shardings(LM.axes(), LM.shapes(), mesh)
  with jax.set_mesh(mesh):
    spread = jax.device_put(drawn(LM), places)
    cache = jax.jit(lambda: LM.init_cache(8, 32))()["segment_0"]["k"]
    assert cache.sharding.shard_shape(cache.shape) == (2, 2, 32, 1, 8)
    written = jax.jit(
      functools.partial(
        write_tokens, memory.of(LM), sampling=Sampling(4), ends=()
      )
    )(spread, prompts, keys_of(range(8)))
  assert written.tokens.sharding.shard_shape((8, 4)) == (2, 4)


def total_variation(tokens, law):
  shares = np.bincount(tokens, minlength=len(law)) / len(tokens)
  return np.abs(shares - law).sum() / 2


def laws(name):
  """A mix, its parameters, and its next-token law after TEXTS[0]."""
  wide = dataclasses.replace(LM, vocab_size=29)
  params = (drawn(LM), drawn(wide, seed=1))
  parts = memory.of(LM), memory.of(wide)
  probs = []
  for arch, own in zip((LM, wide), params, strict=True):
    empty = write(arch, own, TEXTS[:1], Sampling(1))
    logits = forced(arch, own, TEXTS[:1], empty)[0, 0, :23]
    probs.append(np.exp(log_softmax(logits)))
  student, teacher = probs
  if name == "blend":
    return Blend(parts, (0.8, 0.2)), params, 0.8 * student + 0.2 * teacher
  taken = teacher >= np.sort(teacher)[-5]
  law = student * taken + teacher * student[~taken].sum()
  return Interleaved(*parts, top_k=5), params, law


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("blend", "interleaved")
  ],
)
def test_mixes_follow_their_law(name):
  mix, params, law = laws(name)
  rows = 4000
  written = write(mix, params, [TEXTS[0]] * rows, Sampling(1))
  tokens = written.tokens[:, 0]
  np.testing.assert_allclose(
    written.log_probs[:, 0], np.log(law)[tokens], atol=1e-4
  )
  # Its mean is below sqrt(V / rows) / 2, and it hardly varies.
  assert total_variation(tokens, law) < np.sqrt(23 / rows) / 2 + 0.01


def test_mixes_go_on_with_what_each_has_kept():
  """A model blended with itself, and interleaved with that, writes its own."""
  own, params = memory.of(LM), drawn(LM)
  blend = Blend((own, own), (0.3, 0.7))
  mix = Interleaved(own, blend, top_k=23)
  alone = write(LM, params, TEXTS, PLAIN, ends=(7,))
  mixed = write(mix, (params, (params, params)), TEXTS, PLAIN, ends=(7,))
  same_but_close(alone, mixed)


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda m: Blend((m, m), (0.5, 0.6)), "sum to 1"),
    (lambda m: Blend((m, m), (1.0,)), "for 2 models"),
    (lambda m: Blend((m, m), (1.5, -0.5)), "none negative"),
    (lambda m: Interleaved(m, m, top_k=0), "top_k=0"),
  ],
)
def test_faults_of_mixes_are_named(make, message):
  with pytest.raises(types.UserError, match=message):
    make(memory.of(LM))


def test_it_runs_inside_a_larger_program():
  params, prompts = drawn(LM), side_by_side(TEXTS)

  @jax.jit
  def program(params, keys):
    own = memory.of(LM)
    written = write_tokens(own, params, prompts, keys, PLAIN, ends=(7,))
    return written.tokens, written.counts.sum()

  tokens, count = program(params, keys_of(range(8)))
  alone = write(LM, params, TEXTS, PLAIN, ends=(7,))
  np.testing.assert_array_equal(tokens, alone.tokens)
  assert count == alone.counts.sum()
