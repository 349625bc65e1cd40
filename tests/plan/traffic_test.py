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


NESTED = """\
HloModule step

%slice (p0: f32[9,8,4], p1: s32[]) -> f32[8,4] {
  %p0 = f32[9,8,4]{2,1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %layer = f32[1,8,4]{2,1,0} dynamic-slice(%p0, %p1, %p1, %p1)
  ROOT %flat = f32[8,4]{1,0} bitcast(%layer)
}

%product (q0: f32[2,8], q1: f32[9,8,4], q2: s32[]) -> f32[2,4] {
  %q0 = f32[2,8]{1,0} parameter(0)
  %q1 = f32[9,8,4]{2,1,0} parameter(1)
  %q2 = s32[] parameter(2)
  %w = f32[8,4]{1,0} fusion(%q1, %q2), kind=kLoop, calls=%slice
  ROOT %out = f32[2,4]{1,0} convolution(%q0, %w), dim_labels=bf_io->bf
}

ENTRY %main (x: f32[2,8], stack: f32[9,8,4], n: s32[]) -> f32[2,4] {
  %x = f32[2,8]{1,0} parameter(0)
  %stack = f32[9,8,4]{2,1,0} parameter(1)
  %n = s32[] parameter(2)
  ROOT %y = f32[2,4]{1,0} fusion(%x, %stack, %n), kind=kOutput, calls=%product
}
"""


def test_a_product_that_slices_its_own_layer_reads_that_layer():
  found = traffic.memory_bytes(hlo.parse(NESTED))
  assert found == 4 * (2 * 8 + 8 * 4 + 1 + 2 * 4)


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
