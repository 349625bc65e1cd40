# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A number for the content of each array, wherever its parts live."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jdistill import paths, types


def of(tree: types.PyTree) -> dict[str, int]:
  """32 bits by name, the same on any mesh and any number of processes.

  Sums of integers modulo 2 ** 32 do not depend on their order, and odd weights
  by place let no single element change unnoticed.
  """
  flat, _ = jax.tree_util.tree_flatten_with_path(tree)
  names = [paths.name_of(path) for path, _ in flat]
  found = jax.device_get(_all([leaf for _, leaf in flat]))
  return dict(zip(names, map(int, found), strict=True))


@jax.jit
def _all(leaves: list[jax.Array]) -> list[jax.Array]:
  return [_one(leaf) for leaf in leaves]


def _one(x: jax.Array) -> jax.Array:
  if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
    x = jax.random.key_data(x)
  if x.dtype == bool:
    x = x.astype(jnp.uint8)
  bits = jnp.dtype(f"uint{8 * min(x.dtype.itemsize, 4)}")
  x = jax.lax.bitcast_convert_type(x, bits)  # wider ones get one more axis
  place = jnp.zeros((), jnp.uint32)
  for axis in range(x.ndim):
    stride = math.prod(x.shape[axis + 1 :]) % (1 << 32)
    iota = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    place = iota * np.uint32(stride) + jnp.broadcast_to(place, x.shape)
  return jnp.sum(x.astype(jnp.uint32) * (2 * place + 1), dtype=jnp.uint32)
