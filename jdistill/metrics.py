# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a run says of itself: `metrics.jsonl`, TensorBoard, a progress bar."""

import json
import pathlib
from collections.abc import Iterable, Mapping
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


class Writer:
  """Writes rows of metrics, each with its step, as they come.

  Args:
    directory: of the run.
    from_step: rows of this step and later are dropped first: they belong to
      a past that a restored checkpoint has undone.
  """

  def __init__(self, directory: pathlib.Path, *, from_step: int = 0):
    from tensorboardX import SummaryWriter

    self._path = directory / "metrics.jsonl"
    if self._path.exists():
      kept = [r for r in read(directory) if r["step"] < from_step]
      temp = self._path.with_suffix(".tmp")
      temp.write_text("".join(json.dumps(r) + "\n" for r in kept))
      temp.replace(self._path)
    self._file = self._path.open("a")
    self._board = SummaryWriter(
      str(directory / "tensorboard"), purge_step=from_step
    )

  def write(self, step: int, row: Mapping[str, Any]) -> None:
    self._file.write(json.dumps({"step": step, **row}) + "\n")
    self._file.flush()
    for name, value in row.items():
      if isinstance(value, (int, float)):
        self._board.add_scalar(name, value, step)

  def close(self) -> None:
    self._file.close()
    self._board.close()


def read(directory: pathlib.Path) -> list[dict[str, Any]]:
  """The rows of a run, oldest first; a half-written last row is left out."""
  path = directory / "metrics.jsonl"
  rows = []
  if not path.exists():
    return rows
  for line in path.read_text().splitlines():
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError:
      continue
  return rows
