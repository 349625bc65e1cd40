# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Signals that ask a run to stop: it saves first."""

import contextlib
import os
import pathlib
import signal
from collections.abc import Iterator

import jax

_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


class Stopped(Exception):
  """The run was told to stop, has saved, and should exit with `code`.

  `workdir` is its directory; of several stages that of the one it stopped in.
  """

  def __init__(self, code: int, step: int, workdir: pathlib.Path):
    super().__init__(f"stopped at step {step}")
    self.code, self.step, self.workdir = code, step, workdir


@contextlib.contextmanager
def collected(asked: list[int]) -> Iterator[None]:
  """Collects the exit code that a signal asks for; a second one is obeyed.

  Of several processes jax's runtime listens for SIGTERM, so that one which
  gets it stops all at the same step; Ctrl-C is handed on to it.
  """
  alone = jax.process_count() == 1

  def ask(number, frame):
    del frame
    if asked:
      raise SystemExit(_CODES[signal.Signals(number)])
    asked.append(_CODES[signal.Signals(number)])
    if not alone:
      os.kill(os.getpid(), signal.SIGTERM)

  numbers = _CODES if alone else (signal.SIGINT,)
  try:
    old = {number: signal.signal(number, ask) for number in numbers}
  except ValueError:  # not the main thread, as in some notebooks
    old = {}
  try:
    yield
  finally:
    for number, handler in old.items():
      signal.signal(number, handler)
