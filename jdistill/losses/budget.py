# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""How many tokens' logits are there at a time, by what computes them."""

import jax

CPU_CHUNK_BYTES = 32 << 20
ACCELERATOR_CHUNK_BYTES = 512 << 20
"""Bytes of float32 logits that one stream holds at a time, per device.

A CPU's caches want few. An accelerator reads the head and adds to its gradient
anew for every chunk, some 14 bytes for each of the head's weights: below about
a thousand tokens a chunk that takes longer than the products themselves.
"""

CPU_BLOCK_BYTES = 1 << 20
"""Bytes of logits that a CPU works on between two products of a chunk.

Its compiler writes out what a sum over the vocabulary reads: exponentials,
terms, slopes. In blocks of a few rows they stay in the cache.
"""


def chunk_bytes() -> int:
  """Bytes of a chunk's logits where the walk is going to run."""
  return CPU_CHUNK_BYTES if _on_cpu() else ACCELERATOR_CHUNK_BYTES


def block_rows(width: int) -> int | None:
  """Tokens of a block of logits [R, width]; None for whole chunks."""
  return max(1, CPU_BLOCK_BYTES // (4 * width)) if _on_cpu() else None


def _on_cpu() -> bool:
  mesh = jax.sharding.get_abstract_mesh()
  device = None if mesh.empty else mesh.abstract_device
  platform = jax.default_backend() if device is None else device.platform
  return platform == "cpu"
