# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

import pytest

FAULTS = """
import ctypes, resource, sys
from jdistill import host_memory
if sys.argv[1] == "keep" and not host_memory.keep_freed_buffers():
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
