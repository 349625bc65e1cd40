# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a command sets for its process before anything is compiled."""

import os
import pathlib

_CACHE_BYTES = 4 << 30


def prepare(cache: pathlib.Path) -> None:
  """Keeps compiled programs in `cache`: a second start compiles nothing.

  `JAX_COMPILATION_CACHE_DIR` in the environment comes first.
  """
  import jax

  if "JAX_COMPILATION_CACHE_DIR" in os.environ:
    return
  jax.config.update("jax_compilation_cache_dir", str(cache))
  # By default, programs that compile fast are not kept: most of them.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
  jax.config.update("jax_compilation_cache_max_size", _CACHE_BYTES)
  _drop_half_written(cache)


def _drop_half_written(cache: pathlib.Path) -> None:
  """Removes programs whose time of use is missing.

  JAX writes a program and then its time; whoever is killed between the two
  leaves an entry at which every later write to the cache fails.
  """
  for program in cache.glob("*-cache"):
    if not program.with_name(f"{program.name[:-6]}-atime").exists():
      program.unlink(missing_ok=True)
