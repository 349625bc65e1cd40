# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys

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
  for time in (tmp_path / "compiled").glob("*-atime"):
    time.unlink()  # as a kill between the two writes leaves an entry
  assert start() == [misses, 0]
  assert start() == [0, misses]
