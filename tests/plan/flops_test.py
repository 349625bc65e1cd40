# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from jdistill import losses, models, sharding, types
from jdistill.plan import flops


def shape(*sizes: int) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(sizes, "float32")


A, B = shape(3, 4, 5), shape(3, 5, 6)
PRODUCT = 2 * 3 * 4 * 5 * 6


def product(a, b):
  return jnp.einsum("nij,njk->nik", a, b)


def looped(a, b):
  return jax.lax.scan(lambda c, _: (c, product(a, b)), 0.0, None, length=7)


def chosen(a, b):
  return jax.lax.cond(a.sum() > 0, product, lambda a, b: a @ b * 0, a, b)


def unread(a, b):
  unread = jax.jit(looped)(a, b), a[0] @ b[0]
  del unread
  return product(a, b)


def recomputed(a, b):
  return jax.grad(lambda a: jax.checkpoint(product)(a, b).sum())(a)


@pytest.mark.parametrize(
  ("fn", "products"),
  [(product, 1), (jax.jit(product), 1), (looped, 7), (chosen, 1), (unread, 1)],
)
def test_products_and_what_holds_them(fn, products):
  assert flops.count(fn, A, B) == products * PRODUCT


def test_convolutions_count_each_multiplication():
  def convolve(x, kernel):
    return jax.lax.conv_general_dilated(
      x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )

  found = flops.count(convolve, shape(2, 8, 8, 3), shape(3, 3, 3, 16))
  assert found == 2 * (2 * 6 * 6 * 16) * (3 * 3 * 3)


def test_all_shards_of_a_mesh_count():
  mesh = sharding.make_mesh(sharding.MeshShape(), jax.devices()[:2])
  mapped = jax.shard_map(
    lambda x, w: x @ w,
    mesh=mesh,
    in_specs=(P("data"), P()),
    out_specs=P("data"),
  )
  assert flops.count(mapped, shape(8, 4), shape(4, 5)) == 2 * 8 * 4 * 5


def test_a_decoder_is_what_its_sizes_say():
  config = models.DecoderConfig(
    vocab_size=40,
    width=16,
    mlp_width=24,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    segments=(models.Segment.uniform(3),),
  )
  rows, length = 2, 10
  ids = jax.ShapeDtypeStruct((rows, length), "int32")
  view = types.Tokens(ids, ids, shape(rows, length), ids, ids)

  def hidden(params, view):
    return config.bind(params)(view).hidden

  tokens = rows * length
  attention = 2 * tokens * length * 4 * 8 * 2
  kernels = 16 * 4 * 8 * 2 + 16 * 2 * 8 * 2 + 3 * 16 * 24
  expected = 3 * (2 * tokens * kernels + attention)
  assert flops.count(hidden, config.shapes(), view) == expected


def test_a_walk_is_four_products():
  """Both logits, and the two of the student's backward pass."""

  def total(student, teacher):
    return losses.walk(
      lambda logits, data, params: (
        losses.forward_kl(logits["student"], logits["teacher"]),
        (),
      ),
      {"student": student, "teacher": teacher},
      (),
      frozen=("teacher",),
      chunk_bytes=4 * 32 * 4,
    )[0]

  def stream(width):
    return types.Dense(shape(12, width), types.Head(shape(32, width)))

  found = flops.count(jax.grad(total), stream(8), stream(16))
  assert found == 2 * 12 * 32 * (3 * 8 + 16)
