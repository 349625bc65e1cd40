# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""NNX modules apart: nested dicts of arrays here, the structure there.

`make(rngs)` builds a module. Its structure is found once, by abstract
evaluation, and kept; afterwards a module with given arrays costs a merge. The
dicts have one entry per kind of variable, `{"params": {...}, ...}`, and below
it string keys along the module's attributes.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jdistill import types

Make = Callable[[nnx.Rngs], nnx.Module]


class Structure(NamedTuple):
  """A module without its arrays."""

  graph: Any  # nnx.GraphDef
  flat: tuple[tuple[tuple[Any, ...], Any], ...]  # (path, abstract variable)


@functools.lru_cache(maxsize=256)
def structure(make: Make) -> Structure:
  """The structure of the module that `make` builds; nothing is allocated."""
  found = []

  def build(key):
    graph, state = nnx.split(make(nnx.Rngs(key)))
    found.append(graph)
    return state

  # Sharding metadata are names for later, not for the mesh at hand.
  with nnx.use_eager_sharding(False):
    state = jax.eval_shape(build, jax.random.key(0))
  try:
    hash(found[0])
  except TypeError as error:
    raise types.UserError(
      "the NNX module keeps a plain array (or another unhashable value) in an"
      " attribute: wrap arrays in nnx.Variable(...) or nnx.data(...), and make"
      f" other values hashable ({error})"
    ) from None
  return Structure(found[0], tuple(nnx.to_flat_state(state)))


def init(make: Make, key: jax.Array) -> types.PyTree:
  """Draws the arrays."""
  with nnx.use_eager_sharding(False):
    return collections(make(nnx.Rngs(key)))


def collections(module: nnx.Module) -> types.PyTree:
  """The arrays of a module, random streams left out."""
  tree = {}
  for path, variable in nnx.to_flat_state(nnx.state(module)):
    if not isinstance(variable, nnx.RngState):
      _put(tree, (_collection(variable), *path), _value(variable))
  return tree


def axes(make: Make) -> types.PyTree:
  """A tuple of logical axis names per array, from the variables' metadata."""
  tree = {}
  for path, variable in structure(make).flat:
    if isinstance(variable, nnx.RngState):
      continue
    names = ()
    if isinstance(variable, nnx.Variable):
      names = variable.get_metadata().get("out_sharding") or ()
    leaves = jax.tree.map(
      lambda leaf, names=names: padded(names, leaf.ndim), _value(variable)
    )
    _put(tree, (_collection(variable), *path), leaves)
  return tree


def build(make: Make, tree: types.PyTree) -> nnx.Module:
  """The module with these arrays; random streams start from a fixed key."""
  graph, flat = structure(make)
  filled = []
  for path, variable in flat:
    if isinstance(variable, nnx.RngState):
      value = jax.tree.map(_fixed, _value(variable))
    else:
      value = functools.reduce(
        lambda node, key: node[str(key)], path, tree[_collection(variable)]
      )
    whole = isinstance(variable, nnx.Variable)
    filled.append((path, variable.replace(value) if whole else value))
  return nnx.merge(graph, nnx.from_flat_state(filled))


def flat_paths(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
  """The leaves of nested mappings by "a/b/c"; other containers are leaves."""
  flat = {}
  for key, value in tree.items():
    path = f"{prefix}{key}"
    if isinstance(value, Mapping):
      flat.update(flat_paths(value, f"{path}/"))
    else:
      flat[path] = value
  return flat


def padded(names: Any, ndim: int) -> tuple[str | None, ...]:
  """Axis names of a leaf, None for the axes that carry none."""
  return (*tuple(names), *(None,) * ndim)[:ndim]


def _collection(variable: Any) -> str:
  if not isinstance(variable, nnx.Variable):
    return "constants"
  if isinstance(variable, nnx.Param):
    return "params"
  if isinstance(variable, nnx.BatchStat):
    return "batch_stats"
  return type(variable).__name__


def _value(variable: Any) -> Any:
  if isinstance(variable, nnx.Variable):
    return variable.get_value()
  return variable


def _fixed(leaf: jax.ShapeDtypeStruct) -> jax.Array:
  if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    return jnp.broadcast_to(jax.random.key(0), leaf.shape)
  return jnp.zeros(leaf.shape, leaf.dtype)


def _put(tree: dict, path: tuple[Any, ...], value: Any) -> None:
  for key in path[:-1]:
    tree = tree.setdefault(str(key), {})
  tree[str(path[-1])] = value
