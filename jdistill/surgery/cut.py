# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Students that are some of their teacher's layers."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jdistill import types
from jdistill.models.decoder import DecoderConfig
from jdistill.types import UserError


def cut_layers(
  config: DecoderConfig, params: types.PyTree, keep: Sequence[int]
) -> tuple[DecoderConfig, types.PyTree]:
  """The model that has only these layers, weights and all.

  Every kept layer stays in its segment, with its own window and rope; a
  segment of which nothing is kept disappears. What is not a layer (embedding,
  final norm, head) is handed on as it is, not copied.

  Args:
    config: of the model.
    params: its parameters, as arrays or as jax.ShapeDtypeStruct.
    keep: layers counted from 0, ascending.
  Returns: the config and parameters of the smaller model.
  Raises:
    UserError: layers that do not exist, repeat, or are out of order.
  """
  keep = tuple(int(layer) for layer in keep)
  if not keep or list(keep) != sorted(set(keep)):
    raise UserError(
      f"layers to keep are {list(keep)}; expected at least one, ascending,"
      " none twice"
    )
  if keep[0] < 0 or keep[-1] >= config.num_layers:
    raise UserError(
      f"layers to keep are {list(keep)}, but the model has layers 0 to"
      f" {config.num_layers - 1}"
    )
  segments = []
  left = {k: v for k, v in params.items() if not k.startswith("segment_")}
  for n, (segment, first) in enumerate(
    zip(config.segments, config.offsets, strict=True)
  ):
    inside = range(first, first + segment.num_layers)
    rows = tuple(layer - first for layer in keep if layer in inside)
    if rows:
      left[f"segment_{len(segments)}"] = jax.tree.map(
        lambda leaf, rows=rows: _take(leaf, rows), params[f"segment_{n}"]
      )
      segments.append(segment.keep(rows))
  return dataclasses.replace(config, segments=tuple(segments)), left


def evenly_spaced(num_layers: int, count: int) -> tuple[int, ...]:
  """`count` of `num_layers` layers, first and last among them.

  The gaps differ by at most one. A single layer is the first.

  Raises:
    UserError: if `count` is not between 1 and `num_layers`.
  """
  if not 1 <= count <= num_layers:
    raise UserError(
      f"cannot keep {count} layers of {num_layers}: expected 1 to {num_layers}"
    )
  if count == 1:
    return (0,)
  # Integers only: halves must not depend on how floats round.
  last, gaps = num_layers - 1, count - 1
  return tuple((2 * n * last + gaps) // (2 * gaps) for n in range(count))


def _take(leaf: Any, rows: tuple[int, ...]) -> Any:
  """The rows of a stacked parameter, or its shape."""
  if isinstance(leaf, jax.ShapeDtypeStruct):
    return jax.ShapeDtypeStruct((len(rows), *leaf.shape[1:]), leaf.dtype)
  return leaf[np.asarray(rows)]
