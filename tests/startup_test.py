# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys

import pytest

FAULTS = """
import ctypes, resource, sys
from jdistill import startup
if sys.argv[1] == "keep" and not startup.keep_freed_buffers():
  sys.exit(3)
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
  block = libc.malloc(ctypes.c_size_t(64 << 20))
  ctypes.memset(block, 1, 64 << 20)
  libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
  made = subprocess.run(
    [sys.executable, "-c", FAULTS, how],
    capture_output=True, text=True, check=False,
  )  # fmt: skip
  if made.returncode == 3:
    pytest.skip("the C library is not glibc")
  assert made.returncode == 0, made.stderr
  return int(made.stdout)


def test_freed_buffers_are_not_faulted_in_again():
  assert faults("keep") < faults("not") / 4


COMPILED = """
import pathlib, sys
import jax
from jax import monitoring
from jdistill import startup
startup.prepare(pathlib.Path(sys.argv[1]))
events = []
monitoring.register_event_listener(lambda name, **_: events.append(name))
jax.jit(lambda x: jax.numpy.sin(x) @ x)(jax.numpy.ones((8, 8)))
print(events.count("/jax/compilation_cache/cache_misses"),
      events.count("/jax/compilation_cache/cache_hits"))
"""


def test_a_second_start_compiles_nothing(tmp_path):
  env = {k: v for k, v in os.environ.items() if "COMPILATION_CACHE" not in k}

  def start() -> list[int]:
    made = subprocess.run(
      [sys.executable, "-c", COMPILED, str(tmp_path / "compiled")],
      capture_output=True, text=True, check=True, env=env,
    )  # fmt: skip
    return [int(n) for n in made.stdout.split()]

  misses, hits = start()
  assert misses > 0
  assert hits == 0
  assert start() == [0, misses]
