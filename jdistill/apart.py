# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Teachers on devices of their own, beside those of the student.

Each process keeps devices of both kinds, so that rows stay on their host. The
layers of such a teacher are a program on its own mesh. What it says of a batch,
hidden states and features, moves to the mesh of the run and enters the step in
`Batch.said`; its head lies there already, so that the loss is what it is with
all on one mesh. Programs are dispatched without waiting: the teacher reads a
batch while the student is still at the one before.
"""

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdistill import distributed, sharding, step, types
from jdistill.config import Config
from jdistill.models.base import Architecture

Box = tuple[tuple[int, int], ...]
"""Where a part of an array begins and ends, along each of its axes."""

_NO_MESH = jax.sharding.Mesh(np.empty((), object), ())
"""For arrays of one device each, wherever it is."""


@types.pytree
class Weights:
  """Those of one teacher: whole on its mesh, and the head on the run's."""

  params: types.Leaf
  head: types.Leaf


def meshes(
  config: Config, devices: Sequence[jax.Device] | int | None = None
) -> tuple[Any, dict[str, Any]]:
  """The mesh of a run, and those of the teachers that have one.

  Args:
    config: the run.
    devices: default: all. A number stands for devices that are not there, of
      one process.
  Returns: the run's mesh and a mesh by the name of the teacher. With such
    teachers devices stand in the order of their processes, on all meshes.
  Raises: UserError for sizes that do not fit, the devices or each other.
  """
  own = {k: t.mesh for k, t in config.teachers.items() if t.mesh is not None}
  if not own:
    return sharding.make_mesh(config.mesh, devices), {}
  counts = {name: _count(name, shape) for name, shape in own.items()}
  if isinstance(devices, int):
    hosts: list[list[Any]] = [[None] * devices]
  else:
    devices = jax.devices() if devices is None else devices
    there = sorted(devices, key=_order)
    hosts = [list(g) for _, g in itertools.groupby(there, key=_order_of_hosts)]
  number = sum(map(len, hosts))
  taken = (
    ", ".join(f"teachers.{k}.mesh takes {n}" for k, n in counts.items())
    + f" of {number} devices"
  )

  found = {}
  for name, shape in own.items():
    part, rest = divmod(counts[name], len(hosts))
    if rest:
      raise types.UserError(
        f"teachers.{name}.mesh takes {counts[name]} devices, which do not "
        f"divide over {len(hosts)} processes; take a multiple of {len(hosts)}"
      )
    if any(len(host) <= part for host in hosts):
      raise types.UserError(
        f"{taken}, which leaves none for the student, or none in one of the "
        "processes; take smaller sizes"
      )
    with _told(f"teachers.{name}."):
      found[name] = _made(shape, [host[-part:] for host in hosts])
    hosts = [host[:-part] for host in hosts]
  with _told("", f" ({taken})"):
    mesh = _made(config.mesh, hosts)
  if not isinstance(devices, int):
    for name, other in found.items():
      _check_hosts(name, mesh, other)
  return mesh, found


def _made(shape: sharding.MeshShape, hosts: Sequence[Sequence[Any]]) -> Any:
  devices = [device for host in hosts for device in host]
  there = len(devices) if devices[0] is None else devices
  return sharding.make_mesh(shape, there, ordered=True)


@contextlib.contextmanager
def _told(before: str, after: str = "") -> Iterator[None]:
  """Says more of a mesh that cannot be."""
  try:
    yield
  except types.UserError as error:
    raise types.UserError(f"{before}{error}{after}") from error


def _order(device: Any) -> tuple[int, int, int]:
  return *_order_of_hosts(device), device.id


def _order_of_hosts(device: Any) -> tuple[int, int]:
  return getattr(device, "slice_index", None) or 0, device.process_index


def _count(name: str, shape: sharding.MeshShape) -> int:
  """The devices of a teacher's mesh, which are not for what others leave."""
  sizes = {axis: getattr(shape, axis) for axis in sharding.AXES}
  if min(sizes.values()) < 1:
    raise types.UserError(
      f"teachers.{name}.mesh is {sizes}; expected sizes of at least 1, whose "
      "product is the number of devices that this teacher has for itself (-1 "
      "is for `mesh`, which takes what the teachers leave)"
    )
  return math.prod(sizes.values())


def _check_hosts(name: str, mesh: Any, other: Any) -> None:
  """Refuses meshes that divide a batch over the processes in two ways."""
  shape = [1, 1]
  for one in (mesh, other):
    sizes = sharding.num_row_shards(one), sharding.context_size(one)
    shape = [math.lcm(a, b) for a, b in zip(shape, sizes, strict=True)]

  def parts(one: Any) -> dict[int, set[tuple[int, ...]]]:
    held: dict[int, set[tuple[int, ...]]] = {}
    places = sharding.by_token(one).devices_indices_map(tuple(shape))
    for device, index in places.items():
      ranges = (range(*s.indices(n)) for s, n in zip(index, shape, strict=True))
      held.setdefault(device.process_index, set()).update(
        itertools.product(*ranges)
      )
    return held

  if parts(mesh) != parts(other):
    raise types.UserError(
      f"teachers.{name}.mesh {dict(other.shape)} and mesh {dict(mesh.shape)} "
      "give the processes different rows of a batch, and rows stay on their "
      "host; let tensor and context of both divide the devices of one process, "
      "or of the same number of processes"
    )


@dataclasses.dataclass(frozen=True)
class Part:
  """A teacher on its own mesh, and what it hands over to the mesh of the run.

  Attributes:
    architecture: of the teacher.
    mesh: its own.
    home: the mesh of the run.
    views: of a batch, what it reads of them in a train step.
    want: the features that are asked for in a train step.
    eval_want: those in an evaluation.
    microbatches: parts that it works a batch off in, as the student does.
    batch: shapes of the global batch.
    shapes: of its weights as they are stored.
    shardings: of its weights.
    rules: of the run, which say where its head lies.
  """

  architecture: Architecture
  mesh: Any
  home: Any
  views: tuple[str, ...]
  want: tuple[str, ...]
  eval_want: tuple[str, ...]
  microbatches: int
  batch: types.Batch
  shapes: types.PyTree
  shardings: types.PyTree
  rules: sharding.Rules

  @functools.cached_property
  def head_shapes(self) -> types.PyTree:
    with sharding.in_context(self.mesh):
      return jax.eval_shape(self._head, self.shapes)

  @functools.cached_property
  def head_axes(self) -> types.PyTree:
    """Logical axes of the head's arrays, where they are known."""
    head = self.head_shapes
    if not isinstance(head, types.Head):
      return jax.tree.map(lambda s: (None,) * len(s.shape), head)
    return dataclasses.replace(
      head,
      weight=("vocab", "embed"),
      bias=None if head.bias is None else ("vocab",),
      scale=None if head.scale is None else (),
    )

  @functools.cached_property
  def head_shardings(self) -> types.PyTree:
    """Where the head lies on the mesh of the run."""
    return sharding.param_shardings(
      self.head_axes, self.head_shapes, self.home, self.rules
    )

  def _head(self, params: types.PyTree) -> Any:
    view = jax.tree.map(
      lambda s: jnp.zeros(s.shape, s.dtype), self.batch["student"]
    )
    return self.architecture.for_evaluation().bind(params)(view).head

  def weights(self, load: Callable[[], types.PyTree]) -> Weights:
    """Weights on their meshes, from a function that loads them onto one."""
    with jax.set_mesh(self.mesh):
      params = load()
      head = jax.jit(self._head)(params)
      whole = distributed.whole_rows(head, self.mesh)
    head = jax.tree.map(
      lambda x, place: jax.make_array_from_callback(
        x.shape, place, lambda index: x[index]
      ),
      whole,
      self.head_shardings,
    )
    return Weights(params, head)

  @functools.cached_property
  def train_program(self) -> Any:
    """`program(params, views)` of a train step."""
    return self._program(self.want, self.microbatches)

  @functools.cached_property
  def eval_program(self) -> Any:
    """`program(params, views)` of an evaluation."""
    return self._program(self.eval_want, 1)

  def _program(self, want: tuple[str, ...], microbatches: int) -> Any:
    model = self.architecture.for_evaluation()

    def part(params, views):
      said = {k: model.bind(params)(v, want=want) for k, v in views.items()}
      return {
        k: dataclasses.replace(o, head=None, updates={})
        for k, o in said.items()
      }

    def forward(params, views):
      if microbatches == 1:
        said = part(params, views)
      else:
        said = step.join_rows(
          jax.lax.map(
            lambda some: part(params, some),
            step.split_rows(views, microbatches),
          )
        )
      return jax.lax.with_sharding_constraint(
        said, sharding.of_said(said, views, self.mesh)
      )

    return jax.jit(
      forward,
      in_shardings=(self.shardings, None),
      compiler_options=sharding.compiler_options(self.mesh),
    )

  def trace(self, batch: types.Batch) -> Any:
    """The traced program of a train step, from shapes of the global batch."""
    views = {k: batch[k] for k in self.views}
    places = sharding.of_batch(batch, self.mesh).views
    with sharding.in_context(self.mesh):
      return self.train_program.trace(
        self.shapes, sharding.placed(views, {k: places[k] for k in views})
      )

  def said(self, batch: types.Batch) -> dict[str, types.Outputs]:
    """Shapes of what it says in a train step, where they come to lie."""
    views = {k: batch[k] for k in self.views}
    with sharding.in_context(self.mesh):
      found = jax.eval_shape(self.train_program, self.shapes, views)
    return sharding.placed(found, sharding.of_said(found, views, self.home))

  def hear(
    self, program: Any, params: types.PyTree, views: Mapping[str, types.View]
  ) -> dict[str, types.Outputs]:
    """Has the teacher read views that lie on the mesh of the run.

    Returns: what it says of each, on the mesh of the run; nothing is waited
      for.
    """
    places = {k: sharding.of_view(v, self.mesh) for k, v in views.items()}
    with jax.set_mesh(self.mesh):
      said = program(params, move(dict(views), places))
    return move(said, sharding.of_said(said, views, self.home))


def heard(batch: types.Batch, parts: Mapping[str, Part]) -> types.Batch:
  """Shapes of a batch with what these teachers say of it in a train step."""
  said = {name: part.said(batch) for name, part in parts.items()}
  return dataclasses.replace(batch, said={**batch.said, **said})


@dataclasses.dataclass(frozen=True)
class Step:
  """A compiled step and the teachers whose outputs enter it.

  Called as the step is, with `Weights` for these teachers.
  """

  compiled: Any
  parts: Mapping[str, Part]
  training: bool

  def __call__(self, first, teacher_params, batch: types.Batch) -> Any:
    said = dict(batch.said)
    for name, part in self.parts.items():
      program, names = part.eval_program, ("student",)
      if self.training:
        program, names = part.train_program, part.views
      views = {k: batch[k] for k in names}
      said[name] = part.hear(program, teacher_params[name].params, views)
    near = {
      name: params.head if isinstance(params, Weights) else params
      for name, params in teacher_params.items()
    }
    return self.compiled(first, near, dataclasses.replace(batch, said=said))

  def trace(self, first, teacher_shapes, batch: types.Batch) -> Any:
    """The traced step on the run's mesh, from shapes."""
    heads = {name: part.head_shapes for name, part in self.parts.items()}
    return self.compiled.trace(
      first, teacher_shapes | heads, heard(batch, self.parts)
    )


def move(tree: types.PyTree, places: types.PyTree) -> types.PyTree:
  """Arrays on another mesh, whose devices of a process want what it holds.

  Device to device, nothing waited for and nothing through the host.
  """
  with jax.set_mesh(_NO_MESH):
    return _moved(tree, places)


def _moved(tree: types.PyTree, places: types.PyTree) -> types.PyTree:
  arrays, structure = jax.tree.flatten(tree)
  targets = structure.flatten_up_to(places)
  parts, devices, counts = [], [], []
  for array, place in zip(arrays, targets, strict=True):
    held: dict[Box, list[jax.Array]] = {}
    for shard in array.addressable_shards:
      held.setdefault(_box(shard.index, array.shape), []).append(shard.data)
    wanted = place.addressable_devices_indices_map(array.shape)
    for turn, (device, index) in enumerate(wanted.items()):
      some = {box: them[turn % len(them)] for box, them in held.items()}
      found = list(_pieces(some, _box(index, array.shape)))
      parts += [data for _, data in found]
      devices += [device] * len(found)
      counts.append([box for box, _ in found])
  sent = iter(jax.device_put(parts, devices))
  joined = (_join({box: next(sent) for box in boxes}) for boxes in counts)
  moved = [
    jax.make_array_from_single_device_arrays(
      array.shape,
      place,
      list(itertools.islice(joined, len(place.addressable_devices))),
    )
    for array, place in zip(arrays, targets, strict=True)
  ]
  return jax.tree.unflatten(structure, moved)


def _box(index: tuple[slice, ...], shape: Sequence[int]) -> Box:
  return tuple(
    s.indices(size)[:2] for s, size in zip(index, shape, strict=True)
  )


def _pieces(held: Mapping[Box, jax.Array], wanted: Box):
  """What of each part belongs to the wanted one, and where it lies."""
  for box, data in held.items():
    both = tuple(
      (max(a, c), min(b, d)) for (a, b), (c, d) in zip(box, wanted, strict=True)
    )
    if any(begin >= end for begin, end in both):
      continue
    if both != box:
      data = data[
        tuple(
          slice(begin - a, end - a)
          for (begin, end), (a, _) in zip(both, box, strict=True)
        )
      ]
    yield both, data


def _join(parts: dict[Box, jax.Array], axis: int = 0) -> jax.Array:
  """One array of parts that lie side by side."""
  if len(parts) == 1:
    [only] = parts.values()
    return only
  rows: dict[tuple[int, int], dict[Box, jax.Array]] = {}
  for box, data in parts.items():
    rows.setdefault(box[axis], {})[box] = data
  joined = [_join(rows[key], axis + 1) for key in sorted(rows)]
  return joined[0] if len(joined) == 1 else jnp.concatenate(joined, axis)
