# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters that wait in the host's memory until a layer needs them."""

from typing import Any

import jax

from jdistill import types

MEMORY = "pinned_host"
"""The kind of memory, as jax calls it."""


def place(sharding: jax.sharding.Sharding, stacked: types.Leaf) -> Any:
  """Where a parameter of all layers of a segment lies.

  Vectors [L, D] stay on the device: a TPU cannot fetch one row of a bfloat16
  tile, in which two lie, and they are small.
  """
  if len(stacked.shape) < 3:
    return sharding
  return sharding.with_memory_kind(MEMORY)


def fetched(tree: types.PyTree) -> types.PyTree:
  """Traced arrays in device memory, those that lie there as they are."""

  def fetch(x):
    space = getattr(jax.typeof(x), "memory_space", None)
    if space != jax.memory.Space.Host:
      return x
    return jax.device_put(x, jax.memory.Space.Device)

  return jax.tree.map(fetch, tree)
