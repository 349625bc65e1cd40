# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Int8 kernels: how far off they are, where they lie, and what they cost."""

import dataclasses
import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qwix
from jax.sharding import PartitionSpec as P

from jdistill import pretrained, sharding, types
from jdistill.models import DecoderConfig, MLPConfig, Segment, num_params

FLOAT = DecoderConfig(
  vocab_size=40,
  width=16,
  mlp_width=24,
  num_heads=4,
  num_kv_heads=2,
  head_dim=8,
  segments=(Segment.uniform(3),),
  qkv_bias=True,
  qk_norm=True,
  tied=False,
)
INT8 = dataclasses.replace(FLOAT, kernels="int8")


def drawn(config=FLOAT):
  """Parameters that bfloat16 holds exactly, kernels aside."""
  rng = np.random.RandomState(0)

  def one(path, shape):
    values = rng.standard_normal(shape.shape) * 0.3
    name = jax.tree_util.keystr(path)
    exact = "float32" if "kernel" in name else "bfloat16"
    return values.astype(exact).astype(np.float32)

  return jax.tree_util.tree_map_with_path(one, config.shapes())


def view(rows=2, length=8):
  shape = (rows, length)
  ids = np.random.RandomState(1).randint(0, 40, shape)
  ids = jnp.asarray(ids, jnp.int32)
  places = jnp.broadcast_to(jnp.arange(length), shape)
  return types.Tokens(ids, ids, jnp.ones(shape), places, jnp.ones_like(ids))


@functools.cache
def call(config):
  return jax.jit(lambda params: config.bind(params)(view()).logits)


def logits(config, params):
  return call(config)(params)


@functools.cache
def stored():
  return jax.jit(INT8.store)(drawn())


def is_kernel(leaf):
  return isinstance(leaf, qwix.QArray)


@functools.cache
def turned_back():
  return jax.tree.map(
    lambda leaf: (
      leaf.qvalue * leaf.scale if is_kernel(leaf) else leaf.astype(np.float32)
    ),
    jax.device_get(stored()),
    is_leaf=is_kernel,
  )


def test_each_output_channel_of_each_layer_has_a_scale():
  attention = stored()["segment_0"]["attention"]
  assert attention["q"]["kernel"].qvalue.shape == (3, 16, 4, 8)
  assert attention["q"]["kernel"].scale.shape == (3, 1, 4, 8)
  assert attention["o"]["kernel"].scale.shape == (3, 1, 1, 16)
  for path, leaf in jax.tree_util.tree_leaves_with_path(
    stored(), is_leaf=is_kernel
  ):
    name = jax.tree_util.keystr(path)
    assert is_kernel(leaf) == ("kernel" in name)
    if is_kernel(leaf):
      assert (leaf.qvalue.dtype, leaf.scale.dtype) == (jnp.int8, jnp.float32)
    else:
      assert leaf.dtype == jnp.bfloat16, name


def assert_stored(before, after):
  """Each weight within half a scale, and scales no larger than they need be."""

  def check(path, before, after):
    if not is_kernel(after):
      np.testing.assert_array_equal(before.astype(after.dtype), after)
      return
    scale = after.scale
    moved = np.abs(before - after.qvalue * scale)
    rounding = 2 * np.finfo(np.float32).eps * np.abs(before)
    assert (moved <= 0.5 * scale + rounding).all(), path
    inside = tuple(i for i, n in enumerate(scale.shape) if n == 1)
    largest = np.abs(before).max(inside, keepdims=True)
    np.testing.assert_allclose(scale, largest / 127.5, rtol=1e-6)

  jax.tree_util.tree_map_with_path(check, before, after)


def test_no_weight_moves_by_more_than_half_its_scale():
  assert_stored(drawn(), jax.device_get(stored()))


def test_computes_with_the_rounded_weights():
  found = logits(INT8, stored())
  expected = logits(FLOAT, turned_back())
  np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
  assert jnp.abs(found - logits(FLOAT, drawn())).max() > 1e-3


def test_logits_move_no_further_than_the_scales_allow():
  """By the mean value theorem along the way from the weights to the rounded.

  A logit moves by the gradient somewhere on that way times the moves, which
  are at most half a scale each.
  """
  before, after = drawn(), stored()
  end = turned_back()
  room = jax.tree.map(
    lambda leaf: 0.5 * leaf.scale if is_kernel(leaf) else np.zeros(()),
    jax.device_get(after),
    is_leaf=is_kernel,
  )

  def bound(way):
    params = jax.tree.map(lambda a, b: a + way * (b - a), before, end)
    slope = jax.grad(lambda p: FLOAT.bind(p)(view()).logits[0, -1, 3])(params)
    each = jax.tree.map(lambda s, r: jnp.sum(jnp.abs(s) * r), slope, room)
    return sum(jax.tree.leaves(each))

  most = jax.jit(lambda ways: jax.lax.map(bound, ways))(np.linspace(0, 1, 9))
  moved = logits(INT8, after)[0, -1, 3] - logits(FLOAT, before)[0, -1, 3]
  assert 0 < abs(moved) <= most.max()


def test_divided_over_devices():
  mesh = sharding.make_mesh(sharding.MeshShape(data=2, fsdp=2, tensor=2))
  shapes = INT8.shapes()
  places = sharding.param_shardings(INT8.axes(), shapes, mesh)
  whole = stored()
  assert jax.tree.structure(places) == jax.tree.structure(whole)
  kernel = places["segment_0"]["mlp"]["up"]["kernel"]
  assert kernel.qvalue.spec == P(None, "fsdp", "tensor")
  assert kernel.scale.spec == P(None, None, "tensor")
  floats = jax.device_put(
    drawn(), sharding.param_shardings(FLOAT.axes(), FLOAT.shapes(), mesh)
  )
  parts = INT8.store(floats, places)
  assert_stored(drawn(), jax.device_get(parts))
  up = parts["segment_0"]["mlp"]["up"]["kernel"]
  assert up.qvalue.sharding.is_equivalent_to(kernel.qvalue, 3)
  with jax.set_mesh(mesh):
    found = logits(INT8, parts)
  expected = logits(INT8, jax.device_get(parts))
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_no_stack_of_floats_is_made():
  """Room beside the arguments: about a layer, however many there are."""
  rows = view(1, 4)

  def room(layers):
    config = dataclasses.replace(
      INT8, width=64, mlp_width=256, segments=(Segment.uniform(layers),)
    )
    forward = jax.jit(lambda p, v: config.bind(p)(v).logits)
    compiled = forward.lower(config.shapes(), rows).compile()
    layer = num_params(config.shapes()["segment_0"]) / layers
    return compiled.memory_analysis().temp_size_in_bytes, layer

  (few, _), (many, layer) = room(4), room(24)
  assert many - few < layer
  assert many < 3 * 4 * layer


def test_others_say_that_they_cannot():
  classifier = MLPConfig(shape=(4,), classes=3)
  with pytest.raises(types.UserError, match=r"int8 is for decoders.*MLPConfig"):
    pretrained.find(None, architecture=classifier, stored="int8")


def test_drawn_weights_are_stored_too():
  found = pretrained.find(None, architecture=FLOAT, stored="int8")
  assert found.architecture == INT8
  params = found.params(dtype="int8")
  assert jax.tree.structure(params) == jax.tree.structure(INT8.shapes())
  scale = params["segment_0"]["attention"]["o"]["kernel"].scale
  assert scale.shape == (3, 1, 1, 16)
  assert 0 < scale.min() <= scale.max() < 1


def test_qwix_is_imported_by_those_who_ask():
  code = (
    "import sys; from jdistill import losses, models, pretrained;"
    "print('qwix' in sys.modules)"
  )
  made = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert made.stdout.strip() == "False"


def test_kernels_side_by_side_are_the_same_numbers():
  apart = INT8.unstacked(stored())
  attention = apart["segment_0"][1]["attention"]
  assert attention["q"]["kernel"].shape == (16, 8, 8)
  found, expected = logits(INT8, apart), logits(INT8, stored())
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
