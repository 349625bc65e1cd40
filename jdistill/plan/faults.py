# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a step should never do, looked for in its program."""

import math
from collections.abc import Iterator

import jax

from jdistill import hlo, run
from jdistill.losses import budget


def find(built: run.Run, program: hlo.Program) -> Iterator[str]:
  """Logits larger than a chunk, and vocabularies sent inside the loss loop.

  What else has a vocabulary axis is a table, [V, D] or a part of it, told
  from logits by its rows.
  """
  sizes, rows = _tables(built)
  with jax.set_mesh(built.mesh):
    limit = budget.chunk_bytes()
  for array, instruction in hlo.with_axis(program, sizes):
    vocab = next(n for n in array.shape if n in sizes)
    if array.size // vocab not in rows and 4 * array.size > limit:
      yield (
        f"{array.dtype}{list(array.shape)} holds more logits than a chunk of "
        f"{limit >> 20} MiB: {instruction.source or instruction.name}"
      )
  for loop in loss_loops(program, sizes):
    for kind, array, instruction in hlo.collectives(program.body(loop)):
      if set(array.shape) & sizes:
        yield (
          f"{kind} of {array.dtype}{list(array.shape)} in the loop of the "
          f"loss: {instruction.source or instruction.name}"
        )


def loss_loops(program: hlo.Program, sizes: set[int]) -> list[hlo.Instruction]:
  """The loops that have an axis of one of these sizes in them."""
  return [
    loop
    for loop in program.loops()
    if "shard_map" in loop.source
    and any(sizes & set(a.shape) for i in program.body(loop) for a in i.arrays)
  ]


def _tables(built: run.Run) -> tuple[set[int], set[int]]:
  """Sizes of a vocabulary axis, whole and on a device, and rows of tables."""
  shapes = {
    k: f.architecture.shapes() for k, f in built.models.teachers.items()
  }
  axes = {k: f.architecture.axes() for k, f in built.models.teachers.items()}
  for name, part in built.parts.items():  # of which the step has but the head
    shapes[name], axes[name] = part.head_shapes, part.head_axes
  heads = {k: part.head_shardings for k, part in built.parts.items()}
  student = built.models.student
  everything = (
    (student.shapes(), student.axes(), built.state_shardings.params["student"]),
    (shapes, axes, built.teacher_shardings | heads),
  )
  sizes, rows = set(), set()
  for shapes, axes, places in everything:
    leaves, tree = jax.tree.flatten(shapes)
    for leaf, names, place in zip(
      leaves, tree.flatten_up_to(axes), tree.flatten_up_to(places), strict=True
    ):
      if "vocab" not in names:
        continue
      at = names.index("vocab")
      for shape in (leaf.shape, place.shard_shape(leaf.shape)):
        sizes.add(shape[at])
        rows.add(math.prod(shape) // shape[at])
  return sizes, rows
