# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Rows whose positions are divided over the mesh in context.

With a `types.CONTEXT_AXIS` of several devices each of them has its own
positions of a row, and queries stay where they are; keys and values are
gathered, so that attention, masks and windows are those of the whole row.
"""

import math
from typing import Any

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Shaped

from jdistill import types

FREE = PartitionSpec.UNCONSTRAINED


def parts(length: int) -> int:
  """How many parts rows of so many positions are divided into."""
  size = types.axis_size(types.CONTEXT_AXIS)
  return size if length % size == 0 else 1


def divided(x: Shaped[Array, "B T *D"]) -> Shaped[Array, "B T *D"]:
  """Each device its own positions."""
  if parts(x.shape[1]) == 1:
    return x
  return _constrained(x, types.CONTEXT_AXIS)


def embedded(x: Shaped[Array, "B T D"]) -> Shaped[Array, "B T D"]:
  """Each device its own rows and positions of what a table was read for.

  A table divided by width over `fsdp+context` gives every device a part of the
  width of all tokens. The compiler can exchange one axis at a time; left to
  itself it gathers everything everywhere first.
  """
  if parts(x.shape[1]) == 1:
    return x
  rows, context = types.BATCH_AXES, types.CONTEXT_AXIS
  others = tuple(axis for axis in rows if axis != "fsdp")
  x = _where_it_divides(x, (others, (context,), ("fsdp",)))
  return _where_it_divides(x, (rows, (context,), ()))


def gathered(x: Shaped[Array, "B T *D"]) -> Shaped[Array, "B T *D"]:
  """Each device all positions; the gradient goes back in parts."""
  if parts(x.shape[1]) == 1:
    return x
  # Both, so that the gradient's sum over devices is divided right away.
  return _constrained(divided(x), None)


def rows(x: Shaped[Array, "*B"]) -> Shaped[Array, "*B"]:
  """Each device its own rows, where they divide."""
  return _where_it_divides(x, (types.BATCH_AXES,))


def cached(x: Shaped[Array, "L B S N Dh"]) -> Shaped[Array, "L B S N Dh"]:
  """Keys or values of all layers: each device its own rows and heads."""
  return _where_it_divides(x, ((), types.BATCH_AXES, (), (types.HEADS_AXIS,)))


def _constrained(x: jax.Array, positions: str | None) -> jax.Array:
  spec = PartitionSpec(FREE, positions, *(FREE,) * (x.ndim - 2))
  return jax.lax.with_sharding_constraint(x, spec)


def _where_it_divides(
  x: jax.Array, over: tuple[tuple[str, ...], ...]
) -> jax.Array:
  """Constrains the first dimensions to mesh axes that divide them; those
  without any are whole on every device, the rest is left free."""
  if jax.sharding.get_abstract_mesh().empty:
    return x
  spec: list[Any] = [FREE] * x.ndim
  for place, axes in enumerate(over):
    axes = tuple(axis for axis in axes if types.axis_size(axis) > 1)
    if x.shape[place] % math.prod(map(types.axis_size, axes)) == 0:
      spec[place] = axes or None
  return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec))
