# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Products of rows with the matrix of their group, groups of any sizes.

Rows lie in the order of their groups. Nothing depends on how full a group is:
no row is dropped, and shapes stay the same.

On a TPU the kernels are those of Megablox, which come with JAX. Elsewhere a
loop takes one block of rows at a time. Of `jax.lax.ragged_dot` XLA's TPU
compiler makes a kernel, but not of its gradient with respect to the matrices,
and none on a CPU: there it multiplies every row with every group's matrix.
Rows behind the last group cost nothing.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from jdistill import types

PRODUCTS = "grouped_products"
"""The name of all results, for checkpoint policies."""

BLOCK = 64
"""Rows that the loop multiplies at a time."""


class Path(NamedTuple):
  """A way to compute: `product(x, kernels, sizes)` and, for each group, the sum
  over its rows of `outer(x, slope, sizes, dtype)` [E, D, F]."""

  product: Callable[..., jax.Array]
  outer: Callable[..., jax.Array]


class Parts(NamedTuple):
  """Kernels of which each device of a mesh axis has a part, under shard_map."""

  axis: str
  dimension: int


def matmul(
  x: Float[Array, "M D"],
  kernels: Float[Array, "E Dl Fl"],
  sizes: Int[Array, " E"],
  *,
  parts: Parts | None = None,
  path: Path | None = None,
) -> Float[Array, "M F"]:
  """Each row times the matrix of its group, in the dtype of `x`.

  Args:
    x: rows, those of group 0 first.
    kernels: a matrix for each group. Their gradient is summed in their own
      dtype.
    sizes: rows of each group. Rows behind the last group give zeros, and no
      gradient.
    parts: how kernels are divided, or None for whole ones. They are gathered
      to multiply, and the gradient goes back in parts.
    path: how to compute; None takes what the platform is good at.
  """
  if path is None:
    path = {"tpu": KERNELS, None: EITHER}.get(types.target_platform(), LOOPS)
  return checkpoint_name(_matmul(path, parts, x, kernels, sizes), PRODUCTS)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _matmul(path, parts, x, kernels, sizes):
  return grouped_product(path, x, _whole(kernels, x.dtype, parts), sizes)


# By their names a traced program can be counted, whatever the path.


@functools.partial(jax.jit, static_argnums=0)
def grouped_product(path, x, kernels, sizes):
  return path.product(x, kernels, sizes)


@functools.partial(jax.jit, static_argnums=(0, 4))
def grouped_outer(path, x, slope, sizes, dtype):
  return path.outer(x, slope, sizes, dtype)


def _forward(path, parts, x, kernels, sizes):
  return _matmul(path, parts, x, kernels, sizes), (x, kernels, sizes)


def _backward(path, parts, saved, slope):
  x, kernels, sizes = saved
  whole = _whole(kernels, x.dtype, parts)
  to_x = grouped_product(path, slope, whole.swapaxes(1, 2), sizes)
  to_kernels = grouped_outer(path, x, slope, sizes, kernels.dtype)
  if parts is not None:
    to_kernels = jax.lax.psum_scatter(
      to_kernels, parts.axis, scatter_dimension=parts.dimension, tiled=True
    )
  return to_x, to_kernels, None


_matmul.defvjp(_forward, _backward)


def _whole(kernels, dtype, parts):
  kernels = kernels.astype(dtype)
  if parts is None:
    return kernels
  return jax.lax.all_gather(
    kernels, parts.axis, axis=parts.dimension, tiled=True
  )


def _live(x, sizes):
  return (jnp.arange(x.shape[0]) < sizes.sum())[:, None]


# ------------------------------------------------------------------- kernels


def _kernel(x, kernels, sizes, *, interpret=False):
  from jax.experimental.pallas.ops.tpu.megablox.gmm import gmm

  tiles = _tiles(x.shape[0], *kernels.shape)
  y = gmm(
    _filled(x, tiles[0]), kernels, sizes, x.dtype, tiles, interpret=interpret
  )
  # Rows behind the last group are as they were in memory.
  return jnp.where(_live(x, sizes), y[: x.shape[0]], 0)


def _kernel_outer(x, slope, sizes, dtype, *, interpret=False):
  from jax.experimental.pallas.ops.tpu.megablox.gmm import tgmm

  tiles = _tiles(x.shape[0], sizes.shape[0], x.shape[1], slope.shape[1])
  x, slope = _filled(x, tiles[0]), _filled(slope, tiles[0])
  return tgmm(x.T, slope, sizes, dtype, tiles, interpret=interpret)


def _tiles(rows: int, groups: int, *dims: int) -> tuple[int, int, int]:
  """Sizes of a tile: rows that an average group fills, and 512 at most of the
  matrices' dimensions."""
  inner, outer = (min(512, -(-size // 128) * 128) for size in dims)
  tall = next((n for n in (512, 256) if rows // groups >= n), 128)
  return tall, inner, outer


def _filled(x, tall):
  """Rows up to a multiple of a tile's."""
  return jnp.pad(x, ((0, -x.shape[0] % tall), (0, 0)))


# --------------------------------------------------------------------- loops


def _blocks(x, kernels, sizes):
  blocks = _Blocks(sizes)

  def body(n, y):
    group, start = blocks[n]
    product = _rows(padded, start) @ kernels[group]
    # Rows of later groups among them are written again in their turn.
    return jax.lax.dynamic_update_slice_in_dim(y, product, start, 0)

  padded = _padded(x)
  y = jnp.zeros((padded.shape[0], kernels.shape[2]), x.dtype)
  y = jax.lax.fori_loop(0, blocks.count, body, y)[: x.shape[0]]
  return jnp.where(_live(x, sizes), y, 0)


def _blocks_outer(x, slope, sizes, dtype):
  blocks = _Blocks(sizes)

  def body(n, total):
    group, start = blocks[n]
    live = start + jnp.arange(BLOCK) < blocks.ends[group]
    rows = jnp.where(live[:, None], _rows(slope, start), 0)
    part = jnp.matmul(
      _rows(x, start).T, rows, preferred_element_type=total.dtype
    )
    return total.at[group].add(part)

  x, slope = _padded(x), _padded(slope)
  wide = jnp.promote_types(dtype, jnp.float32)
  total = jnp.zeros((sizes.shape[0], x.shape[1], slope.shape[1]), wide)
  return jax.lax.fori_loop(0, blocks.count, body, total).astype(dtype)


class _Blocks:
  """Groups cut into blocks; the last of a group may reach into the next."""

  def __init__(self, sizes: jax.Array):
    self.ends = jnp.cumsum(sizes)
    self.each = (sizes + BLOCK - 1) // BLOCK
    self.last = jnp.cumsum(self.each)
    self.starts = self.ends - sizes
    self.count = self.last[-1]

  def __getitem__(self, n: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The group of block n, and its first row."""
    group = jnp.searchsorted(self.last, n, side="right")
    inside = n - (self.last[group] - self.each[group])
    return group, self.starts[group] + inside * BLOCK


def _rows(x, start):
  return jax.lax.dynamic_slice_in_dim(x, start, BLOCK)


def _padded(x):
  """Room for a block that begins at the last row."""
  return jnp.pad(x, ((0, BLOCK), (0, 0)))


def _either(loop, kernel):
  """By the compiler's target, which without a mesh nobody else knows."""

  def run(x, other, sizes, *dtype):
    return jax.lax.platform_dependent(
      x,
      other,
      sizes,
      tpu=lambda *arrays: kernel(*arrays, *dtype),
      default=lambda *arrays: loop(*arrays, *dtype),
    )

  return run


LOOPS = Path(_blocks, _blocks_outer)
KERNELS = Path(_kernel, _kernel_outer)
EITHER = Path(_either(_blocks, _kernel), _either(_blocks_outer, _kernel_outer))
