# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters from somebody's own Orbax checkpoint.

Accepted as a directory: one saved tree (`StandardSave`, `PyTreeSave`, what
`flax.training.checkpoints` writes), one step of a `CheckpointManager` or of the
v1 API, or a directory of steps, of which the last is taken. Inside, parameters
may lie at the top or under "params", "model", "state" and the like beside an
optimizer's state, and NNX variables may carry a trailing "value".
"""

import os
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from jdistill import paths, types
from jdistill.models import base

ITEMS = ("default", "state", "params", "model", "pytree")
"""Names of the saved tree inside a step, the likely ones first."""

PLACES = (
  "",
  "params",
  "model",
  "state",
  "target",
  "state/params",
  "state/model",
  "model/params",
  "target/params",
)
"""Where parameters usually lie in the saved tree, the likely ones first."""


def load_orbax(
  directory: str | os.PathLike[str],
  architecture: base.Architecture,
  *,
  dtype: str | None = None,
  shardings: types.PyTree | None = None,
  under: str | None = None,
) -> types.PyTree:
  """Restores an architecture's parameters, each straight on its sharding.

  Args:
    directory: local or in a bucket, see above.
    architecture: whose `shapes()` say what is looked for.
    dtype: what numbers with a fraction are cast to as they are read; None
      takes the dtypes of `shapes()`, which the others get anyway.
    shardings: a `jax.sharding.Sharding` per parameter, in the same tree; one
      device by default.
    under: where in the saved tree the parameters lie, "ema_params" say; found
      by looking at the usual places when None.
  Returns: the parameters.
  Raises:
    UserError: no checkpoint there; parameters missing or of another shape, by
      name; more than one place in the saved tree that fits.
  """
  import orbax.checkpoint as ocp

  path = find_tree(directory)
  handler = ocp.PyTreeCheckpointHandler()
  try:
    saved = handler.metadata(path).tree
  except Exception as error:  # Orbax raises whatever its readers raise.
    raise types.UserError(
      f"{path}: the Orbax checkpoint cannot be read: {_first_line(error)}"
    ) from error
  found = _by_name(saved)
  flat, structure = jax.tree_util.tree_flatten_with_path(architecture.shapes())
  wanted = {paths.name_of(keys): _cast(leaf, dtype) for keys, leaf in flat}
  names = _choose(path, found, wanted, under)
  _check_shapes(path, found, wanted, names)
  if shardings is None:
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    places = dict.fromkeys(wanted, device)
  else:
    leaves = jax.tree.leaves(shardings)
    places = dict(zip(wanted, leaves, strict=True))
  restored = _restore(path, saved, wanted, names, places)
  return jax.tree.unflatten(structure, [restored[names[n]] for n in wanted])


def find_tree(directory: str | os.PathLike[str]) -> epath.Path:
  """The directory of the one saved tree that `directory` stands for.

  Raises: UserError if there is none, or several that are equally likely.
  """
  root = epath.Path(directory).expanduser()
  if not root.exists():
    raise types.UserError(f"orbax:{directory}: there is no such directory")
  if not root.is_dir():
    raise types.UserError(
      f"orbax:{directory}: found a file, expected a directory; a checkpoint of"
      " flax.serialization or flax's msgpack format has to be saved again with"
      " Orbax"
    )
  root = root.resolve() if "://" not in str(directory) else root
  tree = _tree_of(root)
  if tree is not None:
    return tree
  steps = []
  for child in root.iterdir():
    number = re.fullmatch(r"(?:.*[_-])?(\d+)", child.name)
    if number and child.is_dir():
      tree = _tree_of(child)
      if tree is not None:
        steps.append((int(number.group(1)), tree))
  if not steps:
    inside = ", ".join(sorted(child.name for child in root.iterdir())[:8])
    raise types.UserError(
      f"orbax:{directory}: found no Orbax checkpoint (a _METADATA file, here,"
      f" in an item or in a step's item); it holds: {inside or 'nothing'}"
    )
  return max(steps, key=lambda step: step[0])[1]


def _tree_of(path: epath.Path) -> epath.Path | None:
  if (path / "_METADATA").exists():
    return path
  # Of a directory of steps, each with a tree at once, this sees the steps.
  items = {
    child.name: child
    for child in path.iterdir()
    if not child.name.isdigit()
    and not re.search(r"[_-]\d+$", child.name)
    and (child / "_METADATA").exists()
  }
  for name in ITEMS:
    if name in items:
      return items[name]
  if len(items) > 1:
    raise types.UserError(
      f"orbax:{path}: found several saved trees ({', '.join(sorted(items))}):"
      " give the directory of the one that holds the parameters"
    )
  return next(iter(items.values()), None)


def _by_name(saved: Any) -> dict[str, Any]:
  """Leaves of the saved tree by path, without NNX's trailing "value"."""
  flat = jax.tree_util.tree_flatten_with_path(saved)[0]
  return {_name(keys): leaf for keys, leaf in flat}


def _name(keys: tuple[Any, ...]) -> str:
  name = paths.name_of(keys)
  stem, _, last = name.rpartition("/")
  return stem if stem and last in ("value", "raw_value") else name


def _choose(
  path: epath.Path,
  found: Mapping[str, Any],
  wanted: Mapping[str, Any],
  under: str | None,
) -> dict[str, str]:
  """For each wanted name the saved one, from the first place that has all."""
  places = PLACES if under is None else (under.strip("/"),)
  tried = []
  for place in places:
    for names in _candidates(place, wanted):
      missing = [want for want, name in names.items() if name not in found]
      if not missing:
        return names
      tried.append((len(missing), missing, names))
  if under is None:
    elsewhere = _elsewhere(found, wanted)
    if elsewhere:
      raise types.UserError(
        f"orbax:{path}: found the parameters under"
        f" {' and '.join(map(repr, elsewhere))}, expected one of the usual"
        f" places ({', '.join(repr(p) for p in PLACES if p)}, or the top): say"
        " which with under="
      )
  _, missing, names = min(tried, key=lambda one: one[0])
  raise types.UserError(
    f"orbax:{path}: {len(missing)} of {len(wanted)} parameters are missing,"
    f" among them {names[missing[0]]!r}; the checkpoint has"
    f" {_some(found)}: the module and the checkpoint do not belong together, or"
    " the parameters lie elsewhere (under=)"
  )


def _candidates(place: str, wanted: Mapping[str, Any]) -> list[dict[str, str]]:
  """Saved names at one place: with collection names, and without them."""
  prefix = f"{place}/" if place else ""
  whole = {name: prefix + name for name in wanted}
  if not any(name.startswith("params/") for name in wanted):
    return [whole]
  bare = {name: prefix + name.partition("/")[2] for name in wanted}
  return [whole, bare]


def _elsewhere(
  found: Mapping[str, Any], wanted: Mapping[str, Any]
) -> list[str]:
  """Unusual places that hold everything, an optimizer's moments aside."""
  places = {
    "/".join(name.split("/")[:depth])
    for name in found
    for depth in range(1, name.count("/") + 1)
  }
  return sorted(
    place
    for place in places - set(PLACES)
    if not re.search(r"(^|/)(opt\w*|mu|nu|trace)(/|$)", place)
    and any(
      all(name in found for name in names.values())
      for names in _candidates(place, wanted)
    )
  )


def _check_shapes(
  path: epath.Path,
  found: Mapping[str, Any],
  wanted: Mapping[str, Any],
  names: Mapping[str, str],
) -> None:
  wrong = [
    f"{names[name]} is {tuple(found[names[name]].shape)}, expected {leaf.shape}"
    for name, leaf in wanted.items()
    if tuple(found[names[name]].shape) != leaf.shape
  ]
  if wrong:
    more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
    raise types.UserError(
      f"orbax:{path}: shapes do not fit the module: {'; '.join(wrong[:3])}"
      f"{more}: give the module the sizes it was trained with"
    )


def _restore(
  path: epath.Path,
  saved: Any,
  wanted: Mapping[str, Any],
  names: Mapping[str, str],
  places: Mapping[str, jax.sharding.Sharding],
) -> dict[str, jax.Array]:
  """Reads the chosen leaves, and only those, by saved name."""
  import orbax.checkpoint as ocp

  asked = {saved_name: name for name, saved_name in names.items()}

  def target(keys, leaf):
    del leaf
    name = asked.get(_name(keys))
    if name is None:
      return ocp.PLACEHOLDER
    shape = wanted[name]
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=places[name])

  def arguments(leaf):
    if leaf is ocp.PLACEHOLDER:
      return ocp.RestoreArgs()
    return ocp.ArrayRestoreArgs(
      dtype=leaf.dtype, sharding=leaf.sharding, global_shape=leaf.shape
    )

  item = jax.tree_util.tree_map_with_path(target, saved)
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
    try:
      tree = checkpointer.restore(
        path,
        args=ocp.args.PyTreeRestore(
          item=item, restore_args=jax.tree.map(arguments, item)
        ),
      )
    except Exception as error:  # Orbax raises whatever its readers raise.
      raise types.UserError(
        f"orbax:{path}: the checkpoint cannot be read: {_first_line(error)}"
      ) from error
  return {name: leaf for name, leaf in _by_name(tree).items() if name in asked}


def _cast(leaf: Any, dtype: str | None) -> jax.ShapeDtypeStruct:
  floating = jnp.issubdtype(leaf.dtype, jnp.floating)
  wanted = dtype if dtype is not None and floating else leaf.dtype
  return jax.ShapeDtypeStruct(leaf.shape, wanted)


def _some(found: Mapping[str, Any]) -> str:
  names = sorted(found)
  more = f" and {len(names) - 6} more" if len(names) > 6 else ""
  return ", ".join(names[:6]) + more


def _first_line(error: Exception) -> str:
  return f"{type(error).__name__}: {error}".splitlines()[0][:300]
