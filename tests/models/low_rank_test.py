# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Adapters: nothing at the start, the chain rule after, one kernel at the end.

qwix's own LoRA on a module of the user's own stands beside them.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qwix
from flax import nnx

from jdistill import methods, optim, step, types
from jdistill.models import (
  DecoderConfig,
  LowRank,
  NNXArchitecture,
  Segment,
  low_rank,
)

BASE = DecoderConfig(
  vocab_size=40,
  width=16,
  mlp_width=24,
  num_heads=4,
  num_kv_heads=2,
  head_dim=8,
  segments=(Segment.uniform(3),),
  qkv_bias=True,
)
WITH = dataclasses.replace(BASE, low_rank=LowRank(rank=3, alpha=6.0))
KERNELS = ["attention/q", "attention/k", "attention/v", "attention/o",
           "mlp/gate", "mlp/up", "mlp/down"]  # fmt: skip


def view(rows=2, length=8):
  shape = (rows, length)
  ids = jnp.asarray(np.random.RandomState(1).randint(0, 40, shape), jnp.int32)
  places = jnp.broadcast_to(jnp.arange(length), shape)
  return types.Tokens(ids, ids, jnp.ones(shape), places, jnp.ones_like(ids))


@functools.cache
def call(config):
  return jax.jit(lambda params: config.bind(params)(view()).logits)


def base():
  rng = np.random.RandomState(0)
  return jax.tree.map(
    lambda s: jnp.asarray(rng.standard_normal(s.shape) * 0.3, s.dtype),
    BASE.shapes(),
  )


@functools.cache
def start(config=WITH):
  return jax.jit(lambda key: low_rank.beside(config.init(key), base()))(
    jax.random.key(0)
  )


@functools.cache
def moved():
  """Adapters that say something."""
  rng = np.random.RandomState(2)

  def one(path, leaf):
    if not jax.tree_util.keystr(path).endswith(("lora_a']", "lora_b']")):
      return leaf
    return jnp.asarray(rng.standard_normal(leaf.shape) * 0.2, leaf.dtype)

  return jax.tree_util.tree_map_with_path(one, start())


def part(params, name):
  block, product = name.split("/")
  return params["segment_0"][block][product]


def test_starts_as_its_base_exactly():
  np.testing.assert_array_equal(call(WITH)(start()), call(BASE)(base()))
  assert jnp.abs(part(start(), "mlp/up")["lora_a"]).max() > 0


def test_merged_kernels_compute_the_same():
  merged = WITH.merged(moved())
  assert jax.tree.structure(merged) == jax.tree.structure(BASE.shapes())
  found = call(BASE)(merged)
  np.testing.assert_allclose(found, call(WITH)(moved()), rtol=1e-4, atol=1e-4)
  assert jnp.abs(found - call(BASE)(base())).max() > 0.1


def test_gradients_are_those_of_the_chain_rule():
  """With dW of the merged kernel: dA = s dW B^T and dB = s A^T dW."""

  def loss(config, params):
    return (config.bind(params)(view()).logits ** 2).mean()

  found = jax.jit(jax.grad(lambda p: loss(WITH, p)))(moved())
  dense = jax.jit(jax.grad(lambda p: loss(BASE, p)))(WITH.merged(moved()))
  for name in KERNELS:
    a, b = (part(moved(), name)[key] for key in low_rank.PAIR)
    layers, rank = b.shape[:2]
    dw = part(dense, name)["kernel"].reshape(layers, -1, np.prod(b.shape[2:]))
    a, b = a.reshape(layers, -1, rank), b.reshape(layers, rank, -1)
    da = 2.0 * np.einsum("lio,lro->lir", dw, b)
    db = 2.0 * np.einsum("lir,lio->lro", a, dw)
    for key, expected in zip(low_rank.PAIR, (da, db), strict=True):
      got = part(found, name)[key]
      np.testing.assert_allclose(
        got, expected.reshape(got.shape), rtol=1e-3, atol=1e-5, err_msg=name
      )


def one_step(arch, params, batch):
  """The parameters after an update that learns from the text."""
  state = {"student": params, "method": {}}
  movable = {"student": arch.trainable(), "method": {}}
  mask = optim.trainable((), state, movable)
  axes = {"student": arch.axes(), "method": {}}
  rule = optim.make(optim.AdamW(lr=1e-2), axes, mask)
  made = jax.jit(
    step.make_train_step(arch, {}, methods.CrossEntropy(), rule, mask=mask)
  )
  moments = rule.init(state)
  first = types.TrainState(jnp.zeros((), jnp.int32), state, moments, {})
  after, _ = made(first, {}, batch)
  return after.params["student"], moments


def changed(before, after):
  flat = jax.tree_util.tree_leaves_with_path(
    jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before, after)
  )
  return {
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, moves in flat
    if moves
  }


def test_only_adapters_and_what_is_named_move():
  config = dataclasses.replace(
    WITH, low_rank=LowRank(2, 4.0, ("q", "down"), also=("*norm/scale",))
  )
  params = start(config)
  batch = types.Batch({"student": view()}, {}, jnp.arange(2))
  after, moments = one_step(config, params, batch)
  assert changed(params, after) == {
    "norm/scale",
    "segment_0/attention_norm/scale",
    "segment_0/mlp_norm/scale",
    "segment_0/attention/q/lora_b",
    "segment_0/mlp/down/lora_b",  # A waits until B is no longer nothing
  }
  sizes = {leaf.size for leaf in jax.tree.leaves(moments)}
  assert 40 * 16 not in sizes  # no moments for the embedding
  assert 3 * 16 * 24 not in sizes  # nor for a kernel


@pytest.mark.parametrize(
  ("fields", "said"),
  [
    ({"targets": ("q", "query")}, r"'query'.*q, k, v, o, gate, up, down"),
    ({"targets": ()}, "empty"),
    ({"rank": 0}, "rank is 0"),
    ({"also": ("*bias2",)}, r"'\*bias2'.*embedding/weight"),
  ],
)
def test_what_is_not_there_is_refused(fields, said):
  def ask():
    spec = LowRank(**({"rank": 2, "alpha": 1.0} | fields))
    dataclasses.replace(BASE, low_rank=spec).trainable()

  with pytest.raises(types.UserError, match=said):
    ask()


class Own(nnx.Module):
  def __init__(self, *, rngs):
    self.table = nnx.Embed(40, 8, rngs=rngs)
    self.inner = nnx.Linear(8, 16, rngs=rngs)
    self.outer = nnx.Linear(16, 40, rngs=rngs)

  def __call__(self, tokens):
    return self.outer(jnp.tanh(self.inner(self.table(tokens))))


def own(rngs):
  provider = qwix.LoraProvider(module_path="inner|outer", rank=2, alpha=4.0)
  tokens = jnp.zeros((1, 4), jnp.int32)
  return qwix.apply_lora_to_model(Own(rngs=rngs), provider, tokens, rngs=rngs)


def test_a_module_with_lora_of_qwix_trains_only_that():
  arch = NNXArchitecture(make=own, train=("*_lora_a", "*_lora_b"))
  params = arch.init(jax.random.key(0))
  batch = types.Batch({"student": view()}, {}, jnp.arange(2))
  after, _ = one_step(arch, params, batch)
  assert changed(params, after) == {
    "params/inner/kernel_lora_b",
    "params/outer/kernel_lora_b",
  }
  again, _ = one_step(arch, after, batch)
  assert "params/inner/kernel_lora_a" in changed(after, again)
  plain = NNXArchitecture(make=lambda rngs: Own(rngs=rngs))
  kept = {
    name: {k: v for k, v in leaf.items() if "lora" not in k}
    for name, leaf in params["params"].items()
  }
  np.testing.assert_allclose(
    arch.bind(params)(view()).logits,
    plain.bind({"params": kept})(view()).logits,
    rtol=1e-6,
  )


def test_a_pattern_that_names_nothing_is_refused():
  arch = NNXArchitecture(make=own, train=("*_lora_c",))
  with pytest.raises(types.UserError, match=r"lora_c.*inner/kernel_lora_a"):
    arch.trainable()
