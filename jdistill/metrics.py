# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a run says of itself: `metrics.jsonl`, TensorBoard, a progress bar."""

import contextlib
import json
import math
import pathlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jdistill import types


def means(metrics: types.Metrics) -> dict[str, float]:
  """Finished means on the host; what has no weight is left out."""
  metrics = jax.device_get(dict(metrics))
  return {
    name: float(np.asarray(m.sum) / np.asarray(m.weight))
    for name, m in metrics.items()
    if np.all(np.asarray(m.weight) != 0)
  }


def add(metrics: Iterable[types.Metrics]) -> dict[str, types.Mean]:
  """Sums of several steps' or batches' means."""
  total: dict[str, types.Mean] = {}
  for one in metrics:
    for name, mean in one.items():
      old = total.get(name)
      total[name] = (
        mean
        if old is None
        else types.Mean(old.sum + mean.sum, old.weight + mean.weight)
      )
  return total


class Clock:
  """Speed of the steps themselves: evaluations and saves are left out."""

  def __init__(self):
    self._last, self._last_cpu = time.perf_counter(), time.process_time()
    self._seconds: list[float] = []
    self._waited = self._away = self._away_cpu = self._cpu = 0.0
    self._phases: dict[str, float] = {}

  def tick(self, tokens: int) -> dict[str, float]:
    """Says that a step of so many tokens is over.

    Returns: its `seconds`, `tokens_per_s`, the share `data_wait` that was
      spent waiting for data, and `cpu_seconds` of all steps since the start;
      where a step has phases, `NAME_seconds` of each and `train_seconds` of
      the rest.
    """
    now, cpu = time.perf_counter(), time.process_time()
    took = max(now - self._last - self._away, 1e-9)
    self._cpu += cpu - self._last_cpu - self._away_cpu
    row = {
      "seconds": took,
      "tokens_per_s": tokens / took,
      "data_wait": min(self._waited / took, 1.0),
      "cpu_seconds": self._cpu,
    }
    if self._phases:
      rest = took - sum(self._phases.values())
      phases = {**self._phases, "train": rest}
      row |= {f"{name}_seconds": s for name, s in phases.items()}
      self._phases = {}
    self._last, self._last_cpu = now, cpu
    self._away = self._away_cpu = self._waited = 0.0
    self._seconds = [*self._seconds[-20:], took]
    return row

  def left(self, steps: int) -> str:
    """The time that so many steps will take, from the median of the last."""
    seconds = int(steps * float(np.median(self._seconds)))
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """Around what waits for data."""
    begin = time.perf_counter()
    yield
    self._waited += time.perf_counter() - begin

  @contextlib.contextmanager
  def phase(self, name: str) -> Iterator[None]:
    """Around a part of a step with a name."""
    begin = time.perf_counter()
    yield
    took = time.perf_counter() - begin
    self._phases[name] = self._phases.get(name, 0.0) + took

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Around what is no part of a step."""
    begin, cpu = time.perf_counter(), time.process_time()
    yield
    self._away += time.perf_counter() - begin
    self._away_cpu += time.process_time() - cpu


class Writer:
  """Writes rows of metrics, each with its step, as they come.

  Of several processes the first writes; in the others nothing happens.

  Args:
    directory: of the run.
    from_step: rows of this step and later are dropped first: they belong to
      a past that a restored checkpoint has undone.
  """

  def __init__(self, directory: pathlib.Path, *, from_step: int = 0):
    from tensorboardX import SummaryWriter

    self._file = self._board = None
    if jax.process_index() != 0:
      return
    path = directory / "metrics.jsonl"
    if path.exists():
      kept = [r for r in read(directory) if r["step"] < from_step]
      temp = path.with_suffix(".tmp")
      temp.write_text("".join(json.dumps(r) + "\n" for r in kept))
      temp.replace(path)
    self._file = path.open("a")
    # Files are named by the second, and one of the same name is overwritten.
    self._board = SummaryWriter(
      str(directory / "tensorboard"),
      purge_step=from_step,
      filename_suffix=f".{time.time_ns()}",
    )

  def write(self, step: int, row: Mapping[str, Any]) -> None:
    """Adds a row; what is not finite is null, as JSON has no other word."""
    if self._file is None or self._board is None:
      return
    row = {k: v if _finite(v) else None for k, v in row.items()}
    self._file.write(json.dumps({"step": step, **row}) + "\n")
    self._file.flush()
    for name, value in row.items():
      if isinstance(value, (int, float)):
        self._board.add_scalar(name, value, step)

  def close(self) -> None:
    if self._file is not None and self._board is not None:
      self._file.close()
      self._board.close()


def _finite(value: Any) -> bool:
  return not isinstance(value, float) or math.isfinite(value)


def read(directory: pathlib.Path) -> list[dict[str, Any]]:
  """The rows of a run, oldest first; a half-written row is left out.

  Raises: UserError for a row that is no row of metrics.
  """
  path = directory / "metrics.jsonl"
  rows = []
  if not path.exists():
    return rows
  for number, line in enumerate(path.read_bytes().splitlines(), 1):
    try:
      row = json.loads(line)
    except (ValueError, RecursionError):
      continue
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
      raise types.UserError(
        f"{path}, line {number}: expected an object with a step, found "
        f"{line[:60]!r}"
      )
    rows.append(row)
  return rows
