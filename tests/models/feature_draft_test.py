# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Drafts that go by their target's features."""

import dataclasses
import operator

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import types
from jdistill.models import DecoderConfig, FeatureDraft, Segment, feature_draft
from jdistill.models.spec import LayerSpec

B, T, D, V = 2, 7, 16, 23
SIZES = {
  "width": D,
  "mlp_width": 24,
  "num_heads": 4,
  "num_kv_heads": 2,
  "head_dim": 8,
  "segments": (Segment.uniform(1),),
}
EAGLE = FeatureDraft(**SIZES, vocab_size=V)
FSPAD = dataclasses.replace(EAGLE, sampling=2, unaligned=8)
TARGET = DecoderConfig(**SIZES, vocab_size=V)


def view(segments=None) -> types.Tokens:
  """Rows of one document, or of several one after another."""
  segments = segments or [[1] * T] * B
  ids = np.array(segments, np.int32)
  begins = np.array([row.index(s) for row in segments for s in row])
  positions = np.arange(T)[None] - begins.reshape(ids.shape)
  tokens = np.random.default_rng(1).integers(V, size=(2, *ids.shape))
  found = types.Tokens(*tokens, (ids > 0) * 1.0, positions, ids)
  return jax.tree.map(lambda x: jnp.asarray(x, jnp.asarray(x).dtype), found)


def heard(seed: int = 0, rows: int = B) -> types.Outputs:
  hidden, embed = jax.random.normal(jax.random.key(seed), (2, rows, T, D))
  weight = jax.random.normal(jax.random.key(9), (V, D))
  return types.Outputs(hidden, types.Head(weight), {"embed": embed}, {})


def drawn(shape: FeatureDraft, seed: int = 0):
  """Parameters, of which no bias is zero."""
  params = shape.init(jax.random.key(seed))
  params["fc"]["bias"] += 0.3
  return params


def test_the_layer_is_a_decoders():
  """A decoder that reads what `fc` makes, and is asked for its layer."""
  shape = dataclasses.replace(EAGLE, input_norm=True)
  params, said, rows = drawn(shape), heard(), view([[1] * 4 + [2] * 3] * B)
  found = shape.bind(params)(rows, want=("guess",), heard=said)
  features = np.pad(said.hidden[:, :-1], ((0, 0), (1, 0), (0, 0)))
  features[:, [0, 4]] = 0  # nothing is before a document's first token
  pair = np.concatenate([features, said.features["embed"]], axis=-1)
  fc = jax.tree.map(np.asarray, params["fc"])
  x = pair @ fc["kernel"] + fc["bias"]
  whole = TARGET.init(jax.random.key(5)) | {"segment_0": params["segment_0"]}
  read = dataclasses.replace(rows, tokens=jnp.asarray(x))
  layer = TARGET.bind(whole)(read, want=("layers/0/out",))
  chex.assert_trees_all_close(
    found.hidden, layer.features["layers/0/out"], atol=1e-5
  )
  chex.assert_trees_all_equal(found.hidden, found.features["guess"])
  chex.assert_trees_all_equal(found.head, said.head)


def test_without_an_input_norm_attention_reads_what_comes_in():
  """The same where what comes in is of length one already, and else not."""
  normed = dataclasses.replace(EAGLE, input_norm=True, norm_eps=0.0)
  plain = dataclasses.replace(normed, input_norm=False)
  params = drawn(normed)
  kernel = jnp.concatenate([jnp.zeros((D, D)), jnp.eye(D)])
  params["fc"] = {"kernel": kernel, "bias": jnp.zeros(D)}
  bare = {**params["segment_0"]}
  del bare["attention_norm"]

  def both(said):
    one = normed.bind(params)(view(), heard=said).hidden
    other = plain.bind({**params, "segment_0": bare})(view(), heard=said).hidden
    return np.abs(one - other).max()

  said = heard()
  embed = said.features["embed"]
  unit = embed / jnp.sqrt((embed**2).mean(-1, keepdims=True))
  assert both(dataclasses.replace(said, features={"embed": unit})) < 1e-5
  assert both(said) > 1e-2


def test_features_are_sampled_by_the_token():
  shape = dataclasses.replace(EAGLE, sampling=3)
  params, said = drawn(shape), heard()
  own = jax.tree.map(np.asarray, params["sampling"])
  f, e = np.asarray(said.hidden), np.asarray(said.features["embed"])
  gate, up = e @ own["gate"]["kernel"], f @ own["up"]["kernel"]
  assert up.shape[-1] == 3 * D
  f = f + (gate / (1 + np.exp(-gate)) * up) @ own["down"]["kernel"]
  plain = {k: v for k, v in params.items() if k != "sampling"}
  args = said.features["embed"], view()
  chex.assert_trees_all_close(
    shape.bind(params).guess(said.hidden, *args).hidden,
    EAGLE.bind(plain).guess(jnp.asarray(f), *args).hidden,
    atol=1e-5,
  )


def test_what_is_unaligned_is_for_the_head_alone():
  shape = dataclasses.replace(EAGLE, unaligned=8)
  params, said = drawn(shape), heard()

  @jax.jit
  def parts(params):
    found = shape.bind(params)(view(), want=("guess",), heard=said)
    return found.features["guess"], found.hidden

  slope = jax.jit(
    jax.grad(lambda p, part: (parts(p)[part] ** 2).sum()), static_argnums=1
  )
  guess, hidden = parts(params)
  assert guess.shape == hidden.shape == (B, T, D)
  # What the features are compared with reaches no read-out; the head's
  # gradient comes by the read-out only, to all that the layers make.
  of_guess, of_head = slope(params, 0), slope(params, 1)
  assert not np.any(of_guess["read_out"]["kernel"])
  assert np.all(np.any(of_head["read_out"]["kernel"] != 0, axis=1))
  assert np.all(of_head["fc"]["bias"] != 0)
  silent = params | {"read_out": {"kernel": jnp.zeros((D + 8, D))}}
  guess, hidden = parts(silent)
  chex.assert_trees_all_equal(guess, hidden)
  of_head = slope(silent, 1)
  assert not np.any(of_head["fc"]["kernel"])


@pytest.mark.slow
def test_documents_do_not_hear_each_other():
  shape, said = FSPAD, heard()
  params = drawn(shape)
  rows = view([[1] * 4 + [2] * 3, [1] * 5 + [0] * 2])
  found = shape.bind(params)(rows, heard=said).hidden
  for row, begin, end in ((0, 0, 4), (0, 4, 7), (1, 0, 5)):
    part = np.s_[row : row + 1, begin:end]
    told = types.Outputs(
      said.hidden[part], said.head, {"embed": said.features["embed"][part]}, {}
    )
    text = jax.tree.map(operator.itemgetter(part), rows)
    alone = shape.bind(params)(text, heard=told).hidden
    chex.assert_trees_all_close(found[part], alone, atol=1e-5)


def test_noise_is_even_and_smaller_in_long_documents():
  shape = dataclasses.replace(EAGLE, noise=0.2)
  rows = view([[1] * 5 + [2] * 2, [1] * 7])
  model = shape.bind(drawn(shape))
  keys = jax.random.split(jax.random.key(0), B)
  noise = np.asarray(model._noise(rows, keys))
  limit = 0.2 * 512 / 2 / np.array([[5] * 5 + [2] * 2, [7] * 7])[..., None]
  share = noise / limit
  assert np.abs(share).max() <= 1
  assert np.abs(share).max() > 0.9
  assert abs(share.mean()) < 0.2
  assert abs((share**2).mean() - 1 / 3) < 0.1
  alone = model._noise(jax.tree.map(lambda x: x[1:], rows), keys[1:])
  chex.assert_trees_all_equal(np.asarray(alone)[0], noise[1])
  said = heard()
  calm = model(rows, heard=said).hidden
  assert np.abs(model(rows, heard=said, keys=keys).hidden - calm).max() > 0.1
  quiet = shape.for_evaluation().bind(drawn(shape))
  chex.assert_trees_all_equal(quiet(rows, heard=said, keys=keys).hidden, calm)


def test_parameters_are_its_own_alone():
  shapes = FSPAD.shapes()
  assert set(shapes) == {"fc", "sampling", "segment_0", "read_out"}
  chex.assert_trees_all_equal_structs(
    shapes, jax.tree.map(lambda s: s, FSPAD.shapes())
  )
  axes = FSPAD.axes()
  leaves, tree = jax.tree.flatten(shapes)
  for leaf, names in zip(leaves, tree.flatten_up_to(axes), strict=True):
    assert len(leaf.shape) == len(names)
  assert "attention_norm" not in shapes["segment_0"]
  assert FSPAD.layers == LayerSpec(**SIZES | {"width": D + 8})


NARROW = types.Outputs(
  jnp.zeros((B, T, 8)), types.Head(jnp.zeros((V, 8))), {}, {}
)


@pytest.mark.parametrize(
  ("change", "said"),
  [
    ({"want": ("layers/0/out",)}, "no feature 'layers/0/out'; it has guess"),
    ({"heard": None}, "says nothing by itself"),
    (
      {"heard": NARROW},
      "width 16 and vocab_size 23 cannot go by a target of width 8",
    ),
  ],
)
def test_what_it_cannot_do_is_refused(change, said):
  model = EAGLE.bind(drawn(EAGLE))
  with pytest.raises(types.UserError, match=said):
    model(view(), **{"heard": heard()} | change)


def test_sizes_are_checked():
  for change in ({"sampling": -1}, {"unaligned": -1}, {"noise": -1.0}):
    with pytest.raises(types.UserError, match=f"{next(iter(change))} is -1"):
      dataclasses.replace(EAGLE, **change)
  with pytest.raises(types.UserError, match="vocab_size is 0"):
    dataclasses.replace(EAGLE, vocab_size=0)
  assert feature_draft.GUESS == "guess"
