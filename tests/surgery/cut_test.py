# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Students that are some of their teacher's layers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import types
from jdistill.models import DecoderConfig, Rope, Segment
from jdistill.surgery import cut_layers, evenly_spaced
from jdistill.types import UserError

CONFIG = DecoderConfig(
  vocab_size=20,
  width=16,
  mlp_width=24,
  num_heads=2,
  num_kv_heads=1,
  head_dim=8,
  segments=(
    Segment((3, 0, 4), (1, 0, 1)),
    Segment((0, 5), (0, 1)),
    Segment((2,), (0,)),
  ),
  ropes=(Rope(1000.0), Rope(50.0)),
)


def random_params(config):
  rng = np.random.RandomState(0)
  return jax.tree.map(
    lambda s: jnp.asarray(rng.standard_normal(s.shape), s.dtype) * 0.3,
    config.shapes(),
  )


def view():
  ids = jnp.asarray(np.random.RandomState(1).randint(0, 20, (1, 8)), jnp.int32)
  return types.Tokens(
    tokens=ids,
    targets=ids,
    mask=jnp.ones(ids.shape),
    positions=jnp.arange(8)[None],
    segment_ids=jnp.ones_like(ids),
  )


@pytest.mark.slow
def test_a_cut_model_skips_the_layers():
  """As if the residual branches of the others were silenced."""
  params = random_params(CONFIG)
  keep = (0, 2, 4)
  small, cut = cut_layers(CONFIG, params, keep)
  assert small.windows == (3, 4, 5)
  assert small.layer_ropes == (Rope(50.0),) * 3
  assert [s.num_layers for s in small.segments] == [2, 1]
  silenced = params
  for n, (segment, first) in enumerate(
    zip(CONFIG.segments, CONFIG.offsets, strict=True)
  ):
    on = jnp.asarray(
      [first + i in keep for i in range(segment.num_layers)], jnp.float32
    )
    block = silenced[f"segment_{n}"]
    for branch, name in (("attention", "o"), ("mlp", "down")):
      kernel = block[branch][name]["kernel"]
      shape = (-1,) + (1,) * (kernel.ndim - 1)
      block[branch][name]["kernel"] = kernel * on.reshape(shape)
  run = lambda c, p: jax.jit(lambda p, v: c.bind(p)(v).logits)(p, view())  # noqa: E731
  expected = run(CONFIG, silenced)
  found = run(small, cut)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_shapes_are_cut_like_arrays():
  keep = (1, 3, 5)
  small, shapes = cut_layers(CONFIG, CONFIG.shapes(), keep)
  assert shapes == small.shapes()
  _, arrays = cut_layers(CONFIG, random_params(CONFIG), keep)
  jax.tree.map(lambda a, s: a.shape == s.shape or 1 / 0, arrays, shapes)


def test_the_rest_is_not_copied():
  params = random_params(CONFIG)
  _, cut = cut_layers(CONFIG, params, (0, 1))
  assert cut["embedding"]["weight"] is params["embedding"]["weight"]


def test_keeping_all_is_the_same_model():
  params = random_params(CONFIG)
  config, kept = cut_layers(CONFIG, params, range(6))
  assert config == CONFIG
  jax.tree.map(np.testing.assert_array_equal, kept, params)


@pytest.mark.parametrize(
  ("keep", "message"),
  [
    ((), "at least one"),
    ((2, 1), "ascending"),
    ((1, 1), "none twice"),
    ((0, 6), "layers 0 to 5"),
    ((-1, 2), "layers 0 to 5"),
  ],
)
def test_impossible_cuts_are_refused(keep, message):
  with pytest.raises(UserError, match=message):
    cut_layers(CONFIG, CONFIG.shapes(), keep)


@pytest.mark.parametrize("num_layers", [1, 2, 7, 30])
def test_evenly_spaced(num_layers):
  for count in range(1, num_layers + 1):
    layers = evenly_spaced(num_layers, count)
    assert len(layers) == count
    assert layers[0] == 0
    assert count == 1 or layers[-1] == num_layers - 1
    gaps = np.diff(layers)
    assert count == 1 or (gaps.min() >= 1 and np.ptp(gaps) <= 1)
  assert evenly_spaced(30, 10) == (0, 3, 6, 10, 13, 16, 19, 23, 26, 29)


@pytest.mark.parametrize("count", [0, 8])
def test_evenly_spaced_refuses(count):
  with pytest.raises(UserError, match="expected 1 to 7"):
    evenly_spaced(7, count)


def test_cut_of_a_replaced_config_keeps_its_other_fields():
  config = dataclasses.replace(CONFIG, dtype="bfloat16", norm_eps=1e-3)
  small, _ = cut_layers(config, config.shapes(), (0,))
  assert (small.dtype, small.norm_eps) == ("bfloat16", 1e-3)
