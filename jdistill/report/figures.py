# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The plots of a report, each a card; none where there is nothing."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jdistill import placement
from jdistill.report import page
from jdistill.report.plots import Line, blocks, lines, smooth
from jdistill.report.record import RunRecord


def loss(records: Sequence[RunRecord]) -> list[str]:
  """The loss of each run; of a single one its terms too."""
  curves = []
  for colour, record in enumerate(records):
    steps, loss = record.series("loss")
    name = record.name if len(records) > 1 else "loss"
    width = max(1, len(loss) // 25)
    if width > 1:
      curves.append(Line(name, steps, loss, colour, faint=True))
    marked = len(loss) < 12
    curves.append(
      Line(name, steps, smooth(loss, width).tolist(), colour, marked=marked)
    )
    if len(records) == 1:
      for place, term in enumerate(record.terms, 1):
        x, y = record.series(term)
        y = smooth(y, width).tolist()
        curves.append(Line(term, x, y, place, dashed=True))
  if not any(len(curve.x) for curve in curves):
    return []
  text = all("seq_len" in r.config["data"] for r in records)
  unit = " (nats per token)" if text else ""
  svg = lines(curves, x_label="training step", y_label=f"loss{unit}")
  return [page.figure("Training loss", svg)]


def evals(records: Sequence[RunRecord]) -> list[str]:
  """KL and perplexity over the steps, a plot each."""
  titles = {
    "kl": ("Held-out KL", "KL to teacher (nats per token)"),
    "ppl": ("Held-out perplexity", "perplexity (per token)"),
  }
  found = []
  for measure, (title, label) in titles.items():
    curves, levels = [], {}
    for number, record in enumerate(records):
      for place, name in enumerate(record.evals):
        x, y = record.series(f"{name}/{measure}")
        if not len(x):
          continue
        several = len(records) > 1
        one = record.name if several else name
        shared = several and len(record.evals) > 1
        said = f"{one}, {name}" if shared else one
        colour = number if several else place
        dashed = several and place > 0
        curves.append(Line(said, x, y, colour, dashed, marked=len(x) < 30))
        _, teacher = record.series(f"{name}/teacher_ppl")
        if measure == "ppl" and len(teacher):
          levels[f"teacher, {name}"] = teacher[-1]
    if curves:
      svg = lines(
        curves,
        x_label="training step",
        y_label=label,
        log_y=True,
        levels=list(levels.items())[:3],
      )
      found.append(page.figure(title, svg))
  return found


def positions(record: RunRecord) -> list[str]:
  """KL by the place of the token in its row, at the start and at the end."""
  found = []
  for name, samples in record.samples.items():
    curves = []
    stages = [("at start", samples[0]), ("at end", samples[-1])]
    for colour, (stage, sample) in enumerate(stages[: len(samples)]):
      y = [np.nan if v is None else v for v in sample["by_position"]]
      said = f"{stage} (step {sample['step']:,})"
      x = range(1, len(y) + 1)
      curves.append(Line(said, x, y, 1 - colour, faint=True))
      y = smooth(y, max(1, len(y) // 32)).tolist()
      curves.append(Line(said, x, y, 1 - colour))
    svg = lines(
      curves,
      x_label="position in the row (tokens)",
      y_label="KL to teacher (nats)",
      from_zero=True,
    )
    found.append(page.figure(f"KL by position, {name}", svg))
  return found


def reliability(record: RunRecord) -> list[str]:
  """How often the likeliest token is right, by how sure the student is."""
  found = []
  for name, samples in record.samples.items():
    curves = []
    stages = [("at start", samples[0]), ("at end", samples[-1])]
    for colour, (stage, sample) in enumerate(stages[: len(samples)]):
      bins = sample.get("reliability", [])
      x = [row["confidence"] for row in bins]
      y = [row["confidence"] + row["gap"] for row in bins]
      curves.append(Line(stage, x, y, 1 - colour, marked=True))
    if not any(curve.x for curve in curves):
      continue
    curves.append(Line("calibrated", [0, 1], [0, 1], 2, dashed=True))
    svg = lines(
      curves, x_label="confidence", y_label="accuracy", from_zero=True
    )
    found.append(page.figure(f"Reliability, {name}", svg))
  return found


def end_positions(records: Sequence[RunRecord]) -> list[str]:
  found = []
  for name in dict.fromkeys(n for r in records for n in r.samples):
    curves = []
    for colour, record in enumerate(records):
      if name in record.samples:
        at = record.samples[name][-1]["by_position"]
        y = [np.nan if v is None else v for v in at]
        y = smooth(y, max(1, len(y) // 32)).tolist()
        curves.append(Line(record.name, range(1, len(y) + 1), y, colour))
    svg = lines(
      curves,
      x_label="position in the row (tokens)",
      y_label="KL to teacher (nats)",
      from_zero=True,
    )
    found.append(page.figure(f"KL by position at the end, {name}", svg))
  return found


def speed(records: Sequence[RunRecord]) -> list[str]:
  curves = []
  for colour, record in enumerate(records):
    x, y = record.series("tokens_per_s")
    if len(x) > 1:
      marked = len(x) < 12
      curves.append(Line(record.name, x, y, colour, marked=marked))
  if not curves:
    return []
  svg = lines(
    curves,
    x_label="training step",
    y_label="throughput (tokens per second)",
    from_zero=True,
  )
  note = "Evaluations and checkpoints are left out; the first step compiles."
  return [page.figure("Throughput", svg, note)]


def placements(record: RunRecord) -> list[str]:
  """Which devices hold which part of three of the student's parameters: one
  with a vocabulary, one of attention, one of an MLP."""
  if record.layout is None or math.prod(record.layout["mesh"].values()) == 1:
    return []
  found, mesh = [], record.layout["mesh"]
  for axis in ("vocab", "heads", "mlp"):
    rows = (
      row
      for row in record.layout["parameters"]
      if row["model"] == "student" and axis in row["axes"]
    )
    row = next((row for row in rows if len(row["shape"]) > 1), None)
    if row is not None:
      size = placement.size_text(row["bytes_per_device"])
      note = f"{placement.dimensions(row)}; {size} on each device"
      found.append(page.figure(row["name"], _parts(row, mesh), note))
  return found


def _parts(row: dict[str, Any], mesh: dict[str, int]) -> str:
  """The plane of the two dimensions that are divided most, in its parts."""
  held = placement.holders(row, mesh)
  counts = [1 + max(part[d] for part in held) for d in range(len(row["shape"]))]
  plane = range(len(counts))
  plane = sorted(plane, key=lambda d: (-counts[d], -row["shape"][d]))[:2]
  down, across = sorted(plane)
  cells: dict[tuple[int, int], list[int]] = {}
  for part, devices in held.items():
    cells.setdefault((part[down], part[across]), []).extend(devices)
  labels = [
    [_ranges(sorted(cells[y, x])) for x in range(counts[across])]
    for y in range(counts[down])
  ]
  names = [f"{row['shape'][d]} {row['axes'][d] or ''}" for d in (down, across)]
  return blocks(labels, y_label=names[0], x_label=names[1])


def _ranges(numbers: Sequence[int]) -> str:
  """`0-3, 8, 10` of sorted numbers."""
  runs: list[list[int]] = []
  for number in numbers:
    if runs and number == runs[-1][-1] + 1:
      runs[-1].append(number)
    else:
      runs.append([number])
  said = [f"{r[0]}-{r[-1]}" if len(r) > 1 else str(r[0]) for r in runs]
  return ", ".join(said[:3] + ["..."] * (len(said) > 3))
