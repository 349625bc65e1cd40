# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Weights from a file straight to where they are computed with."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdistill import types
from jdistill.models import quantised
from jdistill.models.decoder import DecoderConfig
from jdistill.models.weights import gguf, huggingface, layout
from jdistill.refs import Located
from jdistill.types import UserError


def read_config(location: Located) -> DecoderConfig:
  """The architecture of a model on disk; no weight is read.

  Raises:
    UserError: the model is of a family that is not supported, or damaged.
  """
  if location.kind == "huggingface":
    return huggingface.read_config(location.path)
  return _open(location).config


def load(
  location: Located,
  *,
  dtype: str = "float32",
  shardings: types.PyTree | None = None,
) -> tuple[DecoderConfig, types.PyTree]:
  """Reads a model.

  Args:
    location: where it is.
    dtype: of the parameters; "int8" gives those of a config with that for
      `kernels`. What the model computes in is `config.dtype`, float32 here;
      replace it as you like.
    shardings: for each parameter (the tree of `config.shapes()`) a
      jax.sharding.Sharding; None puts all on the default device. Each device
      reads its own parts of each tensor, so the host holds about one
      parameter beside the model.
  Returns: the architecture and its parameters.
  Raises:
    UserError: as `read_config`; tensors that are missing, left over, or of
      another shape than the config says.
  """
  source = _open(location)
  leaves = layout.leaves(source.config, source.format)
  check(source, leaves)
  placed = {} if shardings is None else dict(layout.walk(shardings))
  default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  params: types.PyTree = {}
  for leaf in leaves:
    sharding = placed.get(leaf.path, default)
    node = params
    for key in leaf.path[:-1]:
      node = node.setdefault(key, {})
    node[leaf.path[-1]] = _stored(source, leaf, sharding, dtype)
  return source.config, params


def check(source: layout.Source, leaves: list[layout.Leaf]) -> None:
  """Compares a file's tensors with those of the config, by name and shape."""
  expected = {name: leaf.file_shape for leaf in leaves for name in leaf.tensors}
  missing = sorted(expected.keys() - source.shapes.keys())
  if missing:
    raise UserError(
      f"{source.location}: tensor {missing[0]!r} is missing"
      f" (and {len(missing) - 1} more); the config asks for"
      f" {len(expected)} tensors and there are {len(source.shapes)}"
    )
  extra = sorted(source.shapes.keys() - expected.keys())
  if extra:
    raise UserError(
      f"{source.location}: tensor {extra[0]!r} (and {len(extra) - 1} more) has"
      " no place in the model that the config describes"
    )
  for name, shape in expected.items():
    if tuple(source.shapes[name]) != shape:
      raise UserError(
        f"{source.location}: tensor {name!r} has shape"
        f" {tuple(source.shapes[name])}; the config asks for {shape}"
      )


def _open(location: Located) -> layout.Source:
  match location.kind:
    case "gguf":
      return gguf.GgufSource(location.path)
    case "huggingface":
      return huggingface.HuggingFaceSource(location.path)
  raise UserError(
    f"{location.path}: weights of kind {location.kind!r} are not read here;"
    " expected huggingface or gguf"
  )


def _stored(
  source: layout.Source, leaf: layout.Leaf, sharding: Any, dtype: str
) -> Any:
  """One parameter on its devices, an int8 kernel by way of its floats."""
  if dtype != "int8":
    return _place(source, leaf, sharding, jnp.dtype(dtype))
  if not leaf.inputs:
    return _place(source, leaf, sharding, jnp.dtype(quantised.REST))
  place = getattr(sharding, "qvalue", sharding)
  kernel = _place(source, leaf, place, jnp.dtype(jnp.float32))
  # At once: the floats of the next one need the room.
  return jax.block_until_ready(
    quantised.quantise(kernel, leaf.inputs, sharding)
  )


def _place(
  source: layout.Source,
  leaf: layout.Leaf,
  sharding: jax.sharding.Sharding,
  dtype: np.dtype,
) -> jax.Array:
  """One parameter on its devices."""

  def part(index: tuple[slice, ...] | None) -> np.ndarray:
    index = (slice(None),) * len(leaf.shape) if index is None else index
    if not leaf.stacked:
      values = layout.read_layer(source, leaf, leaf.tensors[0], index)
      return np.ascontiguousarray(values, dtype)
    bounds = [
      range(*s.indices(n)) for s, n in zip(index, leaf.shape, strict=True)
    ]
    values = np.empty([len(b) for b in bounds], dtype)
    for at in np.ndindex(values.shape[: leaf.stacked]):
      entry = tuple(b[n] for b, n in zip(bounds, at, strict=False))
      values[at] = layout.read_layer(
        source, leaf, leaf.tensor(entry), index[leaf.stacked :]
      )
    return values

  return jax.make_array_from_callback(leaf.shape, sharding, part)
