# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Packing, caches, features and numerics of decoders.

families_test.py compares with other programs; here one way of computing is
compared with another.
"""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import types
from jdistill.models import DecoderConfig, Mixture, Rope, Segment, num_params
from jdistill.models.low_rank import LowRank
from jdistill.types import UserError

PLAIN = DecoderConfig(
  vocab_size=40,
  width=32,
  mlp_width=48,
  num_heads=4,
  num_kv_heads=2,
  head_dim=8,
  segments=(Segment.uniform(3),),
)
# Two segments, windows and ropes that differ between layers, and every switch.
MIXED = dataclasses.replace(
  PLAIN,
  segments=(
    Segment((4, 0, 3), (1, 0, 1)),
    Segment((0, 5), (0, 1)),
  ),
  ropes=(Rope(1000.0, "linear", 2.0), Rope(50.0)),
  activation="gelu_tanh",
  norm_plus_one=True,
  post_norms=True,
  qk_norm=True,
  qkv_bias=True,
  tied=False,
  embed_scale=5.0,
  query_scale=0.4,
  attention_soft_cap=2.0,
  final_soft_cap=3.0,
)
SPARSE = dataclasses.replace(
  PLAIN,
  segments=(Segment.uniform(1), Segment.uniform(2, window=5, sparse=True)),
  experts=Mixture(6, 3, 20),
  qk_norm=True,
)
CONFIGS = {"plain": PLAIN, "mixed": MIXED, "sparse": SPARSE}
each_config = pytest.mark.parametrize("name", CONFIGS)


def params_of(config, seed=0):
  """Parameters away from their initial values, so that all do something."""
  rng = np.random.RandomState(seed)

  def draw(path, leaf):
    values = rng.standard_normal(leaf.shape) * (0.3 if len(path) > 2 else 0.5)
    norm = "norm" in str(path) and not config.norm_plus_one
    return jnp.asarray(values + norm, leaf.dtype)

  return jax.tree_util.tree_map_with_path(draw, config.shapes())


def make_view(ids, positions=None, segments=None):
  ids = jnp.asarray(ids)
  shape = ids.shape[:2]
  if positions is None:
    positions = np.broadcast_to(np.arange(shape[1]), shape)
  if segments is None:
    segments = np.ones(shape)
  return types.Tokens(
    tokens=ids,
    targets=jnp.zeros(shape, jnp.int32),
    mask=jnp.ones(shape, jnp.float32),
    positions=jnp.asarray(positions, jnp.int32),
    segment_ids=jnp.asarray(segments, jnp.int32),
  )


def random_ids(shape, seed=0):
  return np.random.RandomState(seed).randint(0, 40, shape).astype(np.int32)


@functools.cache
def runner(config, want=()):
  """A jitted forward pass, compiled once for all tests."""
  return jax.jit(
    lambda p, v: (
      lambda out: {"logits": out.logits, "hidden": out.hidden, **out.features}
    )(config.bind(p)(v, want))
  )


def logits_of(config, params, view):
  return np.asarray(runner(config)(params, view)["logits"])


def test_size_and_axes():
  shapes, axes = MIXED.shapes(), MIXED.axes()
  named = lambda x: isinstance(x, tuple)  # noqa: E731
  jax.tree.map(
    lambda leaf, names: chex.assert_rank(leaf, len(names)),
    shapes,
    axes,
    is_leaf=lambda x: named(x) or isinstance(x, jax.ShapeDtypeStruct),
  )
  assert axes["embedding"]["weight"] == ("vocab", "embed")
  block = axes["segment_0"]
  assert block["attention"]["k"]["kernel"] == (
    "layers",
    "embed",
    "kv_heads",
    "head_dim",
  )
  assert block["attention"]["q"]["bias"] == ("layers", "heads", "head_dim")
  assert block["attention"]["o"]["kernel"] == (
    "layers",
    "heads",
    "head_dim",
    "embed",
  )
  assert block["mlp"]["down"]["kernel"] == ("layers", "mlp", "embed")
  assert block["attention_norm"]["scale"] == ("layers", "embed")
  # 135 M parameters, as its makers say.
  assert num_params(DecoderConfig().shapes()) == 134_515_008


def test_parameters_are_plain_float32_dicts():
  params = jax.jit(PLAIN.init)(jax.random.key(0))
  assert isinstance(params, dict)
  assert {str(a.dtype) for a in jax.tree.leaves(params)} == {"float32"}
  assert jax.tree.structure(params) == jax.tree.structure(PLAIN.shapes())
  assert hash(PLAIN) == hash(dataclasses.replace(PLAIN))


@each_config
def test_packing_changes_no_document(name):
  """Documents with padding around them and others behind, as when alone."""
  config = CONFIGS[name]
  params = params_of(config)
  documents = random_ids((2, 12))
  alone = logits_of(config, params, make_view(documents))
  ids = np.full((1, 28), 7, np.int32)
  positions, segments = np.zeros_like(ids), np.zeros_like(ids)
  for row, start in ((1, 1), (0, 15)):
    part = slice(start, start + 12)
    ids[0, part] = documents[row]
    positions[0, part] = np.arange(12)
    segments[0, part] = row + 1
    packed = logits_of(config, params, make_view(ids, positions, segments))
    assert np.isfinite(packed).all()
    np.testing.assert_allclose(packed[0, part], alone[row], atol=1e-5, rtol=0)


@each_config
def test_future_and_far_tokens_are_not_seen(name):
  config = CONFIGS[name]
  params = params_of(config)
  ids = random_ids((2, 12))
  changed = ids.copy()
  changed[0, 6] = (changed[0, 6] + 1) % 40
  before = logits_of(config, params, make_view(ids))
  after = logits_of(config, params, make_view(changed))
  np.testing.assert_array_equal(before[0, :6], after[0, :6])
  np.testing.assert_array_equal(before[1], after[1])
  assert (np.abs(before - after)[0, 6:].max(axis=-1) > 1e-4).all()


def test_window_counts_the_position_itself():
  config = dataclasses.replace(PLAIN, segments=(Segment.uniform(1, window=3),))
  params = params_of(config)
  ids = random_ids((1, 12))
  changed = ids.copy()
  changed[0, 4] = (changed[0, 4] + 1) % 40
  before = logits_of(config, params, make_view(ids))
  after = logits_of(config, params, make_view(changed))
  differs = np.abs(before - after)[0].max(axis=-1) > 1e-6
  np.testing.assert_array_equal(np.flatnonzero(differs), [4, 5, 6])


@each_config
def test_cache_agrees_with_teacher_forcing(name):
  """Rows of unlike lengths: a prompt padded in front, then one by one."""
  config = CONFIGS[name]
  params = params_of(config)
  total = np.asarray([12, 9])
  prompt = np.asarray([6, 3])
  ids = random_ids((2, 12))
  expected = logits_of(config, params, make_view(ids))

  # Prompts end in the same column.
  left = np.zeros((2, 6), np.int32)
  positions, segments = np.zeros_like(left), np.zeros_like(left)
  for row, length in enumerate(prompt):
    left[row, 6 - length :] = ids[row, :length]
    positions[row, 6 - length :] = np.arange(length)
    segments[row, 6 - length :] = 1
  cache = config.init_cache(2, 16)
  step = jax.jit(
    lambda p, v, c: (lambda out: (out.logits, out.updates["cache"]))(
      config.bind(p)(v, cache=c)
    )
  )
  found, cache = step(params, make_view(left, positions, segments), cache)
  for row, length in enumerate(prompt):
    np.testing.assert_allclose(
      found[row, 6 - length :], expected[row, :length], atol=1e-4, rtol=0
    )
  for offset in range(6):
    at = prompt + offset
    alive = at < total
    at = np.minimum(at, total - 1)
    tokens = ids[np.arange(2), at][:, None]
    view = make_view(tokens, at[:, None], alive[:, None])
    found, cache = step(params, view, cache)
    assert np.isfinite(np.asarray(found)).all()
    for row in np.flatnonzero(alive):
      np.testing.assert_allclose(
        found[row, 0], expected[row, at[row]], atol=1e-4, rtol=0
      )


def test_padding_is_not_cached():
  params = params_of(PLAIN)
  cache = PLAIN.init_cache(1, 8)
  view = make_view(random_ids((1, 4)), None, np.asarray([[1, 1, 0, 0]]))
  cache = jax.jit(lambda p, v, c: PLAIN.bind(p)(v, cache=c).updates["cache"])(
    params, view, cache
  )
  written = np.abs(cache["segment_0"]["k"]).max(axis=(0, 1, 3, 4)) > 0
  np.testing.assert_array_equal(written, [True] * 2 + [False] * 6)


ALL = (
  "embed",
  "pooled",
  *(f"layers/{n}/{k}" for n in range(5) for k in ("in", "out", "attn", "mlp")),
  *(f"attn/{n}/probs" for n in range(5)),
)


def test_features_fit_together():
  params = params_of(MIXED)
  view = make_view(random_ids((2, 12)))
  found = runner(MIXED, ALL)(params, view)
  near = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5)  # noqa: E731
  near(found["layers/0/in"], found["embed"])
  near(found["embed"], jax.jit(MIXED.bind(params).embed)(view.tokens))
  for n in range(5):
    branches = found[f"layers/{n}/attn"] + found[f"layers/{n}/mlp"]
    near(found[f"layers/{n}/in"] + branches, found[f"layers/{n}/out"])
    if n:
      near(found[f"layers/{n}/in"], found[f"layers/{n - 1}/out"])
    probs = np.asarray(found[f"attn/{n}/probs"])
    assert probs.shape == (2, 4, 12, 12)
    near(probs.sum(axis=-1), np.ones((2, 4, 12)))
    distance = np.arange(12)[:, None] - np.arange(12)
    window = MIXED.windows[n] or 12
    seen = (distance >= 0) & (distance < window)
    np.testing.assert_array_equal(probs > 0, np.broadcast_to(seen, probs.shape))
  near(found["pooled"], np.mean(found["hidden"], axis=1))


SOME = ("layers/3/out", "attn/1/probs", "layers/1/mlp", "layers/4/out")


@pytest.mark.parametrize("name", ["biased", "sparse", "adapted"])
def test_layers_apart_compute_the_same(name):
  config = {
    "biased": MIXED,
    "sparse": SPARSE,
    "adapted": dataclasses.replace(MIXED, low_rank=LowRank(2, 4.0, ("q",))),
  }[name]
  params = params_of(config)
  apart = config.unstacked(params)
  attention = apart["segment_0"][0]["attention"]
  assert (attention["k"]["kernel"].size == 0) == (name != "adapted")
  assert ("bias" in attention["q"]) == (name != "sparse")
  view = make_view(random_ids((2, 12)))
  run = runner(config, ("layers/2/out",) if name == "sparse" else SOME)
  expected, found = run(params, view), run(apart, view)
  rtol = 1e-5 if name == "sparse" else 0  # whose numbers are above 10
  chex.assert_trees_all_close(found, expected, atol=1e-5, rtol=rtol)


@functools.cache
def features_and_gradients(remat):
  config = dataclasses.replace(MIXED, remat=remat)
  view = make_view(random_ids((2, 12)))

  def loss(params):
    out = config.bind(params)(view, SOME)
    parts = [jnp.sum(jnp.sin(out.features[name])) for name in SOME]
    return sum(parts) + jnp.square(out.logits).mean(), out.features

  return jax.jit(jax.grad(loss, has_aux=True))(params_of(config))


@pytest.mark.slow
def test_some_features_are_those_of_all():
  view = make_view(random_ids((2, 12)))
  whole = runner(MIXED, ALL)(params_of(MIXED), view)
  _, some = features_and_gradients("none")
  assert tuple(some) == tuple(sorted(SOME))
  for name in SOME:
    np.testing.assert_allclose(some[name], whole[name], atol=1e-5)


def test_gradients_reach_what_a_feature_depends_on():
  """Nothing flows back from layer 1 into layer 2."""
  view = make_view(random_ids((1, 5)))
  grads = jax.jit(
    jax.grad(
      lambda p: (
        PLAIN.bind(p)(view, ("layers/1/out",)).features["layers/1/out"].sum()
      )
    )
  )(params_of(PLAIN))
  per_layer = np.abs(grads["segment_0"]["mlp"]["down"]["kernel"]).max(
    axis=(1, 2)
  )
  np.testing.assert_array_equal(per_layer > 0, [True, True, False])


@pytest.mark.parametrize(
  "remat",
  [pytest.param(r, marks=pytest.mark.slow)
   for r in ("elementwise", "dots", "full")],
)  # fmt: skip
def test_remat_changes_no_gradient(remat):
  expected, _ = features_and_gradients("none")
  found, _ = features_and_gradients(remat)
  chex.assert_trees_all_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_remat_holds_less_memory():
  params, view = params_of(MIXED), make_view(random_ids((2, 12)))

  def held(remat):
    config = dataclasses.replace(MIXED, remat=remat)
    loss = lambda p: jnp.square(config.bind(p)(view).hidden).sum()  # noqa: E731
    compiled = jax.jit(jax.grad(loss)).lower(params).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert held("full") < held("elementwise") < held("none")


def test_wanting_nothing_costs_nothing():
  """Only what is wanted makes the program bigger."""
  view = make_view(random_ids((2, 12)))
  run = lambda want: jax.jit(  # noqa: E731
    lambda p: MIXED.bind(p)(view, want).features
  )
  params = MIXED.shapes()
  size = lambda want: (  # noqa: E731
    run(want).lower(params).compile().cost_analysis().get("flops", 0.0)
  )
  assert size(()) == 0.0
  assert size(("embed",)) < size(("layers/0/out",))


@pytest.mark.parametrize(
  ("want", "message"),
  [
    ("layers/9/out", "3 layers"),
    ("layers/0/nonsense", "has no feature 'layers/0/nonsense'"),
    ("layers/00/out", "has no feature"),
  ],
)
def test_unknown_features_are_refused(want, message):
  params = PLAIN.shapes()
  with pytest.raises(UserError, match=message):
    PLAIN.bind(params)(make_view(random_ids((1, 3))), (want,))


def test_embeddings_in_place_of_ids():
  params = params_of(MIXED)
  view = make_view(random_ids((2, 12)))
  vectors = MIXED.bind(params).embed(view.tokens)

  def hidden(x):
    out = MIXED.bind(params)(dataclasses.replace(view, tokens=x))
    return out.hidden[:, 4].sum(), out.hidden

  pull, found = jax.jit(jax.grad(hidden, has_aux=True))(vectors)
  expected = runner(MIXED)(params, view)["hidden"]
  np.testing.assert_allclose(found, expected, atol=1e-5)
  reached = np.abs(pull).max(axis=(0, 2)) > 0
  np.testing.assert_array_equal(reached, np.arange(12) <= 4)


@each_config
def test_bfloat16(name):
  config = dataclasses.replace(CONFIGS[name], dtype="bfloat16")
  params = params_of(config)
  view = make_view(random_ids((2, 12)))
  out = jax.jit(
    lambda p, v: config.bind(p)(v, ("layers/1/out", "attn/1/probs"))
  )(params, view)
  assert out.hidden.dtype == jnp.bfloat16
  assert out.logits.dtype == jnp.float32
  assert out.features["layers/1/out"].dtype == jnp.bfloat16
  assert out.features["attn/1/probs"].dtype == jnp.float32
  exact = logits_of(CONFIGS[name], params, view)
  error = np.abs(np.asarray(out.logits) - exact).max()
  assert error < 0.1 * np.abs(exact).max()


def test_depth_does_not_grow_the_program():
  view = make_view(random_ids((1, 4)))

  def lines(num_layers):
    segment = Segment(
      tuple(n % 3 for n in range(num_layers)), (0,) * num_layers
    )
    config = dataclasses.replace(PLAIN, segments=(segment,))
    run = jax.jit(lambda p: config.bind(p)(view).logits)
    return run.lower(config.shapes()).as_text().count("\n")

  assert lines(40) == lines(4)


def test_a_config_compiles_once():
  params = params_of(PLAIN)

  @jax.jit
  @chex.assert_max_traces(n=1)
  def run(params, view):
    return PLAIN.bind(params)(view).logits

  chex.clear_trace_counter()
  for seed in range(3):
    run(params, make_view(random_ids((2, 5), seed)))


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"num_kv_heads": 3}, "num_kv_heads"),
    ({"head_dim": 7}, "even"),
    ({"width": 0}, "width"),
    ({"segments": (Segment((0,), (1,)),)}, "ropes"),
    ({"segments": (Segment((0, 1), (0,)),)}, "2 windows and 1 ropes"),
    ({"segments": (Segment((-1,), (0,)),)}, "windows"),
    ({"segments": ()}, "segment"),
    ({"segments": (Segment.uniform(1, sparse=True),)}, "has no experts"),
  ],
)
def test_impossible_configs_are_refused(change, message):
  with pytest.raises(UserError, match=message):
    dataclasses.replace(PLAIN, **change)
