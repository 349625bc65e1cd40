# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Programs compiled here, read back; tpu_test.py reads those of a TPU."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from jdistill import hlo, sharding

V = 136
"""An axis that nothing else has."""


@functools.cache
def program() -> hlo.Program:
  """Two loops on two devices, of which one sends."""
  mesh = sharding.make_mesh(sharding.MeshShape(), jax.devices()[:2])

  def local(x, w):
    def quiet(carry, row):
      logits = row @ w  # [8, V]
      return carry + jax.nn.softmax(logits).T @ row, None

    def loud(carry, row):
      return carry + jax.lax.psum(jnp.sin(row), "data"), None

    grads, _ = jax.lax.scan(quiet, jnp.zeros((V, 16)), x)
    sums, _ = jax.lax.scan(loud, jnp.zeros((8, 16)), x)
    return jax.lax.psum(grads, "data"), sums

  mapped = jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(P("data"), P()),
    out_specs=(P(), P()),
    check_vma=False,
  )
  shapes = (
    jax.ShapeDtypeStruct((6, 8, 16), "float32"),
    jax.ShapeDtypeStruct((16, V), "float32"),
  )
  return hlo.parse(jax.jit(mapped).lower(*shapes).compile().as_text())


def test_collectives_are_found_in_the_loop_that_has_them():
  found = [hlo.collectives(program().body(loop)) for loop in program().loops()]
  (loud,) = [f for f in found if f]
  assert [(kind, array.shape) for kind, array, _ in loud] == [
    ("all-reduce", (8, 16))
  ]
  everywhere = hlo.collectives(program().reached(program().entry))
  assert {(kind, array.shape) for kind, array, _ in everywhere} == {
    ("all-reduce", (8, 16)),
    ("all-reduce", (V, 16)),
  }


def test_arrays_with_an_axis_come_largest_first():
  found = [array for array, _ in hlo.with_axis(program(), {V})]
  assert {array.shape for array in found} >= {(V, 16), (8, V)}
  sizes = [array.size for array in found]
  assert sizes == sorted(sizes, reverse=True)
  assert all(V in array.shape for array in found)
  assert not hlo.with_axis(program(), {V + 1})


def test_what_a_fusion_computes_inside_is_no_buffer():
  """A sum over a large product is written without it."""

  def total(x, y):
    return (jnp.sin(x)[:, None] * jnp.cos(y)[None, :]).sum(1)

  shape = jax.ShapeDtypeStruct((1000,), "float32")
  made = hlo.parse(jax.jit(total).lower(shape, shape).compile().as_text())
  inside = [a for i in made.reached(made.entry) for a in i.arrays]
  assert max(array.size for array in inside) == 1_000_000
  assert max(a.size for i in made.buffers() for a in i.arrays) < 1_000_000


TEXT = """\
HloModule jit_step, is_scheduled=true

%body (p: (bf16[2,8])) -> (bf16[2,8]) {
  %p = (bf16[2,8]{1,0:T(8,128)(2,1)}) parameter(0)
  %start.1 = (bf16[2,8]{1,0}, /*index=1*/bf16[16,8]{1,0:T(8,128)S(1)}) \
all-gather-start(%p), metadata={op_name="jit(step)/while/body/gather"}
  %kernel = bf16[2,8]{1,0} custom-call(%start.1), \
custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"block": 512}}, metadata={op_name="jit(step)/pallas_call"}
  ROOT %t = (bf16[2,8]{1,0}) tuple(%kernel)
}

%cond (p: (bf16[2,8])) -> pred[] {
  ROOT %true = pred[]{:T(512)} constant(true)
}

ENTRY %main.2_spmd (x: bf16[2,8]) -> (bf16[2,8]) {
  %x = bf16[2,8]{1,0} parameter(0)
  %in = (bf16[2,8]{1,0}) tuple(%x)
  ROOT %loop = (bf16[2,8]{1,0}) while(%in), condition=%cond, body=%body
}
"""


def test_text_as_tpus_write_it():
  """Tiled layouts, indices in tuples, attributes over several lines."""
  made = hlo.parse(TEXT)
  (loop,) = made.loops()
  body = {i.name: i for i in made.body(loop)}
  assert body["kernel"].target == "tpu_custom_call"
  assert body["kernel"].source == "jit(step)/pallas_call"
  ((kind, array, start),) = hlo.collectives(made.body(loop))
  assert (kind, array) == ("all-gather", hlo.Array("bf16", (16, 8), 1))
  assert start.source == "jit(step)/while/body/gather"
  assert body["true"].arrays == (hlo.Array("pred", ()),)


def test_turns_and_runs_of_loops():
  """Loops inside of loops count for each of the outer turns."""

  def inner(x, _):
    return jnp.cos(x) @ x, None

  def outer(x, _):
    return jax.lax.scan(inner, jnp.sin(x), None, length=5)[0], None

  def step(x):
    return jax.lax.scan(outer, x, None, length=3)[0]

  shape = jax.ShapeDtypeStruct((16, 16), "float32")
  made = hlo.parse(jax.jit(step).lower(shape).compile().as_text())
  assert sorted(made.turns(loop) for loop in made.loops()) == [3, 5]
  runs = made.runs()
  dots = [
    runs[name]
    for name, instructions in made.computations.items()
    if name in runs and any(i.opcode == "dot" for i in instructions)
  ]
  assert dots == [15]


@pytest.mark.parametrize(
  ("text", "groups"),
  [
    ("{{0,1},{2,3}}", ((0, 1), (2, 3))),
    ("[2,2]<=[4]", ((0, 1), (2, 3))),
    ("[2,2]<=[2,2]T(1,0)", ((0, 2), (1, 3))),
    ("mesh['a'=2,'b'=2] {'a'}", ((0, 2), (1, 3))),
    ("mesh['a'=2,'b'=2] {'b'}", ((0, 1), (2, 3))),
  ],
)
def test_groups_of_devices(text, groups):
  made = hlo.parse(
    "ENTRY %main (x: f32[8]) -> f32[8] {\n"
    "  %x = f32[8]{0} parameter(0)\n"
    "  ROOT %sum = f32[8]{0} all-reduce(%x), channel_id=7, "
    f"replica_groups={text}, to_apply=%add\n}}\n"
  )
  (found,) = [i for i in made.computations["main"] if i.collective]
  assert (found.groups, found.channel) == (groups, 7)
  assert found.operands == ("x",)


@pytest.mark.parametrize(
  ("dtype", "nbytes"),
  [("f32", 24), ("bf16", 12), ("pred", 6), ("s4", 3), ("f8e4m3fn", 6)],
)
def test_bytes_of_arrays(dtype, nbytes):
  assert hlo.Array(dtype, (2, 3)).nbytes == nbytes


def test_other_text_is_refused():
  with pytest.raises(ValueError, match="ENTRY"):
    hlo.parse("module @jit_step {\n}\n")
