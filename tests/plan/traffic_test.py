# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from jdistill import hlo, sharding
from jdistill.plan import traffic


def compiled(fn, *shapes) -> hlo.Program:
  structs = [jax.ShapeDtypeStruct(s, "float32") for s in shapes]
  return hlo.parse(jax.jit(fn).lower(*structs).compile().as_text())


def test_a_product_reads_its_factors_and_writes_itself():
  found = traffic.memory_bytes(compiled(jnp.matmul, (32, 64), (64, 16)))
  assert found == 4 * (32 * 64 + 64 * 16 + 32 * 16)


def test_a_scan_reads_of_a_stack_one_slice_a_turn():
  def step(x, stack):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, stack)[0]

  layers = 64
  found = traffic.memory_bytes(compiled(step, (8, 128), (layers, 128, 128)))
  kernel = 4 * 128 * 128
  # A turn reads its slice and copies it at most; it never reads the stack.
  assert layers * kernel <= found < 5 * layers * kernel


TEXT = """\
HloModule step

%update (p0: f32[9,4], p1: f32[4], p2: s32[]) -> f32[9,4] {
  %p0 = f32[9,4]{1,0} parameter(0)
  %p1 = f32[4]{0} parameter(1)
  %p2 = s32[] parameter(2)
  %row = f32[1,4]{1,0} bitcast(%p1)
  ROOT %new = f32[9,4]{1,0} dynamic-update-slice(%p0, %row, %p2, %p2)
}

ENTRY %main (a: f32[9,4], b: f32[4], c: s32[]) -> f32[9,4] {
  %a = f32[9,4]{1,0} parameter(0)
  %b = f32[4]{0:T(128)S(1)} parameter(1)
  %c = s32[] parameter(2)
  ROOT %out = f32[9,4]{1,0} fusion(%a, %b, %c), kind=kLoop, calls=%update
}
"""


def test_an_update_in_place_moves_its_part_and_near_memory_is_free():
  index, row = 4, 16
  assert traffic.memory_bytes(hlo.parse(TEXT)) == index + 2 * row


@pytest.mark.parametrize(
  ("fn", "kind", "wire"),
  [
    (lambda x: jax.lax.psum(x, "fsdp"), "all-reduce", 2 * 3 / 4),
    (
      lambda x: jax.lax.all_gather(x, "fsdp", tiled=True),
      "all-gather",
      4 * 3 / 4,
    ),
  ],
)
def test_collectives_by_their_ring(fn, kind, wire):
  mesh = sharding.make_mesh(sharding.MeshShape(data=2, fsdp=4))
  mapped = jax.shard_map(
    lambda x: jax.lax.scan(lambda c, _: (c, fn(x + c)), 1.0, None, length=3)[1],
    mesh=mesh,
    in_specs=P("fsdp"),
    out_specs=P(None),
    check_vma=False,
  )
  program = compiled(mapped, (64,))
  (sent,) = traffic.collectives(program, per_slice=8)
  assert (sent.kind, sent.group, sent.across_slices) == (kind, 4, False)
  local = 64 / 4 * 4
  # The compiler may take a sum that no turn changes out of the loop.
  assert sent.wire == pytest.approx(sent.times * local * wire)
  (apart,) = traffic.collectives(program, per_slice=2)
  assert apart.across_slices
