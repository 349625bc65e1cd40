# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The mesh, and which part of it each array lives on."""

import dataclasses
import difflib
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import (
  AbstractMesh,
  AxisType,
  Mesh,
  NamedSharding,
  PartitionSpec,
)

from jdistill import paths, types

Rules = Mapping[str, str | None]

DEFAULT_RULES: Rules = {
  "embed": f"fsdp+{types.CONTEXT_AXIS}",
  "vocab": "tensor",
  "mlp": "tensor",
  "heads": types.HEADS_AXIS,
  "kv_heads": types.HEADS_AXIS,
  "expert": types.EXPERT_AXIS,
}
"""Logical axis of a parameter -> mesh axis, or several joined by `+`; other
axes are whole on every device."""


AXES = ("data", "fsdp", types.EXPERT_AXIS, types.CONTEXT_AXIS, "tensor")
"""Mesh axes, neighbouring devices last: `tensor` sends most and most often."""


@dataclasses.dataclass(frozen=True)
class MeshShape:
  """Sizes of the mesh axes; -1 takes the devices that the others leave.

  `data` copies the parameters and divides the batch, `fsdp` divides both,
  `tensor` divides the matrices of a layer, `context` the positions of a row,
  `expert` the experts of a mixture and the batch. `slices` is no axis: of so
  many TPU slices, which a slower network joins, each has its own part of
  `data`, so that gradients alone pass between them.
  """

  data: int = -1
  fsdp: int = 1
  tensor: int = 1
  context: int = 1
  expert: int = 1
  slices: int = 1


AnyMesh = Mesh | AbstractMesh


def make_mesh(
  shape: MeshShape,
  devices: Sequence[jax.Device] | int | None = None,
  *,
  ordered: bool = False,
) -> Any:
  """The mesh of a run.

  Sizes of 1, all of them given, are a mesh of one device, however many a single
  process has.

  Args:
    shape: its sizes.
    devices: default: all of them. A number stands for as many devices that need
      not be there: the mesh is abstract, enough to say where arrays would lie.
    ordered: takes them as they come, the last axis first, and not by how near
      they are to each other.
  Raises: UserError if the sizes do not fit the number of devices.
  """
  if isinstance(devices, int):
    sizes, _ = _sizes(shape, devices, alone=True)
    return AbstractMesh(sizes, AXES, (AxisType.Auto,) * len(AXES))
  devices = jax.devices() if devices is None else list(devices)
  alone = jax.process_count() == 1
  sizes, wanted = _sizes(shape, len(devices), alone=alone)
  grid = _grid(sizes, shape.slices, devices[:wanted], ordered)
  return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _grid(
  sizes: tuple[int, ...], slices: int, devices: Sequence[Any], ordered: bool
) -> np.ndarray:
  """The devices in an order in which near ones talk most."""
  there = {getattr(device, "slice_index", None) for device in devices}
  if slices > 1 and None in there:
    raise types.UserError(
      f"mesh.slices is {slices}, but {devices[0].platform} devices of the kind "
      f"{devices[0].device_kind!r} are in no slices; take 1"
    )
  if max(slices, 1) != len(there):
    raise types.UserError(
      f"mesh.slices is {slices}, but the {len(devices)} devices are of "
      f"{len(there)} slices; take {len(there)}"
    )
  if ordered:
    return np.array(devices).reshape(sizes)
  if slices > 1:
    within = (sizes[0] // slices, *sizes[1:])
    across = (slices, *(1,) * (len(sizes) - 1))
    return mesh_utils.create_hybrid_device_mesh(
      within, across, devices, allow_split_physical_axes=True
    )
  return mesh_utils.create_device_mesh(
    sizes, devices, allow_split_physical_axes=True
  )


def _sizes(
  shape: MeshShape, devices: int, *, alone: bool
) -> tuple[tuple[int, ...], int]:
  """The sizes of `AXES`, and how many of the devices they take."""
  sizes = {axis: getattr(shape, axis) for axis in AXES}
  free = [name for name, size in sizes.items() if size == -1]
  bad = {k: v for k, v in sizes.items() if v == 0 or v < -1}
  fixed = math.prod(size for size in sizes.values() if size != -1)
  if bad or len(free) > 1 or (free and devices % fixed):
    raise types.UserError(_no_mesh(sizes, devices))
  if free:
    sizes[free[0]] = devices // fixed
  if shape.slices < 1 or sizes["data"] % shape.slices:
    raise types.UserError(
      f"mesh.slices is {shape.slices}, which does not divide mesh.data "
      f"{sizes['data']}: each slice has its own part of it"
    )
  wanted = math.prod(sizes.values())
  if wanted != devices and not (alone and wanted == 1):
    raise types.UserError(_no_mesh(sizes, devices))
  return tuple(sizes.values()), wanted


TPU_OPTIONS = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}
"""Weights that `fsdp` divides are gathered, then multiplied.

By itself the TPU compiler turns such a product into a ring that multiplies
part after part and adds each to the whole result in memory; by the program of
an 8B teacher and a 1B student on 16 chips a step then moves 4.4 times the bytes
to and from HBM, and 1.9 times those between chips.
"""


def compiler_options(mesh: AnyMesh) -> dict[str, str] | None:
  """What XLA is told about a step on the mesh."""
  on_tpu = isinstance(mesh, Mesh) and mesh.devices.flat[0].platform == "tpu"
  return dict(TPU_OPTIONS) if on_tpu else None


def memory_kinds(mesh: AnyMesh) -> list[str]:
  """Kinds of memory that devices of the mesh reach; none if not there."""
  if isinstance(mesh, AbstractMesh):
    return []
  device = mesh.devices.flat[0]
  try:
    return sorted({memory.kind for memory in device.addressable_memories()})
  except (AttributeError, NotImplementedError, RuntimeError):
    return []  # a device of a topology that is only compiled for


def in_context(mesh: AnyMesh) -> Any:
  """Sets a mesh, abstract or not, for a `with` block."""
  if isinstance(mesh, AbstractMesh):
    return jax.sharding.use_abstract_mesh(mesh)
  return jax.set_mesh(mesh)


def _no_mesh(sizes: Mapping[str, int], devices: int) -> str:
  return (
    f"mesh {dict(sizes)} does not fit {devices} devices: sizes must multiply "
    f"to {devices}, with at most one -1 for the rest"
  )


def spec(
  axes: Sequence[str | None],
  shape: Sequence[int],
  mesh: AnyMesh,
  rules: Rules,
) -> PartitionSpec:
  """The partition of one array.

  A dimension that its mesh axis does not divide is whole on every device (see
  `uneven`), and a mesh axis serves the first of the dimensions that ask for it.
  """
  used: set[str] = set()
  parts: list[str | tuple[str, ...] | None] = []
  for axis, size in zip(axes, shape, strict=True):
    taken: list[str] = []
    for target in _targets(axis, mesh, rules):
      share = math.prod(mesh.shape[t] for t in (*taken, target))
      if target not in used and size % share == 0:
        taken.append(target)
    used |= set(taken)
    parts.append(tuple(taken) if len(taken) > 1 else (*taken, None)[0])
  while parts and parts[-1] is None:
    parts.pop()
  return PartitionSpec(*parts)


def _targets(axis: str | None, mesh: AnyMesh, rules: Rules) -> list[str]:
  """The mesh axes that a rule names; of several those that divide anything."""
  named = rules.get(axis) if axis is not None else None
  found = [t for t in (named or "").split("+") if t in mesh.axis_names]
  return [t for t in found if mesh.shape[t] > 1] or found[:1]


@dataclasses.dataclass(frozen=True)
class Uneven:
  """A logical axis that its rule cannot divide as it says.

  `divided` is how many parts it has instead, 1 where it is whole on every
  device; `parameters` have it.
  """

  axis: str
  size: int
  target: str
  parts: int
  divided: int
  parameters: tuple[str, ...]

  def __str__(self) -> str:
    below = self.size // self.parts * self.parts
    sizes = [n for n in (below, below + self.parts) if n]
    fits = [n for n in range(1, self.parts) if self.size % n == 0]
    more = f" and {len(self.parameters) - 1} more" * (len(self.parameters) > 1)
    place = "whole on every device"
    if self.divided > 1:
      place = f"in {self.divided} parts"
    return (
      f"{self.axis} {self.size} does not divide over {self.target} "
      f"{self.parts} and is {place} ({self.parameters[0]}{more}); "
      f"{_listed(sizes)} would divide, or {self.target} {_listed(fits)}"
    )


def uneven(
  axes: types.PyTree, shapes: types.PyTree, mesh: AnyMesh, rules: Rules
) -> list[Uneven]:
  """What `spec` leaves whole, or in fewer parts, though a rule divides it."""
  found: dict[tuple[str, int], list[str]] = {}
  flat, tree = jax.tree_util.tree_flatten_with_path(shapes)
  for (path, leaf), names in zip(flat, tree.flatten_up_to(axes), strict=True):
    for axis, size in zip(names, leaf.shape, strict=True):
      targets = _targets(axis, mesh, rules)
      if size % math.prod(mesh.shape[t] for t in targets):
        found.setdefault((axis, size), []).append(paths.name_of(path))
  return [
    Uneven(
      axis=axis,
      size=size,
      target="+".join(targets),
      parts=math.prod(mesh.shape[t] for t in targets),
      divided=size
      // NamedSharding(mesh, spec((axis,), (size,), mesh, rules)).shard_shape(
        (size,)
      )[0],
      parameters=tuple(names),
    )
    for (axis, size), names in found.items()
    for targets in (_targets(axis, mesh, rules),)
  ]


def check_rules(
  field: str, rules: Rules, axes: Sequence[types.PyTree], mesh: AnyMesh
) -> None:
  """Refuses rules that can have no effect.

  Args:
    field: where they come from.
    rules: to be checked.
    axes: logical axes of the models that they are for.
    mesh: of the run.
  Raises: UserError for a mesh axis that is not there, or a logical axis that
    no parameter has.
  """
  is_names = lambda x: isinstance(x, tuple)  # noqa: E731
  leaves = jax.tree.leaves(list(axes), is_leaf=is_names)
  known = sorted({name for names in leaves for name in names if name})
  for axis, target in rules.items():
    if axis not in known:
      raise types.UserError(
        f"{field}.{axis}: no parameter has this logical axis; there are "
        f"{', '.join(known)}{_hint(axis, known)}"
      )
    for name in (target or "").split("+"):
      if target and name not in mesh.axis_names:
        raise types.UserError(
          f"{field}.{axis} is {target!r}, but the mesh has no axis {name!r}; "
          f"it has {', '.join(mesh.axis_names)}{_hint(name, mesh.axis_names)}"
        )


def _hint(name: str, known: Sequence[str]) -> str:
  near = difflib.get_close_matches(name, known, 1)
  return f"; did you mean {near[0]}?" if near else ""


def _listed(numbers: Sequence[int]) -> str:
  return " or ".join(map(str, numbers))


def param_shardings(
  axes: types.PyTree,
  shapes: types.PyTree,
  mesh: AnyMesh,
  rules: Rules = DEFAULT_RULES,
) -> types.PyTree:
  """A sharding per parameter, from trees of logical axes and of shapes."""
  return jax.tree.map(
    lambda s, a: NamedSharding(mesh, spec(a, s.shape, mesh, rules)),
    shapes,
    axes,
  )


def placed(shapes: types.PyTree, places: types.PyTree) -> types.PyTree:
  """Shapes with the shardings that their arrays have."""
  return jax.tree.map(
    lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place),
    shapes,
    places,
  )


def replicated(mesh: AnyMesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def rows(mesh: AnyMesh) -> NamedSharding:
  """The sharding of whatever has the batch in front."""
  return NamedSharding(mesh, PartitionSpec(types.BATCH_AXES))


def num_row_shards(mesh: AnyMesh) -> int:
  return math.prod(mesh.shape[a] for a in types.BATCH_AXES)


def context_size(mesh: AnyMesh) -> int:
  """Parts that a row's positions are divided into."""
  return mesh.shape.get(types.CONTEXT_AXIS, 1)


def by_token(mesh: AnyMesh) -> NamedSharding:
  """The sharding of whatever has rows and positions in front."""
  if context_size(mesh) == 1:
    return rows(mesh)
  spec = PartitionSpec(types.BATCH_AXES, types.CONTEXT_AXIS)
  return NamedSharding(mesh, spec)


def of_view(view: types.View, mesh: AnyMesh) -> types.View:
  """A sharding for each array of a view of a batch, or of its shapes."""
  tokens = isinstance(view, types.Tokens)
  place = by_token(mesh) if tokens else rows(mesh)
  return jax.tree.map(lambda _: place, view)


def of_said(
  said: Mapping[str, Any],
  views: Mapping[str, types.View],
  mesh: AnyMesh,
) -> dict[str, Any]:
  """A sharding for each array that a model said of views, or of its shapes."""

  def of(x, view):
    front = view.targets.shape
    divided = len(front) > 1 and x.shape[: len(front)] == front
    return by_token(mesh) if divided else rows(mesh)

  return {
    name: jax.tree.map(lambda x, v=views[name]: of(x, v), outputs)
    for name, outputs in said.items()
  }


def of_batch(batch: types.Batch, mesh: AnyMesh) -> types.Batch:
  """A sharding for each array of a batch, or of its shapes.

  Views of tokens have rows and positions in front, the rest has rows.
  """
  by_row = rows(mesh)
  return types.Batch(
    views={name: of_view(view, mesh) for name, view in batch.views.items()},
    data=jax.tree.map(lambda _: by_row, batch.data),
    example_id=by_row,
    said={k: of_said(v, batch.views, mesh) for k, v in batch.said.items()},
  )


def place_rows(tree: types.PyTree, mesh: Mesh) -> types.PyTree:
  """Global arrays from each process's own rows, those of its `row_share`."""
  if isinstance(tree, types.Batch):
    places = of_batch(tree, mesh)
  else:
    places = jax.tree.map(lambda _: rows(mesh), tree)
  count = _num_row_parts(mesh)

  def place(x, sharding):
    x = np.asarray(x)
    # The whole shape, as positions may be divided over processes too.
    whole = (x.shape[0] * count, *x.shape[1:])
    return jax.make_array_from_process_local_data(sharding, x, whole)

  return jax.tree.map(place, tree, places)


@functools.lru_cache(maxsize=16)
def _num_row_parts(mesh: Mesh) -> int:
  return row_share(mesh)["process_count"]


def row_share(mesh: jax.sharding.Mesh) -> dict[str, int]:
  """Which part of each batch this process reads, of how many.

  As `process_index` and `process_count` of a loader. Processes whose devices
  hold the same rows, as where `tensor` spans them, read the same part.

  Raises: UserError if devices are laid out so that processes overlap in part.
  """
  axes = [mesh.axis_names.index(name) for name in types.BATCH_AXES]
  count = math.prod(mesh.devices.shape[axis] for axis in axes)
  devices = np.moveaxis(mesh.devices, axes, range(len(axes)))
  held: dict[int, set[int]] = {}
  for row, holders in enumerate(devices.reshape(count, -1)):
    for device in holders:
      held.setdefault(device.process_index, set()).add(row)
  parts = sorted({tuple(sorted(rows)) for rows in held.values()})
  sizes = {len(part) for part in parts}
  if len(sizes) > 1 or sum(map(len, parts)) != count:
    raise types.UserError(
      f"mesh {dict(mesh.shape)}: the processes' devices hold rows {parts} of "
      f"{count}, which overlap; choose sizes so that whole processes share rows"
    )
  mine = tuple(sorted(held[jax.process_index()]))
  return {"process_index": parts.index(mine), "process_count": len(parts)}


def like(
  tree: types.PyTree,
  params: types.PyTree,
  shardings: types.PyTree,
  mesh: AnyMesh,
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
