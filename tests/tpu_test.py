# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The product's train step, compiled for 16 chips that are not there.

Needs libtpu, which is what `pip install 'jax[tpu]'` brings.
"""

import functools
import importlib.util
import math
import os

import jax
import pytest
from jax.experimental import topologies

from jdistill import (
  config,
  data,
  hlo,
  methods,
  optim,
  run,
  sharding,
  types,
)
from jdistill.losses.budget import ACCELERATOR_CHUNK_BYTES
from jdistill.models import DecoderConfig, Segment

pytestmark = [
  pytest.mark.slow,
  pytest.mark.timeout(1800),
  pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu"
  ),
]

V, T, ROWS = 131_072, 4096, 16
HOST = 5
"""The host's memory, as compiled programs number it."""
MESHES = {
  "fsdp x tensor": sharding.MeshShape(1, 8, 2),
  "fsdp": sharding.MeshShape(1, 16, 1),
  "fsdp x tensor x context": sharding.MeshShape(1, 4, 2, 2),
}


def decoder(width: int, head_dim: int, windows, *, tied: bool):
  return DecoderConfig(
    vocab_size=V,
    width=width,
    mlp_width=3 * width,
    num_heads=8,
    num_kv_heads=4,
    head_dim=head_dim,
    segments=(Segment(windows, (0,) * len(windows)),),
    tied=tied,
  )


TEACHER = decoder(1280, 128, (0, 0), tied=False)
DEEP = decoder(4096, 128, (0,) * 32, tied=False)
STUDENT = decoder(640, 64, (0, 1024), tied=True)


def chips(name: str, **options):
  for key, value in {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_LOG_DIR": "disabled",
    "TPU_SKIP_MDS_QUERY": "1",
  }.items():
    os.environ.setdefault(key, value)
  return topologies.get_topology_desc(name, "tpu", **options).devices


@functools.cache
def compiled(mesh: str, attention: str, place: str = "device", teacher=TEACHER):
  """The train step's program, and the memory that it needs."""
  settings = config.Config(
    student=config.Fresh(architecture=STUDENT),
    teachers={
      "teacher": config.Teacher(
        architecture=teacher, dtype="bfloat16", place=place
      )
    },
    method=methods.KD(),
    data=data.TextData(seq_len=T, batch_size=ROWS),
    steps=10,
    optimizer=optim.AdamW(),
    dtype="bfloat16",
    attention=attention,
    mesh=MESHES[mesh],
  )
  whole = jax.ShapeDtypeStruct((ROWS, T), "int32")
  counted = jax.ShapeDtypeStruct((ROWS, T), "float32")
  ids = jax.ShapeDtypeStruct((ROWS,), "int32")
  view = types.Tokens(whole, whole, counted, whole, whole)
  batch = types.Batch({"student": view}, {}, ids)
  built = run.build(
    settings, run.find_models(settings), batch, devices=chips("v5e:4x4")
  )
  teachers = built.teacher_shapes()
  with jax.set_mesh(built.mesh):
    lowered = built.train_step.lower(built.state_shapes, teachers, batch)
    made = lowered.compile()
  return hlo.parse(made.as_text()), made.memory_analysis()


def vocabulary(mesh: str) -> set[int]:
  """Sizes of a vocabulary axis, whole and divided."""
  return {V, V // MESHES[mesh].tensor}


def loss_loops(mesh: str, program: hlo.Program):
  """The loops that have logits in them."""
  sizes = vocabulary(mesh)
  return [
    loop
    for loop in program.loops()
    if "shard_map" in loop.source
    and any(sizes & set(a.shape) for i in program.body(loop) for a in i.arrays)
  ]


each_mesh = pytest.mark.parametrize("mesh", MESHES)


@each_mesh
def test_logits_are_never_larger_than_a_chunk(mesh):
  """What else has a vocabulary axis is a table, [V, D] or a part of it."""
  program, _ = compiled(mesh, "auto")
  shape, sizes = MESHES[mesh], vocabulary(mesh)
  widths = {TEACHER.width, STUDENT.width}
  parts = (1, shape.fsdp, shape.fsdp * shape.context)
  tables = {width // n for width in widths for n in parts}
  logits = []
  for array, instruction in hlo.with_axis(program, sizes):
    rows = array.size // next(n for n in array.shape if n in sizes)
    if rows not in tables:
      assert 4 * array.size <= ACCELERATOR_CHUNK_BYTES, (
        array,
        instruction.source,
      )
      logits.append(rows)
  assert max(logits) == ACCELERATOR_CHUNK_BYTES // (4 * V)  # there are some


@each_mesh
def test_the_loss_sends_no_logits_and_no_head(mesh):
  """Devices that share a vocabulary exchange sums of a token or its hidden
  state; gradients of the head are summed after the loop."""
  program, _ = compiled(mesh, "auto")
  (loop,) = loss_loops(mesh, program)
  chunk = ACCELERATOR_CHUNK_BYTES // (4 * V)
  for kind, array, instruction in hlo.collectives(program.body(loop)):
    assert MESHES[mesh].tensor > 1, instruction
    assert not set(array.shape) & vocabulary(mesh), (kind, array)
    assert array.size <= chunk * STUDENT.width, (kind, array)


@each_mesh
def test_attention_is_the_kernel(mesh):
  """Forward for both models, backward for the student, one for each of its
  windows; nothing of [T, T] is left."""
  program, _ = compiled(mesh, "auto")
  names = [
    (i.name.split("_segmented")[0], i.arrays[-1].shape[-1])
    for i in program.buffers()
    if i.target == "tpu_custom_call"
  ]
  phases = [name.removeprefix("splash_mha_") for name, _ in names]
  assert sorted(phases) == ["dkv"] * 2 + ["dq"] * 2 + ["fwd"] * 3
  positions = {T, T // MESHES[mesh].context}
  for instruction in program.buffers():
    for array in instruction.arrays:
      scores = sum(size in positions for size in array.shape) > 1
      assert not scores, (array, instruction.source)


def test_plain_attention_compiles_and_holds_more():
  mesh = "fsdp x tensor"
  program, plain = compiled(mesh, "xla")
  assert not any(i.target == "tpu_custom_call" for i in program.buffers())
  _, flashed = compiled(mesh, "auto")
  assert flashed.temp_size_in_bytes < plain.temp_size_in_bytes


def test_a_teacher_may_wait_on_the_host():
  """Its layers are arguments there, and never all of them on the chip."""
  mesh = "fsdp x tensor"
  _, near = compiled(mesh, "auto", "device", DEEP)
  program, far = compiled(mesh, "auto", "host", DEEP)
  layers = DEEP.shapes()["segment_0"]
  kernels = [x for x in jax.tree.leaves(layers) if x.ndim > 2]
  kept = 2 * sum(x.size for x in kernels) // 16
  assert far.host_argument_size_in_bytes >= kept
  gone = near.argument_size_in_bytes - far.argument_size_in_bytes
  assert gone >= kept
  sizes = {x.size // 16 for x in kernels}
  stacks = [
    array
    for made in program.buffers()
    for array in made.arrays
    if math.prod(array.shape) in sizes and array.shape[0] == DEEP.num_layers
  ]
  assert {array.space for array in stacks} == {HOST}
  # A layer is gathered as a whole, and the next one while it computes, so that
  # temporaries grow by less than what has left.
  assert far.temp_size_in_bytes - near.temp_size_in_bytes < gone


def test_data_spans_slices():
  devices = chips("v5e:4x4", num_slices=2)
  mesh = sharding.make_mesh(sharding.MeshShape(-1, 4, 4, slices=2), devices)
  assert dict(mesh.shape) == {
    "data": 2,
    "fsdp": 4,
    "expert": 1,
    "context": 1,
    "tensor": 4,
  }
  for number, part in enumerate(mesh.devices):
    assert {device.slice_index for device in part.flat} == {number}
  for slices, found in ((1, "are of 2 slices; take 2"), (4, "of 2 slices")):
    shape = sharding.MeshShape(-1, 4, 2, slices=slices)
    with pytest.raises(types.UserError, match=found):
      sharding.make_mesh(shape, devices)
