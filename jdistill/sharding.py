# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The mesh, and which part of it each array lives on."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jdistill import types

Rules = Mapping[str, str | None]

DEFAULT_RULES: Rules = {
  "embed": "fsdp",
  "vocab": "tensor",
  "mlp": "tensor",
  "heads": types.HEADS_AXIS,
  "kv_heads": types.HEADS_AXIS,
}
"""Logical axis of a parameter -> mesh axis; others are replicated."""


@dataclasses.dataclass(frozen=True)
class MeshShape:
  """Sizes of the mesh axes; -1 takes the devices that the others leave.

  `data` copies the parameters and divides the batch, `fsdp` divides both,
  `tensor` divides the matrices of a layer.
  """

  data: int = -1
  fsdp: int = 1
  tensor: int = 1


def make_mesh(
  shape: MeshShape, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """The mesh of a run.

  Sizes of 1, all three given, are a mesh of one device, however many a single
  process has.

  Raises: UserError if the sizes do not fit the number of devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  sizes = dataclasses.asdict(shape)
  free = [name for name, size in sizes.items() if size == -1]
  bad = {k: v for k, v in sizes.items() if v == 0 or v < -1}
  fixed = math.prod(size for size in sizes.values() if size != -1)
  if bad or len(free) > 1 or (free and len(devices) % fixed):
    raise types.UserError(_no_mesh(sizes, len(devices)))
  if free:
    sizes[free[0]] = len(devices) // fixed
  wanted = math.prod(sizes.values())
  alone = wanted == 1 and jax.process_count() == 1
  if wanted != len(devices) and not alone:
    raise types.UserError(_no_mesh(sizes, len(devices)))
  return jax.make_mesh(
    tuple(sizes.values()),
    tuple(sizes),
    axis_types=(AxisType.Auto,) * len(sizes),
    devices=devices[:wanted],
  )


def _no_mesh(sizes: Mapping[str, int], devices: int) -> str:
  return (
    f"mesh {dict(sizes)} does not fit {devices} devices: sizes must multiply "
    f"to {devices}, with at most one -1 for the rest"
  )


def spec(
  axes: Sequence[str | None], shape: Sequence[int], mesh: Mesh, rules: Rules
) -> PartitionSpec:
  """The partition of one array.

  A dimension that its mesh axis does not divide is replicated, and a mesh
  axis serves the first of the dimensions that ask for it.
  """
  used: set[str] = set()
  parts: list[str | None] = []
  for axis, size in zip(axes, shape, strict=True):
    target = rules.get(axis) if axis is not None else None
    fits = target in mesh.axis_names and size % mesh.shape[target] == 0
    if target is None or target in used or not fits:
      parts.append(None)
      continue
    used.add(target)
    parts.append(target)
  while parts and parts[-1] is None:
    parts.pop()
  return PartitionSpec(*parts)


def param_shardings(
  axes: types.PyTree,
  shapes: types.PyTree,
  mesh: Mesh,
  rules: Rules = DEFAULT_RULES,
) -> types.PyTree:
  """A sharding per parameter, from trees of logical axes and of shapes."""
  return jax.tree.map(
    lambda s, a: NamedSharding(mesh, spec(a, s.shape, mesh, rules)),
    shapes,
    axes,
  )


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def rows(mesh: Mesh) -> NamedSharding:
  """The sharding of whatever has the batch in front."""
  return NamedSharding(mesh, PartitionSpec(types.BATCH_AXES))


def num_row_shards(mesh: Mesh) -> int:
  return math.prod(mesh.shape[a] for a in types.BATCH_AXES)


def place_rows(tree: types.PyTree, mesh: Mesh) -> types.PyTree:
  """Global arrays from each process's own rows [B / processes, ...]."""
  sharding = rows(mesh)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)),
    tree,
  )


def like(
  tree: types.PyTree, params: types.PyTree, shardings: types.PyTree, mesh: Mesh
) -> types.PyTree:
  """Shardings for a tree that holds copies of `params` among other things.

  Optimizer states carry moments shaped like the parameters, under the same
  path, and an average of weights is a copy of one branch; whatever matches
  shape and end of the path, the branch's name left out or not, gets the
  parameter's sharding. The rest is replicated, and so is what two branches
  would divide differently.
  """
  flat, _ = jax.tree_util.tree_flatten_with_path(params)
  known: dict[tuple[tuple[str, ...], tuple[int, ...]], NamedSharding] = {}
  inside: dict[tuple[tuple[str, ...], tuple[int, ...]], NamedSharding] = {}
  for (path, leaf), place in zip(flat, jax.tree.leaves(shardings), strict=True):
    names = _names(path)
    known[names, leaf.shape] = place
    if len(names) > 1:
      key = names[1:], leaf.shape
      same = inside.get(key, place) == place
      inside[key] = place if same else replicated(mesh)
  known = inside | known
  lengths = sorted({len(path) for path, _ in known}, reverse=True)

  def find(path, leaf):
    names = _names(path)
    for length in lengths:
      sharding = known.get((names[-length:], leaf.shape))
      if sharding is not None:
        return sharding
    return replicated(mesh)

  return jax.tree_util.tree_map_with_path(find, tree)


def _names(path) -> tuple[str, ...]:
  return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)
