# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Several runs as one table of figures, for documents and for programs."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jdistill.report.record import RunRecord
from jdistill.report.terminal import MEASURES

_NO_SETTING = ("seed", "samples", "log_every", "eval_every", "save_every",
               "keep")  # fmt: skip


def results(records: Sequence[RunRecord]) -> dict[str, Any]:
  """Final figures, runs that differ in nothing but their seed as one row.

  Args:
    records: the runs, in the order of the rows.
  Returns: "teacher", measures of each evaluation, and "rows", each with
    "name", "seq_len" (None for examples), "seeds", "commands", "steps",
    "tokens" (or examples), "cpu_seconds" and "evals": {evaluation: {measure:
    {"mean", "std"}}}, std over seeds (n - 1), None for a single run.
  """
  groups: dict[str, list[RunRecord]] = {}
  for record in records:
    setting = {k: v for k, v in record.config.items() if k not in _NO_SETTING}
    groups.setdefault(json.dumps(setting, sort_keys=True), []).append(record)
  teacher = {
    name: stages["teacher"]
    for record in records
    for name, stages in record.evals.items()
    if "teacher" in stages
  }
  return {
    "teacher": teacher,
    "rows": [_row(group) for group in groups.values()],
  }


def markdown(found: Mapping[str, Any]) -> str:
  """`results` as a Markdown table, the commands of its rows behind it."""
  rows = found["rows"]
  evals = dict.fromkeys(name for row in rows for name in row["evals"])
  columns = [
    (name, measure)
    for name in evals
    for measure in ("kl", "ppl", "agreement", "accuracy")
    if any(measure in row["evals"].get(name, {}) for row in rows)
  ]
  unit = "tokens" if any(row["seq_len"] for row in rows) else "examples"
  head = ["run", "seeds", "updates", unit, "CPU s"]
  head += [f"{name}: {MEASURES[measure]}" for name, measure in columns]
  lines = [_line(head), _line(["---"] + ["---:"] * (len(head) - 1))]
  if found["teacher"]:
    cells = [
      _shown(m, found["teacher"].get(name, {}).get(m), None)
      for name, m in columns
    ]
    lines.append(_line(["teacher", "", "", "", "", *cells]))
  for row in rows:
    cells = [_cell(row["evals"].get(name, {}), m) for name, m in columns]
    lines.append(
      _line([
        row["name"],
        str(len(row["seeds"])),
        f"{row['steps']:,}",
        f"{row['tokens']:,}" if row["tokens"] else "",
        f"{row['cpu_seconds']:,.0f}" if row["cpu_seconds"] else "",
        *cells,
      ])
    )  # fmt: skip
  commands = [
    f"- {row['name']}: `{command}`"
    for row in rows
    for command in row["commands"]
  ]
  return "\n".join([*lines, "", *commands])


def _row(group: Sequence[RunRecord]) -> dict[str, Any]:
  first = group[0]
  evals: dict[str, dict[str, dict[str, float | None]]] = {}
  for name in first.evals:
    ends = [record.evals[name]["end"] for record in group]
    evals[name] = {
      measure: _spread([end[measure] for end in ends])
      for measure in MEASURES
      if all(measure in end for end in ends)
    }
  _, tokens = first.series("tokens")
  seconds = [s[-1] for r in group if (s := r.series("cpu_seconds")[1])]
  name = _name([record.name for record in group])
  if not all((record.path / "result.json").is_file() for record in group):
    name += " (unfinished)"
  return {
    "name": name,
    "seq_len": first.config["data"].get("seq_len"),
    "seeds": [record.config["seed"] for record in group],
    "commands": [c for record in group if (c := _command(record))],
    "steps": first.step,
    "tokens": int(tokens[-1]) if tokens else None,
    "cpu_seconds": float(np.mean(seconds)) if seconds else None,
    "evals": evals,
  }


def _name(names: Sequence[str]) -> str:
  """What several runs' names begin with."""
  if len(names) == 1:
    return names[0]
  shared = os.path.commonprefix(names)  # noqa: RUF071, letters are meant
  return shared.rstrip("-_./ ") or names[0]


def _command(record: RunRecord) -> str | None:
  path = record.path / "command.txt"
  return path.read_text().strip() if path.is_file() else None


def _spread(values: Sequence[float]) -> dict[str, float | None]:
  std = float(np.std(values, ddof=1)) if len(values) > 1 else None
  return {"mean": float(np.mean(values)), "std": std}


def _cell(measures: Mapping[str, Mapping[str, Any]], measure: str) -> str:
  found = measures.get(measure, {})
  return _shown(measure, found.get("mean"), found.get("std"))


def _shown(measure: str, mean: float | None, std: float | None) -> str:
  if mean is None:
    return ""
  if measure in ("agreement", "accuracy"):
    text, tail = f"{100 * mean:.1f}", " %"
    spread = f" ± {100 * std:.1f}" if std is not None else ""
  elif measure == "ppl":
    places = 3 if mean < 10 else 1
    text = f"{mean:,.{places}f}" if mean < 1e4 else f"{mean:.2e}"
    spread, tail = (f" ± {std:,.{places}f}" if std is not None else ""), ""
  else:
    text, tail = f"{mean:.3f}", ""
    spread = f" ± {std:.3f}" if std is not None else ""
  return f"{text}{spread}{tail}"


def _line(cells: Sequence[str]) -> str:
  return f"| {' | '.join(cells)} |"
