# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Teachers that have spoken before: what is left of them in a run."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from jdistill import types
from jdistill.models.base import Architecture

HEAD = "head.safetensors"
_ARRAYS = ("weight", "bias", "scale")


@dataclasses.dataclass(frozen=True)
class Silent(Architecture):
  """A teacher of which nothing is left; all it said is in the batches."""

  size: int

  @property
  def vocab_size(self) -> int:
    return self.size

  def init(self, key: jax.Array) -> types.PyTree:
    del key
    return {}

  def axes(self) -> types.PyTree:
    return {}

  def bind(self, params: types.PyTree) -> types.Model:
    del params
    return _asked


@dataclasses.dataclass(frozen=True)
class HeadOnly(Architecture):
  """A teacher whose hidden states are in the batches: its head is left.

  Without a `width` the hidden states are the logits.
  """

  size: int
  width: int | None
  dtype: str = "float32"
  bias: bool = False
  scale: bool = False
  soft_cap: float | None = None

  @property
  def vocab_size(self) -> int:
    return self.size

  def init(self, key: jax.Array) -> types.PyTree:
    if self.width is None:
      return types.IdentityHead(self.size)
    weight = jax.random.normal(key, (self.size, self.width), self.dtype)
    return types.Head(
      weight,
      jnp.zeros(self.size, self.dtype) if self.bias else None,
      jnp.ones((), self.dtype) if self.scale else None,
      self.soft_cap,
    )

  def axes(self) -> types.PyTree:
    if self.width is None:
      return types.IdentityHead(self.size)
    return types.Head(
      ("vocab", "embed"),
      ("vocab",) if self.bias else None,
      () if self.scale else None,
      self.soft_cap,
    )

  def bind(self, params: types.PyTree) -> types.Model:
    del params
    return _asked


def of_head(head: Any) -> dict[str, Any]:
  """What a manifest says of a head, or of its shapes.

  Raises: UserError for a head of another kind.
  """
  if isinstance(head, types.IdentityHead):
    return {"size": head.size, "width": None}
  if not isinstance(head, types.Head):
    raise types.UserError(
      f"the teacher's head is a {type(head).__name__}, which cannot be kept; "
      "take --format top_k or sampled"
    )
  size, width = head.weight.shape
  return {
    "size": size,
    "width": width,
    "dtype": str(head.weight.dtype),
    "bias": head.bias is not None,
    "scale": head.scale is not None,
    "soft_cap": head.soft_cap,
  }


def left(manifest: Mapping[str, Any]) -> Architecture:
  """What is left of a teacher whose cache has this manifest."""
  if manifest.get("head") is None:
    return Silent(manifest["vocab_size"])
  try:
    return HeadOnly(**manifest["head"])
  except TypeError as error:
    raise types.UserError(
      f"the manifest of a cache has no head that can be read ({error}); write "
      "the cache again"
    ) from error


def save_head(directory: pathlib.Path, head: Any) -> None:
  """Writes the arrays of a head, whole, beside the records."""
  if isinstance(head, types.IdentityHead):
    return
  arrays = {name: getattr(head, name) for name in _ARRAYS}
  kept = {k: np.asarray(v) for k, v in arrays.items() if v is not None}
  half = directory / f"{HEAD}.tmp"
  safetensors.numpy.save_file(kept, half)
  os.replace(half, directory / HEAD)


def load_head(
  directory: pathlib.Path, shapes: types.PyTree, places: types.PyTree | None
) -> types.PyTree:
  """Reads a head onto its shardings; {} where nothing is left of a teacher.

  Raises: UserError for a file that is not there, or of another head.
  """
  if not isinstance(shapes, types.Head):
    return shapes
  path = directory / HEAD
  try:
    kept = safetensors.numpy.load_file(path)
  except (OSError, safetensors.SafetensorError) as error:
    raise types.UserError(
      f"{path}: the teacher's head cannot be read: {error}"
    ) from error

  def one(name, shape, place):
    if shape is None:
      return None
    found = kept.get(name)
    if found is None or found.shape != shape.shape:
      raise types.UserError(
        f"{path}: has no {name} of shape {shape.shape}; it belongs to another "
        "cache"
      )
    found = found.astype(shape.dtype)
    if place is None:
      return jnp.asarray(found)
    return jax.make_array_from_callback(
      shape.shape, place, lambda index: found[index]
    )

  arrays = {
    name: one(
      name,
      getattr(shapes, name),
      None if places is None else getattr(places, name),
    )
    for name in _ARRAYS
  }
  return types.Head(**arrays, soft_cap=shapes.soft_cap)


def _asked(view: types.View, want: tuple[str, ...] = (), **kwargs: Any):
  del view, want, kwargs
  raise types.UserError(
    "a teacher whose words are cached is asked for more than the cache has"
  )
