# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Eight CPU devices, strict broadcasting, and no network unless it is there."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
flags = os.environ.get("XLA_FLAGS", "")
# Tests compile more than they compute, and less optimised code is made sooner.
for flag in (
  "--xla_force_host_platform_device_count=8",
  "--xla_backend_optimization_level=1",
):
  if flag.partition("=")[0] not in flags:
    flags = f"{flags} {flag}".strip()
os.environ["XLA_FLAGS"] = flags

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
  """float64 inside one test."""
  with jax.enable_x64(True):
    yield


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
  """Tokens and compiled programs are kept, and commands change no setting."""
  root = tmp_path_factory.getbasetemp()
  settings = {
    "jax_compilation_cache_dir": str(root / "compiled"),
    "jax_compilation_cache_max_size": -1,
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
  }
  old = {name: getattr(jax.config, name) for name in settings}
  for name, value in settings.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("JDISTILL_CACHE", str(root / "cache"))
    for name, value in settings.items():
      patch.setenv(name.upper(), str(value))
    yield
  for name, value in old.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()
