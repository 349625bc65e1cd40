# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What an audit is: a frozen dataclass that reads the rows of a run."""

import abc
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jdistill import types

Row = Mapping[str, Any]
"""A row of `metrics.jsonl`: its `step` and numbers by name."""


@dataclasses.dataclass(frozen=True)
class Curve:
  """One line of a chart; `role` is "data", "model" (dashed) or "point"."""

  label: str
  x: tuple[float, ...]
  y: tuple[float, ...]
  role: str = "data"


@dataclasses.dataclass(frozen=True)
class Chart:
  """A plot for the report; `note` holds for whatever run it is of."""

  title: str
  x_label: str
  y_label: str
  curves: tuple[Curve, ...]
  log_x: bool = False
  log_y: bool = False
  note: str = ""


@dataclasses.dataclass(frozen=True)
class Finding:
  """What an audit says of a run so far.

  Attributes:
    flagged: something is wrong.
    said: in one sentence.
    numbers: go into the row of the evaluation as `AUDIT/NAME`.
    facts: what `result.json` holds of it.
    charts: for the report.
  """

  flagged: bool
  said: str
  numbers: dict[str, float]
  facts: dict[str, Any]
  charts: tuple[Chart, ...] = ()


@dataclasses.dataclass(frozen=True)
class Audit(abc.ABC):
  """Looks at a run after each of its evaluations; it changes nothing."""

  @abc.abstractmethod
  def metrics(self) -> tuple[str, ...]:
    """The metrics that it goes by: of an evaluation, or the loss."""

  @abc.abstractmethod
  def look(self, rows: Sequence[Row], steps: int) -> Finding:
    """What the rows of a run say.

    Args:
      rows: oldest first; those of training steps are among them.
      steps: of the whole run.
    """


def look(
  audits: Mapping[str, Audit], rows: Sequence[Row], steps: int
) -> dict[str, Finding]:
  """What each of several audits says; see `Audit.look`.

  Raises: UserError for a metric that an evaluation does not give.
  """
  for name, one in audits.items():
    for metric in one.metrics():
      _check(name, metric, rows)
  return {name: one.look(rows, steps) for name, one in audits.items()}


def result(
  audits: Mapping[str, Audit], rows: Sequence[Row], steps: int
) -> dict[str, dict[str, Any]]:
  """What `result.json` holds: by audit `flagged`, `said` and its facts."""
  return {
    name: {"flagged": one.flagged, "said": one.said, **one.facts}
    for name, one in look(audits, rows, steps).items()
  }


def series(rows: Sequence[Row], name: str) -> tuple[np.ndarray, np.ndarray]:
  """Steps, rising, and values of a metric; without what is no number.

  Of several rows of one step the last counts.
  """
  found = {r["step"]: r[name] for r in rows if _number(r.get(name))}
  steps = sorted(found)
  return np.array(steps, int), np.array([found[s] for s in steps], float)


def _number(value: Any) -> bool:
  return isinstance(value, (int, float)) and math.isfinite(value)


def _check(name: str, metric: str, rows: Sequence[Row]) -> None:
  """Refuses a metric that its evaluation has never given."""
  evaluation = metric.rpartition("/")[0]
  told = [k for r in rows for k in r if k.startswith(f"{evaluation}/")]
  if evaluation and told and metric not in told:
    raise types.UserError(
      f"audits.{name} goes by {metric!r}, which the evaluation does not give; "
      f"found {', '.join(sorted(set(told)))}"
    )
