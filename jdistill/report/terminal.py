# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The final metrics of a run, for terminals and for pages."""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from jdistill.report.record import with_teacher_bits

if TYPE_CHECKING:
  from rich.table import Table

STAGES = {
  "teacher": "teacher",
  "start": "student at start",
  "end": "student at end",
}
MEASURES = {
  "kl": "KL to teacher (nats)",
  "coarse_kl": "KL, ids merged (nats)",
  "ppl": "perplexity",
  "agreement": "agreement",
  "bits_per_byte": "bits per byte",
  "accuracy": "accuracy",
  "ece": "calibration error",
  "reward": "reward",
}


def table(result: Mapping[str, Any]) -> "Table":
  """The final metrics of a run, a row for each model and evaluation.

  Args:
    result: what `jdistill.train.train` returns and `result.json` holds.
  """
  from rich import box
  from rich.table import Table

  evals = with_teacher_bits(result["evals"])
  # What a terminal has room for.
  columns = [c for c in columns_of(evals.values()) if c != "ece"]
  made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
  made.add_column("evaluation")
  made.add_column("model")
  for column in columns:
    made.add_column(MEASURES[column], justify="right")
  for name, stages in evals.items():
    for place, (stage, row) in enumerate(stages.items()):
      made.add_row(
        "" if place else name,
        STAGES.get(stage, stage),
        *(shown(column, row.get(column)) for column in columns),
        style="bold" if stage == "end" else None,
        end_section=place == len(stages) - 1,
      )
  return made


def shown(measure: str, value: int | float | None) -> str:
  """A metric as people read it."""
  if value is None:
    return "–"  # noqa: RUF001
  if measure in ("agreement", "accuracy", "ece"):
    return f"{100 * value:.1f} %"
  if measure == "ppl":
    return f"{value:,.1f}" if value < 1e4 else f"{value:,.2e}"
  return f"{value:.3f}"


def cell(measure: str, row: Mapping[str, int | float | None]) -> str:
  """A metric with the half width of its 95 % confidence interval, if known."""
  value, text = row.get(measure), shown(measure, row.get(measure))
  error = row.get({"kl": "kl_se", "ppl": "ce_se"}.get(measure, ""))
  if value is None or error is None or not math.isfinite(error):
    return text
  half = 1.96 * error * (value if measure == "ppl" else 1.0)
  return f"{text} ± {shown(measure, half)}"


def columns_of(
  evals: Iterable[Mapping[str, Mapping[str, int | float]]],
) -> list[str]:
  """The metrics that any row of some evaluations has, in order."""
  rows = [row for stages in evals for row in stages.values()]
  return [m for m in MEASURES if any(m in row for row in rows)]
