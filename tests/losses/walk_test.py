# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The walk equals dense logits, in value and gradient, on any mesh."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jdistill import types
from jdistill.losses import budget
from jdistill.losses.walk import walk, walk_tokens

B, T, D, V = 4, 6, 8, 20


def kl(logits, data, params):
  """A forward KL written out here, scaled by a parameter, with a metric."""
  q = jax.nn.log_softmax(logits["student"] * params["scale"])
  p = jax.nn.log_softmax(logits["teacher"])
  value = (jnp.exp(p) * (p - q)).sum(-1)
  weight = data["mask"]
  return value * weight, {"kl": value * weight, "tokens": weight}


@pytest.fixture
def world():
  rng = np.random.default_rng(0)

  def dense(width, bias=False, soft_cap=None, scale=None):
    head = types.Head(
      weight=jnp.asarray(rng.normal(size=(V, width))),
      bias=jnp.asarray(rng.normal(size=V)) if bias else None,
      scale=None if scale is None else jnp.asarray(scale),
      soft_cap=soft_cap,
    )
    return types.Dense(jnp.asarray(rng.normal(size=(B, T, width))), head)

  streams = {
    "student": dense(D, bias=True, soft_cap=3.0, scale=0.7),
    "teacher": dense(12, soft_cap=5.0),
  }
  data = {"mask": jnp.asarray(rng.random((B, T)).round(), jnp.float32)}
  return streams, data, {"scale": jnp.asarray(1.3)}


def dense_total(streams, data, params):
  logits = {k: s.head(s.hidden) for k, s in streams.items()}
  loss, metrics = kl(logits, data, params)
  return loss.sum(), jax.tree.map(jnp.sum, metrics)


def gradients(total, streams, data, params):
  def of(student, params):
    return total({**streams, "student": student}, data, params)

  return jax.jit(jax.value_and_grad(of, argnums=(0, 1), has_aux=True))(
    streams["student"], params
  )


def run_walk(chunk_bytes):
  def total(streams, data, params):
    return walk(
      kl, streams, data, params, frozen=("teacher",), chunk_bytes=chunk_bytes
    )

  return total


@pytest.mark.parametrize("tokens", [1, 5, 7, 24, 1000])
def test_one_pass_equals_dense(x64, world, tokens):
  streams, data, params = jax.tree.map(lambda x: x.astype(float), world)
  expected = gradients(dense_total, streams, data, params)
  got = gradients(run_walk(4 * V * tokens), streams, data, params)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12),
    got,
    expected,
  )


@pytest.mark.parametrize("tokens", [5, 24])
def test_recompute_equals_dense(x64, world, tokens):
  """A loss that is not linear in sums of tokens."""
  streams, data, params = jax.tree.map(lambda x: x.astype(float), world)

  def values(logits, data, params):
    return kl(logits, data, params)[0]

  def through_walk(streams, data, params):
    out = walk_tokens(
      values,
      streams,
      data,
      params,
      frozen=("teacher",),
      chunk_bytes=4 * V * tokens,
    )
    return jnp.log(out.sum(-1) + 1).sum(), ()

  def through_logits(streams, data, params):
    logits = {k: s.head(s.hidden) for k, s in streams.items()}
    out = values(logits, data, params)
    return jnp.log(out.sum(-1) + 1).sum(), ()

  expected = gradients(through_logits, streams, data, params)
  got = gradients(through_walk, streams, data, params)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12),
    got,
    expected,
  )


def test_the_cotangent_scales_the_gradient(world):
  streams, data, params = world

  def total(weight):
    def of(streams, data, params):
      value, metrics = run_walk(640)(streams, data, params)
      return weight * value, metrics

    return of

  once = gradients(total(1.0), streams, data, params)[1]
  thrice = gradients(total(3.0), streams, data, params)[1]
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(3 * a, b, rtol=1e-6), once, thrice
  )


@pytest.mark.parametrize(
  "shape",
  [
    (8, 1, 1, 1),
    (2, 2, 1, 2),
    (1, 4, 1, 2),
    (1, 1, 1, 8),
    (1, 1, 2, 4),
    (1, 2, 2, 2),
    (1, 2, 4, 1),  # does not divide the positions
  ],
)
def test_any_mesh_gives_the_same(world, shape):
  streams, data, params = world
  streams, data = jax.tree.map(
    lambda x: jnp.concatenate([x, x]) if x.shape[:2] == (B, T) else x,
    (streams, data),
  )
  expected = gradients(run_walk(4 * V * 5), streams, data, params)
  names = ("data", "fsdp", "context", "tensor")
  mesh = jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * 4)
  positions = "context" if T % shape[2] == 0 else None
  rows = NamedSharding(mesh, P(("data", "fsdp"), positions))
  vocab = 4 if V % shape[3] == 0 else 1  # V divides some tensor axes only
  head = NamedSharding(mesh, P("tensor" if vocab == 4 else None, None))

  def place(stream):
    weight = jax.device_put(stream.head.weight, head)
    return types.Dense(
      jax.device_put(stream.hidden, rows),
      dataclasses.replace(stream.head, weight=weight),
    )

  streams = {k: place(s) for k, s in streams.items()}
  data = jax.device_put(data, rows)
  with jax.set_mesh(mesh):
    got = gradients(run_walk(4 * V * 5), streams, data, params)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5),
    got,
    expected,
  )


@pytest.mark.parametrize("mode", ["one_pass", "recompute"])
def test_float32_heads_of_bfloat16_states_have_float32_gradients(world, mode):
  """Chunks' and devices' shares are summed in float32, and stay so."""
  streams, data, params = jax.tree.map(lambda x: x.astype("float32"), world)

  def total(streams, data, params):
    if mode == "one_pass":
      return run_walk(4 * V * 5)(streams, data, params)
    value = walk_tokens(
      kl, streams, data, params, frozen=("teacher",), chunk_bytes=4 * V * 5
    )
    return jax.tree.map(jnp.sum, value)

  def at(dtype):
    cast = {
      k: types.Dense(s.hidden.astype(jnp.bfloat16).astype(dtype), s.head)
      for k, s in streams.items()
    }
    return gradients(total, cast, data, params)[1][0].head.weight

  got, expected = at("bfloat16"), at("float32")
  assert got.dtype == jnp.float32
  assert (got != got.astype(jnp.bfloat16)).any()
  error = np.abs(np.asarray(got - expected)).max()
  assert error < 0.03 * np.abs(np.asarray(expected)).max()


def _loops(text):
  """The computations that while loops of an HLO text run."""
  bodies, name, keep = {}, None, []
  for line in text.splitlines():
    if line.endswith("{") and not line.startswith(" "):
      name, keep = line.split()[0].lstrip("%"), []
    elif line.startswith("}") and name:
      bodies[name], name = "\n".join(keep), None
    elif name:
      keep.append(line)
  called = [
    part.split("body=")[1].split(",")[0].strip("% )")
    for part in text.splitlines()
    if "body=" in part
  ]
  return [bodies[c] for c in called if c in bodies]


@pytest.mark.parametrize(
  ("sizes", "local"), [((2, 2, 1, 2), 12), ((1, 2, 2, 2), 12)], ids=str
)
def test_no_head_sized_collective_inside_the_loop(world, sizes, local):
  streams, data, params = world
  streams, data = jax.tree.map(
    lambda x: jnp.concatenate([x, x]) if x.shape[:2] == (B, T) else x,
    (streams, data),
  )
  mesh = jax.make_mesh(sizes, ("data", "fsdp", "context", "tensor"),
                       axis_types=(AxisType.Auto,) * 4)  # fmt: skip
  rows = NamedSharding(mesh, P(("data", "fsdp"), "context"))
  head = NamedSharding(mesh, P("tensor", "fsdp"))
  place = lambda s: types.Dense(  # noqa: E731
    jax.device_put(s.hidden, rows),
    dataclasses.replace(s.head, weight=jax.device_put(s.head.weight, head)),
  )
  streams = {k: place(s) for k, s in streams.items()}
  data = jax.device_put(data, rows)

  def of(student, data):
    total = run_walk(4 * V)
    return total({**streams, "student": student}, data, params)[0]

  with jax.set_mesh(mesh):
    compiled = jax.jit(jax.grad(of)).lower(streams["student"], data).compile()
  text = compiled.as_text()
  loops = _loops(text)
  assert loops
  # Each device walks its own tokens and nobody else's, one at a time.
  assert f'"known_trip_count":{{"n":"{local}"}}' in text
  for body in loops:
    for line in body.splitlines():
      if any(c in line for c in (" all-reduce(", " all-gather(")):
        sizes = line.split("=")[1].split("[")[1].split("]")[0]
        size = np.prod([int(n) for n in sizes.split(",") if n] or [1])
        assert size < V, line


def test_logits_are_never_whole():
  """Temporaries stay under the logits of two chunks, whatever B and T."""

  def temp(rows):
    hidden = jnp.zeros((rows, 64, 16))
    head = types.Head(jnp.zeros((4096, 16)))
    mask = jnp.ones((rows, 64))
    params = {"scale": jnp.ones(())}

    def of(hidden, head):
      dense = types.Dense(hidden, head)
      streams = {"student": dense, "teacher": dense}
      return walk(
        kl, streams, {"mask": mask}, params, frozen=("teacher",),
        chunk_bytes=4 * 4096 * 16,
      )[0]  # fmt: skip

    compiled = jax.jit(jax.grad(of, argnums=(0, 1))).lower(hidden, head)
    return compiled.compile().memory_analysis().temp_size_in_bytes

  logits = 4 * 4096 * 64
  assert temp(64) - temp(8) < 56 * logits * 0.05


def test_chunks_are_larger_on_accelerators():
  """A head is read anew for every chunk, which only a CPU's caches forgive."""
  assert budget.chunk_bytes() == budget.CPU_CHUNK_BYTES
  device = jax.sharding.AbstractDevice(
    device_kind="TPU v5 lite", num_cores=1, platform="tpu"
  )
  mesh = jax.sharding.AbstractMesh(
    (8,), ("data",), (AxisType.Auto,), abstract_device=device
  )
  with jax.sharding.use_abstract_mesh(mesh):
    assert budget.chunk_bytes() == budget.ACCELERATOR_CHUNK_BYTES


def test_blocks_of_a_chunk_change_nothing(x64, world, monkeypatch):
  """Between the products a CPU works on a few rows at a time."""
  streams, data, params = jax.tree.map(lambda x: x.astype(float), world)
  size = 4 * V * 12

  def run():
    fn = lambda s, p: walk(  # noqa: E731
      kl, s, data, p, frozen=("teacher",), chunk_bytes=size
    )
    (total, metrics), grads = jax.value_and_grad(
      fn, argnums=(0, 1), has_aux=True
    )(streams, params)
    values = walk_tokens(kl, streams, data, params, chunk_bytes=size)
    return total, metrics, grads, values

  whole = run()
  monkeypatch.setattr(budget, "CPU_BLOCK_BYTES", 4 * V * 5)
  blocks = run()  # 24 tokens: chunks of 15 that are filled up, blocks of 5
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12),
    blocks,
    whole,
  )


def test_blocks_suit_vocabularies_of_different_sizes(x64, world, monkeypatch):
  """A token function may cut to the common ids itself."""
  streams, data, params = jax.tree.map(lambda x: x.astype(float), world)
  wide = streams["teacher"].head.weight
  head = dataclasses.replace(
    streams["teacher"].head, weight=jnp.concatenate([wide, wide[:4]])
  )
  streams["teacher"] = dataclasses.replace(streams["teacher"], head=head)

  def common(logits, data, params):
    return kl(logits | {"teacher": logits["teacher"][:, :V]}, data, params)

  def run():
    total = lambda s: walk(  # noqa: E731
      common, s, data, params, frozen=("teacher",), chunk_bytes=4 * V * 14
    )[0]
    values = walk_tokens(common, streams, data, params, chunk_bytes=4 * V * 14)
    return jax.value_and_grad(total)(streams), values

  whole = run()
  monkeypatch.setattr(budget, "CPU_BLOCK_BYTES", 4 * V * 5)  # 4 of the wider
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12),
    run(),
    whole,
  )


def test_neighbours_side_by_side(x64, world, monkeypatch):
  """One head of two positions: dense logits, in chunks and in blocks."""
  streams, data, params = jax.tree.map(lambda x: x.astype(float), world)

  def relation(logits, data, params):
    assert logits["student"].shape[1:] == (2, V)
    q, p = (jax.nn.softmax(x).prod(-2) for x in logits.values())
    value = jnp.square(q * params["scale"] - p).sum(-1) * data["mask"]
    return value, {"value": value}

  def beside(streams):
    outputs = {
      k: types.Outputs(s.hidden, s.head, {}, {}).with_next()
      for k, s in streams.items()
    }
    return {
      k: types.Dense(o.hidden, o.head.cut(2 * V)) for k, o in outputs.items()
    }

  def dense(streams, data, params):
    pairs = {}
    for name, s in streams.items():
      logits = s.head(s.hidden)
      following = jnp.concatenate([logits[:, 1:], logits[:, -1:]], 1)
      pairs[name] = jnp.stack([logits, following], -2).reshape(-1, 2, V)
    flat = {"mask": data["mask"].ravel()}
    loss, metrics = relation(pairs, flat, params)
    return loss.sum(), jax.tree.map(jnp.sum, metrics)

  def walked(streams, data, params):
    return walk(
      relation,
      beside(streams),
      data,
      params,
      frozen=("teacher",),
      chunk_bytes=4 * 2 * V * 14,
    )

  expected = gradients(dense, streams, data, params)
  for block in (budget.CPU_BLOCK_BYTES, 4 * 2 * V * 3, 4 * V * 3):
    monkeypatch.setattr(budget, "CPU_BLOCK_BYTES", block)
    got = gradients(walked, streams, data, params)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12),
      got,
      expected,
    )
