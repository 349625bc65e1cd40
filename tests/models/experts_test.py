# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Mixtures of experts against a loop over experts, and on any mesh."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdistill import sharding, types
from jdistill.models import (
  DecoderConfig,
  LowRank,
  Mixture,
  Segment,
  experts,
  grouped,
)
from jdistill.surgery import cut_layers
from jdistill.types import UserError

WIDTH, WIDE = 8, 12
# Compiles in half the time; each program runs once or twice.
jit = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


def arrays(mixture, seed=0):
  """Router and kernels of one layer."""
  rng, n = np.random.RandomState(seed), mixture.num_experts
  shapes = [
    (WIDTH, n),
    (n, WIDTH, mixture.width),
    (n, WIDTH, mixture.width),
    (n, mixture.width, WIDTH),
  ]
  return [
    jnp.asarray(rng.standard_normal(s) * 0.5, jnp.float32) for s in shapes
  ]


def inputs(rows, length, seed=1):
  x = np.random.RandomState(seed).standard_normal((rows, length, WIDTH))
  return jnp.asarray(x, jnp.float32)


def one_by_one(mixture, x, router, gate, up, down):
  """Every expert for every token, in float64, and shares that are mostly 0."""
  x = np.float64(x).reshape(-1, WIDTH)
  logits = x @ np.float64(router)
  probs = np.exp(logits - logits.max(-1, keepdims=True))
  probs /= probs.sum(-1, keepdims=True)
  y = np.zeros_like(x)
  for token, p in enumerate(probs):
    taken = np.argsort(-p)[: mixture.per_token]
    total = p[taken].sum() if mixture.renormalise else 1.0
    for e in taken:
      g, u = x[token] @ np.float64(gate[e]), x[token] @ np.float64(up[e])
      hidden = g / (1 + np.exp(-g)) * u
      y[token] += p[e] / total * (hidden @ np.float64(down[e]))
  return y, probs


MIXTURES = {
  "2 of 4": Mixture(4, 2, WIDE),
  "as they are": Mixture(5, 3, WIDE, renormalise=False),
  "1 of 8": Mixture(8, 1, WIDE),
  "all": Mixture(3, 3, WIDE),
}


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.parametrize("rows", [1, 40], ids=["few", "many"])
def test_each_token_gets_its_experts(name, rows):
  mixture = MIXTURES[name]
  params, x = arrays(mixture), inputs(rows, 5)
  y, probs, taken = jit(experts.Mix(mixture, jax.nn.silu))(x, *params)
  expected, expected_probs = one_by_one(mixture, x, *params)
  np.testing.assert_allclose(y.reshape(-1, WIDTH), expected, atol=2e-5)
  probs = probs.reshape(expected_probs.shape)
  np.testing.assert_allclose(probs, expected_probs, atol=1e-6)
  best = np.argsort(-expected_probs)[:, : mixture.per_token]
  np.testing.assert_array_equal(taken.reshape(best.shape), best)


def test_no_expert_is_ever_full():
  """All tokens to the same two: none is dropped."""
  mixture = MIXTURES["2 of 4"]
  router, *kernels = arrays(mixture)
  x = jnp.abs(inputs(8, 40))
  router = router.at[:, 1:3].add(5.0)
  y, _, taken = jit(experts.Mix(mixture, jax.nn.silu))(x, router, *kernels)
  assert set(np.unique(taken)) == {1, 2}
  expected, _ = one_by_one(mixture, x, router, *kernels)
  np.testing.assert_allclose(y.reshape(-1, WIDTH), expected, atol=5e-5)


def test_gradients_are_those_of_all_experts_with_shares():
  mixture = MIXTURES["as they are"]
  params, x = arrays(mixture), inputs(30, 5)

  def dense(x, router, gate, up, down):
    probs, share, taken = experts.route(mixture, x.reshape(-1, WIDTH), router)
    full = jnp.zeros(probs.shape)
    full = full.at[jnp.arange(taken.shape[0])[:, None], taken].set(share)
    inner = lambda k: jnp.einsum("btd,edf->btef", x, k)  # noqa: E731
    hidden = jax.nn.silu(inner(gate)) * inner(up)
    full = full.reshape(*x.shape[:2], -1)
    return jnp.einsum("btef,efd,bte->btd", hidden, down, full)

  sparse = lambda *a: experts.Mix(mixture, jax.nn.silu)(*a)[0]  # noqa: E731
  slopes = [
    jit(jax.grad(lambda *a, f=f: jnp.sin(f(*a)).sum(), range(5)))(x, *params)
    for f in (sparse, dense)
  ]
  for found, expected in zip(*slopes, strict=True):
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-4)


PATHS = {
  "loops": grouped.LOOPS,
  "kernels": grouped.Path(
    functools.partial(grouped._kernel, interpret=True),
    functools.partial(grouped._kernel_outer, interpret=True),
  ),
}


@pytest.mark.parametrize("path", ["loops", "kernels"])
@pytest.mark.parametrize(
  "sizes",
  [(0, 200, 0, 3), (64, 64, 64, 64), (1, 1, 0, 65), (0, 0, 0, 0)],
  ids=str,
)
def test_groups_of_any_size(path, sizes):
  """Rows behind the last group give nothing and get nothing."""
  rng = np.random.RandomState(0)
  x = jnp.asarray(rng.standard_normal((256, 6)), jnp.float32)
  kernels = jnp.asarray(rng.standard_normal((4, 6, 5)), jnp.float32)
  group = np.repeat(np.arange(5), (*sizes, 256 - sum(sizes)))
  own = np.concatenate([kernels, np.zeros((1, 6, 5))])[group]

  def run(x, kernels):
    counts = jnp.asarray(sizes, jnp.int32)
    return grouped.matmul(x, kernels, counts, path=PATHS[path])

  def value(x, kernels):
    return jnp.sin(run(x, kernels)).sum()

  y = jit(run)(x, kernels)
  expected = np.einsum("md,mdf->mf", x, own)
  np.testing.assert_allclose(y, expected, atol=1e-5)
  to_x, to_kernels = jit(jax.grad(value, (0, 1)))(x, kernels)
  slope = np.cos(expected) * (group < 4)[:, None]
  np.testing.assert_allclose(
    to_x, np.einsum("mf,mdf->md", slope, own), atol=1e-4
  )
  outer = np.zeros((4, 6, 5))
  np.add.at(
    outer, group[group < 4], np.einsum("md,mf->mdf", x, slope)[group < 4]
  )
  np.testing.assert_allclose(to_kernels, outer, atol=1e-4)


def decoder(**changes) -> DecoderConfig:
  fields = {
    "vocab_size": 32,
    "width": 16,
    "mlp_width": 24,
    "num_heads": 2,
    "num_kv_heads": 2,
    "head_dim": 8,
    "segments": (Segment.uniform(1), Segment.uniform(2, sparse=True)),
    "experts": Mixture(8, 2, WIDE),
  }
  return DecoderConfig(**(fields | changes))


def params_of(config, scale=0.4):
  rng = np.random.RandomState(3)
  return jax.tree.map(
    lambda s: jnp.asarray(rng.standard_normal(s.shape) * scale, s.dtype),
    config.shapes(),
  )


def view(rows=8, length=6):
  shape = (rows, length)
  ids = jnp.asarray(np.random.RandomState(1).randint(0, 32, shape), jnp.int32)
  places = jnp.broadcast_to(jnp.arange(length), shape)
  return types.Tokens(ids, ids, jnp.ones(shape), places, jnp.ones_like(ids))


@functools.cache
def reference(rows: int):
  """Outputs and gradients of one layer on one device."""
  mixture = Mixture(8, 3, WIDE)
  return jit(layer(mixture))(inputs(rows, 5), *arrays(mixture))


def layer(mixture):
  def run(x, router, *kernels):
    def loss(x, router, *kernels):
      mix = experts.Mix(mixture, jax.nn.silu)
      y, probs, taken = experts.divided(mix, x, router, *kernels)
      total = jnp.sin(y).sum() + (probs * jnp.arange(8.0)[None, None]).sum()
      return total, (y, probs, taken)

    return jax.grad(loss, range(5), has_aux=True)(x, router, *kernels)

  return run


MESHES = [
  (1, 1, 2, 1, 4),
  (2, 2, 1, 1, 2),
  (1, 2, 2, 1, 2),
  (1, 8, 1, 1, 1),
  (1, 1, 1, 1, 8),
  (1, 1, 2, 2, 2),
]
"""Sizes of data, fsdp, tensor, context, expert."""


# The rest takes a while to compile.
CASES = [
  pytest.param(*case, marks=[pytest.mark.slow] if n else [])
  for rows in (8, 3)
  for n, case in enumerate((shape, rows) for shape in MESHES)
]


@pytest.mark.parametrize(("shape", "rows"), CASES, ids=str)
def test_a_mesh_changes_nothing(shape, rows):
  mixture = Mixture(8, 3, WIDE)
  mesh = sharding.make_mesh(sharding.MeshShape(*shape))
  wide = ("expert", "embed", "mlp")
  axes = [(None, None), wide, wide, ("expert", "mlp", "embed")]
  params = [
    jax.device_put(
      a,
      jax.sharding.NamedSharding(
        mesh, sharding.spec(n, a.shape, mesh, sharding.DEFAULT_RULES)
      ),
    )
    for n, a in zip(axes, arrays(mixture), strict=True)
  ]
  place = sharding.replicated(mesh)
  if rows % sharding.num_row_shards(mesh) == 0:
    place = sharding.rows(mesh)
  with jax.set_mesh(mesh):
    found = jit(layer(mixture))(jax.device_put(inputs(rows, 5), place), *params)
  (slopes, outputs), (expected, plain) = jax.device_get(
    (found, reference(rows))
  )
  gap = jax.tree.map(np.subtract, slopes, expected)
  assert optax.global_norm(gap) <= 1e-5 * optax.global_norm(expected)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), outputs, plain
  )


@pytest.mark.slow
@pytest.mark.parametrize("shape", MESHES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_mesh_changes_no_decoder(shape, dtype):
  config = decoder(dtype=dtype)
  params, tokens = params_of(config), view()

  def loss(params, view):
    return jnp.square(
      jax.nn.log_softmax(config.bind(params)(view).logits)
    ).sum()

  run = jit(jax.value_and_grad(loss))
  value, expected = jax.device_get(run(params, tokens))
  mesh = sharding.make_mesh(sharding.MeshShape(*shape))
  places = sharding.param_shardings(config.axes(), params, mesh)
  placed = jax.device_put((params, tokens), (places, sharding.rows(mesh)))
  with jax.set_mesh(mesh):
    found, slopes = jax.device_get(run(*placed))
  gap = optax.global_norm(jax.tree.map(np.subtract, slopes, expected))
  # In bfloat16 sums are rounded in another order.
  tolerance = 1e-5 if dtype == "float32" else 0.05
  assert abs(found - value) <= tolerance * abs(value)
  assert gap <= tolerance * optax.global_norm(expected)


def test_experts_that_do_not_divide_are_refused():
  config = decoder(experts=Mixture(6, 2, WIDE))
  mesh = sharding.make_mesh(sharding.MeshShape(expert=4))
  with jax.set_mesh(mesh), pytest.raises(UserError) as refused:
    jax.eval_shape(lambda p: config.bind(p)(view()).hidden, config.shapes())
  assert "expert is 4" in str(refused.value)
  assert "6 experts" in str(refused.value)
  assert "1, 2, 3, 6" in str(refused.value)


@pytest.mark.parametrize(
  ("fields", "message"),
  [((4, 5, 8), "per_token is 5"), ((4, 0, 8), "0"), ((4, 2, 0), "width")],
)
def test_impossible_mixtures_are_refused(fields, message):
  with pytest.raises(UserError, match=message):
    Mixture(*fields)


def test_padding_changes_nothing():
  config, tokens = decoder(), view(2, 6)
  real = jnp.asarray([[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]])
  run = jit(lambda p, v: config.bind(p)(v).hidden)
  found = []
  for junk in (0, 7):
    ids = jnp.where(real == 1, tokens.tokens, junk)
    padded = dataclasses.replace(tokens, tokens=ids, segment_ids=real)
    found.append(run(params_of(config), padded)[real == 1])
  np.testing.assert_array_equal(*found)


def test_routers_are_features():
  config = decoder()
  want = ("router/probs", "router/taken", "router/2/probs", "router/1/taken")
  found = jit(lambda p: config.bind(p)(view(2), want).features)(
    params_of(config)
  )
  probs, taken = found["router/probs"], found["router/taken"]
  assert (probs.shape, taken.shape) == ((2, 6, 2, 8), (2, 6, 2, 2))
  np.testing.assert_array_equal(probs[:, :, 1], found["router/2/probs"])
  np.testing.assert_array_equal(taken[:, :, 0], found["router/1/taken"])
  np.testing.assert_allclose(probs.sum(-1), 1.0, rtol=1e-5)
  np.testing.assert_array_equal(jax.lax.top_k(probs, 2)[1], taken)


@pytest.mark.parametrize(
  ("config", "want", "message"),
  [
    (decoder(), "router/0/probs", "layer 0 has no experts.*1, 2"),
    (decoder(segments=(Segment.uniform(1),)), "router/probs", "has no feature"),
  ],
  ids=["a dense layer", "a dense model"],
)
def test_layers_without_experts_have_no_router(config, want, message):
  with pytest.raises(UserError, match=message):
    config.bind(config.shapes())(view(), (want,))


@functools.cache
def slopes(remat):
  config = decoder(remat=remat, segments=(Segment.uniform(2, sparse=True),))
  loss = lambda p: jnp.square(config.bind(p)(view(2)).logits).mean()  # noqa: E731
  return jit(jax.grad(loss))(params_of(config))


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["elementwise", "dots", "full"])
def test_remat_changes_no_gradient(remat):
  found, expected = slopes(remat), slopes("none")
  gap = optax.global_norm(jax.tree.map(jnp.subtract, found, expected))
  assert gap <= 1e-5 * optax.global_norm(expected)


def test_neither_depth_nor_experts_grow_the_program():
  def lines(layers, count):
    config = decoder(
      segments=(Segment.uniform(layers, sparse=True),),
      experts=Mixture(count, 2, WIDE),
    )
    run = jax.jit(jax.grad(lambda p: config.bind(p)(view()).hidden.sum()))
    return run.lower(config.shapes()).as_text().count("\n")

  assert lines(2, 4) == lines(20, 4) == lines(2, 64)


def test_int8_experts_compute_with_the_rounded_weights():
  config = decoder()
  params = params_of(config)
  int8 = dataclasses.replace(config, kernels="int8")
  stored = jit(int8.store)(params)
  mlp = stored["segment_1"]["mlp"]
  assert mlp["gate"]["kernel"].scale.shape == (2, 8, 1, WIDE)
  assert mlp["down"]["kernel"].scale.shape == (2, 8, 1, 16)
  assert mlp["router"]["kernel"].dtype == jnp.bfloat16
  is_kernel = lambda leaf: hasattr(leaf, "qvalue")  # noqa: E731
  rounded = jax.tree.map(
    lambda leaf: (
      leaf.qvalue * leaf.scale if is_kernel(leaf) else leaf.astype(jnp.float32)
    ),
    stored,
    is_leaf=is_kernel,
  )
  found = jit(lambda p: int8.bind(p)(view(2)).logits)(stored)
  expected = jit(lambda p: config.bind(p)(view(2)).logits)(rounded)
  np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.slow
def test_adapters_of_experts_merge():
  config = decoder(low_rank=LowRank(rank=2, alpha=4.0))
  params = params_of(config)
  pair = params["segment_1"]["mlp"]["up"]
  assert pair["lora_a"].shape == (2, 8, 16, 2)
  assert pair["lora_b"].shape == (2, 8, 2, WIDE)
  whole = dataclasses.replace(config, low_rank=None)
  merged = config.merged(params)
  found = jit(lambda p: config.bind(p)(view(2)).logits)(params)
  expected = jit(lambda p: whole.bind(p)(view(2)).logits)(merged)
  scale = np.abs(expected).max()
  np.testing.assert_allclose(found, expected, atol=2e-5 * scale)
  moves = config.trainable()["segment_1"]["mlp"]
  assert moves["down"] == {"kernel": False, "lora_a": True, "lora_b": True}
  assert moves["router"] == {"kernel": False}


def test_a_cut_student_keeps_its_experts():
  config = decoder(
    segments=(Segment.uniform(1), Segment.uniform(3, sparse=True))
  )
  small, params = cut_layers(config, params_of(config), (0, 1, 3))
  assert small.sparse_layers == (False, True, True)
  assert small.shapes() == jax.tree.map(
    lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), params
  )
  dense, _ = cut_layers(config, config.shapes(), (0,))
  assert dense.mixture is None
