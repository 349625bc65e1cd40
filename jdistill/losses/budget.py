# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""How many tokens' logits are there at a time, by what computes them."""

from typing import Any

import jax

from jdistill import types

CPU_CHUNK_BYTES = 32 << 20
ACCELERATOR_CHUNK_BYTES = 512 << 20
"""Bytes of float32 logits that one stream holds at a time, per device.

Every chunk reads the head and adds to its gradient anew, some 14 bytes for each
of the head's weights. By the published peaks of a TPU v5e that takes longer
than the products of fewer than about 400 tokens; 512 MiB are 1,024 of them at
131,072 ids. On a CPU the smaller budget keeps memory flat.
"""

CPU_BLOCK_BYTES = 1 << 20
"""Bytes of logits that a CPU works on between two products of a chunk.

Its compiler writes out what a sum over the vocabulary reads: exponentials,
terms, slopes. In blocks of a few rows they stay in the cache.
"""


def chunk_bytes() -> int:
  """Bytes of a chunk's logits where the walk is going to run."""
  return CPU_CHUNK_BYTES if _on_cpu() else ACCELERATOR_CHUNK_BYTES


def width(head: Any) -> int:
  """Logits that a head makes of a token, more than one of each id or not."""
  return getattr(head, "logits_per_token", head.vocab_size)


def block_rows(width: int) -> int | None:
  """Tokens of a block of logits [R, width]; None for whole chunks."""
  return max(1, CPU_BLOCK_BYTES // (4 * width)) if _on_cpu() else None


def _on_cpu() -> bool:
  return (types.target_platform() or jax.default_backend()) == "cpu"
