# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A profiler trace of some steps of a run."""

import dataclasses
import pathlib

import jax

from jdistill import types


@dataclasses.dataclass
class Profile:
  """Traces the steps `first` to `last`, both included, into a directory.

  Of several processes each has a subdirectory of its own.
  """

  first: int
  last: int
  _running: bool = dataclasses.field(default=False, init=False)

  @classmethod
  def parse(cls, text: str) -> "Profile":
    """From `10:15`, or `10` for one step.

    Raises: UserError for anything else.
    """
    first, colon, last = text.partition(":")
    last = last if colon else first
    if not (first.isdecimal() and last.isdecimal()) or not (
      1 <= int(first) <= int(last)
    ):
      raise types.UserError(
        f"--profile is {text!r}; expected the first and the last step to "
        "trace, counted from 1, such as 10:15"
      )
    return cls(int(first), int(last))

  def before(self, step: int, directory: pathlib.Path, state: object) -> None:
    """Starts the trace if this step is the first that is wanted."""
    if self._running or not self.first <= step <= self.last:
      return
    jax.block_until_ready(state)
    if jax.process_count() > 1:
      directory = directory / f"process_{jax.process_index()}"
    jax.profiler.start_trace(directory)
    self._running = True

  def after(self, step: int, state: object) -> None:
    """Ends the trace if this step was the last that is wanted."""
    if self._running and step >= self.last:
      jax.block_until_ready(state)
      self.close()

  def close(self) -> None:
    if self._running:
      jax.profiler.stop_trace()
      self._running = False
