# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a command sets for its process before anything is compiled."""

import ctypes
import os
import pathlib
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = 2**31 - 1
_CACHE_BYTES = 4 << 30


def prepare(cache: pathlib.Path) -> None:
  """Compiled programs are kept in `cache`, and on CPU so are freed buffers.

  `JAX_COMPILATION_CACHE_DIR` and JAX's other settings come first.
  """
  import jax

  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    jax.config.update("jax_compilation_cache_dir", str(cache))
    # By default, programs that compile fast are not kept: most of them.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_compilation_cache_max_size", _CACHE_BYTES)
  if jax.default_backend() == "cpu":
    keep_freed_buffers()


def keep_freed_buffers() -> bool:
  """Lets freed memory stay with the process instead of the kernel.

  XLA's CPU backend asks malloc for the buffers of every step anew. glibc maps
  large ones from the kernel and gives them back at once, so that each step
  faults every page in again: 10 to 15 % of a small decoder's backward pass.
  `MALLOC_MMAP_MAX_` in the environment comes first.

  Returns: whether the C library took the setting; others than glibc do not.
  """
  if not sys.platform.startswith("linux") or "MALLOC_MMAP_MAX_" in os.environ:
    return False
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (AttributeError, OSError):
    return False
  return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _NEVER))
