# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The product's train step, compiled for 16 chips that are not there.

Needs libtpu, which is what `pip install 'jax[tpu]'` brings.
"""

import functools
import importlib.util
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
  pretrained,
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
MESHES = {"fsdp x tensor": (1, 8, 2), "fsdp": (1, 16, 1)}
TENSOR = {name: mesh[-1] for name, mesh in MESHES.items()}


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
STUDENT = decoder(640, 64, (0, 1024), tied=True)


@functools.cache
def compiled(mesh: str, attention: str):
  """The train step's program, and the memory that it needs."""
  for name, value in {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_LOG_DIR": "disabled",
    "TPU_SKIP_MDS_QUERY": "1",
  }.items():
    os.environ.setdefault(name, value)
  chips = topologies.get_topology_desc("v5e:4x4", "tpu").devices
  settings = config.Config(
    student=config.Fresh(architecture=STUDENT),
    teachers={
      "teacher": config.Teacher(architecture=TEACHER, dtype="bfloat16")
    },
    method=methods.KD(),
    data=data.TextData(seq_len=T, batch_size=ROWS),
    steps=10,
    optimizer=optim.AdamW(),
    dtype="bfloat16",
    attention=attention,
    mesh=sharding.MeshShape(*MESHES[mesh]),
  )
  whole = jax.ShapeDtypeStruct((ROWS, T), "int32")
  counted = jax.ShapeDtypeStruct((ROWS, T), "float32")
  ids = jax.ShapeDtypeStruct((ROWS,), "int32")
  view = types.Tokens(whole, whole, counted, whole, whole)
  batch = types.Batch({"student": view}, {}, ids)
  built = run.build(settings, run.find_models(settings), batch, devices=chips)
  teachers = {"teacher": pretrained.cast(TEACHER.shapes(), "bfloat16")}
  with jax.set_mesh(built.mesh):
    lowered = built.train_step.lower(built.state_shapes, teachers, batch)
    made = lowered.compile()
  return hlo.parse(made.as_text()), made.memory_analysis()


def vocabulary(mesh: str) -> set[int]:
  """Sizes of a vocabulary axis, whole and divided."""
  return {V, V // TENSOR[mesh]}


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
  fsdp, sizes = MESHES[mesh][1], vocabulary(mesh)
  widths = {TEACHER.width, STUDENT.width}
  tables = widths | {width // fsdp for width in widths}
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
    assert TENSOR[mesh] > 1, instruction
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
  for instruction in program.buffers():
    for array in instruction.arrays:
      assert array.shape.count(T) < 2, (array, instruction.source)


def test_plain_attention_compiles_and_holds_more():
  mesh = "fsdp x tensor"
  program, plain = compiled(mesh, "xla")
  assert not any(i.target == "tpu_custom_call" for i in program.buffers())
  _, flashed = compiled(mesh, "auto")
  assert flashed.temp_size_in_bytes < plain.temp_size_in_bytes
