# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters that wait in the host's memory until a layer needs them."""

import jax

from jdistill import types

MEMORY = "pinned_host"
"""The kind of memory, as jax calls it."""


def fetched(tree: types.PyTree) -> types.PyTree:
  """Traced arrays in device memory, those that lie there as they are."""

  def fetch(x):
    space = getattr(jax.typeof(x), "memory_space", None)
    if space != jax.memory.Space.Host:
      return x
    return jax.device_put(x, jax.memory.Space.Device)

  return jax.tree.map(fetch, tree)
