# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Where the arrays of a run lie on its mesh, for people and programs.

Nothing is loaded and nothing compiled, and the devices need not be there.
"""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jdistill import cached, data, paths, pretrained, run, types
from jdistill import config as config_lib
from jdistill.models import host

if TYPE_CHECKING:
  from rich.console import Group


def layout(
  config: config_lib.Config,
  *,
  devices: int | None = None,
  beside: pretrained.Beside = None,
) -> dict[str, Any]:
  """What `of_run` says of a config.

  Args:
    config: of the run; ArrayData is opened, texts are not.
    devices: how many there shall be; default: those of this machine.
    beside: where other stages are that its references name.
  Raises: UserError for whatever in the config does not fit together.
  """
  models = run.find_models(config, beside=beside)
  count = len(jax.devices()) if devices is None else devices
  if count < 1:
    raise types.UserError(f"devices is {count}; a mesh needs at least 1")
  batch = batch_shapes(config.data, config.group_size, models.said)
  return of_run(run.build(config, models, batch, devices=count))


def batch_shapes(
  spec: data.Data,
  group_size: int = 1,
  said: Mapping[str, cached.Said] | None = None,
) -> types.Batch:
  """Shapes of the global batch; only data without a seq_len are opened.

  `said` are teachers that have spoken before.
  """
  length = getattr(spec, "seq_len", None)
  if length is None:
    loader = data.load(spec, None, seed=0, beside=cached.beside(said or {}))
    local = run.to_batch(next(loader), group_size, said)
    loader.close()
    return run.batch_shapes(spec, local, group_size)
  count = spec.batch_size * group_size

  def view(size: int) -> types.Tokens:
    ids = jax.ShapeDtypeStruct((count, size), np.int32)
    mask = jax.ShapeDtypeStruct(ids.shape, np.float32)
    return types.Tokens(ids, ids, mask, ids, ids)

  sizes = {"student": length, **spec.views()}
  rows = jax.ShapeDtypeStruct((count,), np.int32)
  further = {
    name: jax.ShapeDtypeStruct((count, *shape), np.int32)
    for name, shape in spec.further().items()
  }
  if group_size > 1:
    further["group"] = rows
  spoken = {
    name: {
      "student": one.format.signal(
        {
          k: jax.ShapeDtypeStruct((count, *x.shape), x.dtype)
          for k, x in one.blank((length,)).items()
        },
        one.rest,
      )
    }
    for name, one in (said or {}).items()
  }
  views: dict[str, types.View] = {k: view(size) for k, size in sizes.items()}
  return types.Batch(views, further, rows, spoken)


def of_run(built: run.Run) -> dict[str, Any]:
  """A run's arrays, as JSON.

  Returns: `mesh` (sizes by axis), `parameters` (for each of the student, the
    teachers and the method: `model`, `name`, `shape`, `dtype`, `axes`, `spec`,
    `bytes`, `bytes_per_device` and the `memory` that these lie in), `totals`
    (`bytes` and `bytes_per_device` of each of these, of the `optimizer`'s state
    and of what is kept beside it; `host_bytes` are those of each device that
    lie in the host's memory), `bytes_per_device` of all, and `uneven`: lines
    about what does not divide. `apart` has, by name, `mesh` and
    `bytes_per_device` of the teachers on devices of their own, where the rest
    is not; the head of one, on the run's mesh, is `NAME/head`.
  """
  models, state = built.models, built.state_shapes
  places = built.state_shardings
  trees = {
    "student": (
      models.student.axes(),
      state.params["student"],
      places.params["student"],
    )
  }
  for name, shapes in built.teacher_shapes().items():
    axes = models.teachers[name].architecture.axes()
    trees[name] = (axes, shapes, built.teacher_shardings[name])
    if name in built.parts:
      part = built.parts[name]
      head = (part.head_axes, part.head_shapes, part.head_shardings)
      trees[f"{name}/head"] = head
  own = state.params["method"]
  nameless = jax.tree.map(lambda s: (None,) * len(s.shape), own)
  trees["method"] = (nameless, own, places.params["method"])
  rows = [row for name, tree in trees.items() for row in _rows(name, *tree)]
  totals = {name: _sum(*tree[1:]) for name, tree in trees.items()}
  totals["optimizer"] = _sum(state.opt_state, places.opt_state)
  totals["kept"] = _sum(state.extra, places.extra)
  totals = {name: total for name, total in totals.items() if total["bytes"]}
  return {
    "mesh": dict(built.mesh.shape),
    "parameters": rows,
    "totals": totals,
    "bytes_per_device": sum(
      total["bytes_per_device"]
      for name, total in totals.items()
      if name not in built.parts
    ),
    "apart": {
      name: {
        "mesh": dict(part.mesh.shape),
        "bytes_per_device": totals[name]["bytes_per_device"],
      }
      for name, part in built.parts.items()
    },
    "uneven": [
      f"{name}: {one}" for name, ones in built.uneven().items() for one in ones
    ],
  }


def _rows(model: str, axes, shapes, places) -> Iterable[dict[str, Any]]:
  flat, tree = jax.tree_util.tree_flatten_with_path(shapes)
  for (path, leaf), names, place in zip(
    flat, tree.flatten_up_to(axes), tree.flatten_up_to(places), strict=True
  ):
    parts = [
      [part] if isinstance(part, str) else list(part or ())
      for part in place.spec
    ]
    yield {
      "model": model,
      "name": paths.name_of(path),
      "shape": list(leaf.shape),
      "dtype": str(leaf.dtype),
      "axes": list(names),
      "spec": parts + [[]] * (len(leaf.shape) - len(parts)),
      "bytes": _bytes(leaf),
      "bytes_per_device": _bytes(leaf, place),
      "memory": "host" if _on_host(place) else "device",
    }


def _sum(shapes, places) -> dict[str, int]:
  leaves, tree = jax.tree.flatten(shapes)
  total = {"bytes": sum(map(_bytes, leaves)), "bytes_per_device": 0}
  for leaf, place in zip(leaves, tree.flatten_up_to(places), strict=True):
    key = "host_bytes" if _on_host(place) else "bytes_per_device"
    total[key] = total.get(key, 0) + _bytes(leaf, place)
  return total


def _on_host(place: jax.sharding.Sharding) -> bool:
  return place.memory_kind == host.MEMORY


def _bytes(leaf: Any, place: jax.sharding.Sharding | None = None) -> int:
  shape = leaf.shape if place is None else place.shard_shape(leaf.shape)
  return math.prod(shape) * np.dtype(leaf.dtype).itemsize


def holders(
  row: dict[str, Any], mesh: dict[str, int]
) -> dict[tuple[int, ...], list[int]]:
  """Which devices hold which part of a parameter.

  Args:
    row: one of `parameters`.
    mesh: sizes by axis.
  Returns: for each part, by its number along every dimension, the devices, by
    their number in the mesh, the last axis counted first.
  """
  found: dict[tuple[int, ...], list[int]] = {}
  for device, at in enumerate(np.ndindex(*mesh.values())):
    where = dict(zip(mesh, at, strict=True))
    part = []
    for axes in row["spec"]:
      number = 0
      for axis in axes:
        number = number * mesh[axis] + where[axis]
      part.append(number)
    found.setdefault(tuple(part), []).append(device)
  return found


def table(found: dict[str, Any]) -> "Group":
  """What `of_run` returns, for a terminal."""
  from rich.console import Group
  from rich.table import Table
  from rich.text import Text

  made = Table(box=None, pad_edge=False)
  made.add_column("parameter", no_wrap=True)
  made.add_column("dimensions, their axes -> what divides them")
  made.add_column("a device", justify="right", no_wrap=True)
  last = None
  for row in found["parameters"]:
    if row["model"] != last:
      last = row["model"]
      made.add_row(f"[bold]{last}[/bold]")
    size = size_text(row["bytes_per_device"])
    if row["memory"] == "host":
      size = f"(host) {size}"
    made.add_row(row["name"], dimensions(row), size)
  sums = Table(box=None, pad_edge=False)
  for column in ("", "in all", "a device", "on its host"):
    sums.add_column(column, justify="right" if column else "left")
  for name, total in found["totals"].items():
    host_bytes = total.get("host_bytes", 0)
    both = (total["bytes"], total["bytes_per_device"])
    more = [size_text(host_bytes)] if host_bytes else []
    sums.add_row(name, *map(size_text, both), *more)
  everything = sum(
    total["bytes"]
    for name, total in found["totals"].items()
    if name not in found["apart"]
  )
  both = (everything, found["bytes_per_device"])
  sums.add_row("[bold]together[/bold]", *map(size_text, both))
  notes = [f"mesh of {mesh_text(found['mesh'])}"]
  notes += [
    f"{name} has a mesh of its own, of {mesh_text(part['mesh'])}; the line "
    "together is without it"
    for name, part in found["apart"].items()
  ]
  notes += found["uneven"]
  return Group(made, "", sums, "", *map(Text, notes))


def mesh_text(mesh: Mapping[str, int]) -> str:
  """The devices of a mesh and its sizes: `8: data 4, fsdp 2, ...`."""
  sizes = ", ".join(f"{k} {v}" for k, v in mesh.items())
  return f"{math.prod(mesh.values())}: {sizes}"


def dimensions(row: dict[str, Any]) -> str:
  """A parameter's shape: `576 embed -> fsdp, 3 kv_heads, 64 head_dim`."""
  said = []
  for size, axis, parts in zip(
    row["shape"], row["axes"], row["spec"], strict=True
  ):
    name = f" {axis}" if axis else ""
    over = f" -> {'+'.join(parts)}" if parts else ""
    said.append(f"{size}{name}{over}")
  return ", ".join(said) or "one number"


def size_text(size: int) -> str:
  """Bytes for people, in powers of 1024."""
  for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
    if size >= factor:
      return f"{size / factor:,.1f} {unit}"
  return f"{size} B"
