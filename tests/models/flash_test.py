# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The flash kernel, interpreted, against plain attention."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import sharding, types
from jdistill.models import DecoderConfig, Rope, Segment, flash
from jdistill.models.attention import attend, packed_sight
from jdistill.types import UserError

B, T, H, N, DH = 2, 384, 4, 2, 16
EPS = np.finfo(np.float32).eps


def packed(rows=B, length=T) -> tuple[np.ndarray, np.ndarray]:
  """Positions and segments of packed rows; all but the last end in padding."""
  rng = np.random.default_rng(0)
  ids = np.zeros((rows, length), np.int32)
  positions = np.zeros((rows, length), np.int32)
  for row in range(rows):
    end = length if row == rows - 1 else length - 37
    cuts = np.sort(rng.choice(np.arange(1, end), 3, replace=False))
    for segment, part in enumerate(np.split(np.arange(end), cuts)):
      ids[row, part] = segment + 1
      positions[row, part] = np.arange(len(part))
  return positions, ids


def inputs(kv_heads=N, seed=1):
  draw = np.random.default_rng(seed).standard_normal
  make = lambda heads: draw((B, T, heads, DH), np.float32)  # noqa: E731
  return make(H), make(kv_heads), make(kv_heads)


def made(*windows, soft_cap=None) -> flash.Plan:
  """The plan of a segment of these windows."""
  spec = DecoderConfig(
    num_heads=H,
    num_kv_heads=N,
    head_dim=DH,
    attention_soft_cap=soft_cap,
    attention="flash",
  )
  segment = Segment(windows, (0,) * len(windows))
  found = flash.plan(spec, segment, T, probs=False)
  assert found is not None
  return found


def by_kernel(plan, layer, q, k, v):
  ids = jnp.asarray(packed()[1])
  index = jnp.int32(plan.index[layer])
  return flash.attend(plan, q, k, v, ids, index, interpret=True)


def by_softmax(window, q, k, v, scale=DH**-0.5, soft_cap=None):
  sight = packed_sight(*(jnp.asarray(x) for x in packed()))
  mask = sight.within(jnp.int32(window or T))
  return attend(q, k, v, mask, scale=scale, soft_cap=soft_cap)[0]


def value_and_gradients(fn, args):
  """Of a sum over what is no padding, each with a weight of its own."""
  real = packed()[1] != 0
  weight = np.random.default_rng(2).standard_normal((B, T, H, DH), np.float32)
  weight *= real[..., None, None]

  def of(*args):
    out = fn(*args)
    return jnp.sum(out * weight), out * real[..., None, None]

  grads, out = jax.jit(jax.grad(of, (0, 1, 2), has_aux=True))(*args)
  return out, *grads


def near(found, expected):
  """Within the rounding of sums over all positions, as norms."""
  for a, b in zip(found, expected, strict=True):
    assert np.isfinite(a).all()
    error = np.linalg.norm(np.asarray(a, np.float64) - b)
    assert error <= np.sqrt(T) * EPS * np.linalg.norm(b)


@pytest.mark.parametrize(
  ("windows", "layer", "kv_heads", "soft_cap"),
  [
    ((0, 0), 0, N, None),
    ((0, 40), 1, 1, 2.0),
    pytest.param((0, 40, 200), 2, H, None, marks=pytest.mark.slow),
    pytest.param((1000,), 0, N, 2.0, marks=pytest.mark.slow),
  ],
  ids=["whole", "window, one key head, cap", "wide window", "no window, cap"],
)
def test_the_kernel_is_plain_attention(windows, layer, kv_heads, soft_cap):
  plan = made(*windows, soft_cap=soft_cap)
  args = inputs(kv_heads)
  near(
    value_and_gradients(functools.partial(by_kernel, plan, layer), args),
    value_and_gradients(
      functools.partial(by_softmax, windows[layer], soft_cap=soft_cap), args
    ),
  )


@pytest.mark.parametrize(
  ("kv_heads", "mesh", "layer"),
  [
    pytest.param(2, (2, 1, 2), 1, marks=pytest.mark.slow),
    (1, (1, 2, 2), 1),
    pytest.param(2, (1, 1, 8), 1, marks=pytest.mark.slow),
    pytest.param(2, (8, 1, 1), 1, marks=pytest.mark.slow),
    (1, (1, 1, 2, 3), 1),
    pytest.param(2, (2, 1, 1, 3), 0, marks=pytest.mark.slow),
  ],
  ids=["heads", "copies of a key head", "too few heads", "too few rows",
       "positions in a window and heads", "rows and positions"],
)  # fmt: skip
def test_a_mesh_divides_rows_heads_and_positions(kv_heads, mesh, layer):
  """Each device computes what it would alone, wherever its queries lie."""
  shape = sharding.MeshShape(*mesh)
  devices = jax.devices()[: np.prod(mesh)]
  made_mesh = sharding.make_mesh(shape, devices)
  fn = functools.partial(by_kernel, made(0, 40), layer)
  args = inputs(kv_heads)
  expected = value_and_gradients(fn, args)
  with jax.set_mesh(made_mesh):
    found = value_and_gradients(fn, args)
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=16 * EPS)


def test_parts_of_a_row_are_whole_blocks():
  mesh = sharding.make_mesh(sharding.MeshShape(1, 1, 1, 2), jax.devices()[:2])
  with jax.set_mesh(mesh), pytest.raises(UserError, match="128 x 2 parts"):
    made(0, 40)


@pytest.mark.parametrize(
  ("axis", "sizes", "expected"),
  [
    ("tensor", (1, 2, 2), (("data", "fsdp", "expert"), "tensor", 2, 1)),
    ("fsdp", (2, 4, 1), (("data", "expert"), "fsdp", 4, 2)),
    (None, (1, 1, 8), (("data", "fsdp", "expert"), None, 1, 1)),
  ],
)
def test_heads_go_where_the_model_says(axis, sizes, expected):
  mesh = sharding.make_mesh(
    sharding.MeshShape(*sizes), jax.devices()[: np.prod(sizes)]
  )
  plan = dataclasses.replace(made(0), heads_axis=axis)
  with jax.set_mesh(mesh):
    found = flash._division(
      plan, jax.sharding.get_abstract_mesh(), (B, T, H, DH), N
    )
  assert (found.rows, found.heads, found.num_heads, found.copies) == expected


DECODER = DecoderConfig(
  vocab_size=40,
  width=32,
  mlp_width=48,
  num_heads=4,
  num_kv_heads=2,
  head_dim=8,
  segments=(Segment((20, 0), (1, 0)),),
  ropes=(Rope(1000.0), Rope(50.0)),
  qk_norm=True,
  attention_soft_cap=5.0,
)


def view(length=128) -> types.Tokens:
  positions, ids = packed(2, length)
  tokens = np.random.default_rng(3).integers(40, size=ids.shape, dtype=np.int32)
  arrays = tokens, tokens, (ids != 0).astype(np.float32), positions, ids
  return types.Tokens(*(jnp.asarray(x) for x in arrays))


@functools.cache
def loss_and_gradients(attention, remat):
  config = dataclasses.replace(DECODER, attention=attention, remat=remat)
  batch = view()

  def loss(params):
    hidden = config.bind(params)(batch).hidden
    wave = jnp.sin(jnp.arange(hidden.size).reshape(hidden.shape))
    return (hidden * wave * batch.mask[..., None]).sum()

  return jax.jit(jax.value_and_grad(loss))(config.init(jax.random.key(0)))


def close(found, expected):
  """Within rounding, of which two layers make a few dozen steps."""
  for a, b in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    error = jnp.linalg.norm(a - b)
    assert error <= 100 * EPS * jnp.linalg.norm(b), (error, b.shape)


@pytest.mark.parametrize(
  "remat",
  [pytest.param(r, marks=pytest.mark.slow)
   for r in ("elementwise", "none", "dots", "full")],
)  # fmt: skip
def test_a_decoder_computes_the_same(remat):
  close(loss_and_gradients("flash", remat), loss_and_gradients("xla", remat))


@pytest.mark.slow
def test_without_a_tpu_auto_is_plain():
  """To the last bit: the program is the same."""
  chex.assert_trees_all_equal(
    loss_and_gradients("auto", "elementwise"),
    loss_and_gradients("xla", "elementwise"),
  )


@pytest.mark.parametrize("remat", ["elementwise", "full"])
def test_the_target_decides(remat):
  """Without a mesh one traced program has both, and what it is lowered for
  takes one: the kernel for a TPU, forward and backward."""
  config = dataclasses.replace(DECODER, remat=remat)
  batch = view()

  def loss(params):
    return config.bind(params)(batch).hidden.sum()

  traced = jax.jit(jax.grad(loss)).trace(config.shapes())

  def kernels(platform):
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    return {
      phase: f"splash_mha_{phase}" in text for phase in ("fwd", "dq", "dkv")
    }

  assert kernels("tpu") == {"fwd": True, "dq": True, "dkv": True}
  assert not any(kernels("cpu").values())


def test_auto_takes_what_it_can_and_flash_insists():
  auto = dataclasses.replace(DECODER, attention="auto")
  insists = dataclasses.replace(DECODER, attention="flash")
  never = dataclasses.replace(DECODER, attention="xla")
  segment = DECODER.segments[0]
  found = flash.plan(auto, segment, 256, probs=False)
  assert found is not None
  assert (found.windows, found.index) == ((20, 0), (0, 1))
  assert flash.plan(auto, segment, 100, probs=False) is None
  assert flash.plan(auto, segment, 256, probs=True) is None
  assert flash.plan(never, segment, 256, probs=False) is None
  with pytest.raises(UserError, match=r"100 positions.*multiple of 128"):
    flash.plan(insists, segment, 100, probs=False)
  with pytest.raises(UserError, match="probabilities"):
    flash.plan(insists, segment, 256, probs=True)


def test_windows_as_wide_as_a_row_are_none():
  plan = made(T, T - 1, 0, 10 * T)
  assert (plan.windows, plan.index) == ((0, T - 1), (0, 1, 0, 0))


@pytest.mark.slow
def test_a_cache_needs_no_kernel():
  """So text can be generated whatever a run insists on."""
  config = dataclasses.replace(DECODER, attention="flash")
  params = config.init(jax.random.key(0))
  short = jax.tree.map(lambda x: x[:, :5], view())
  cache = config.init_cache(2, 9)
  found = config.bind(params)(short, cache=cache)
  plain = dataclasses.replace(DECODER, attention="xla").bind(params)
  chex.assert_trees_all_equal(found.hidden, plain(short, cache=cache).hidden)
