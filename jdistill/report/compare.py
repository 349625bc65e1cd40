# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The page that compares several runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from jdistill import config as config_lib
from jdistill.report import audits, figures, page
from jdistill.report.plots import NUM_COLOURS
from jdistill.report.record import RunRecord
from jdistill.report.terminal import MEASURES, cell, columns_of


def compare(records: Sequence[RunRecord]) -> str:
  body = [
    page.header(
      f"{len(records)} runs compared", ", ".join(r.name for r in records)
    ),
    page.section(
      "Held-out results at the end of each run",
      "±: half of a 95 % confidence interval, over rows of the text; how much "
      "seeds differ comes on top.",
    ),
    _comparison(records),
    page.section("Curves"),
    page.grid(
      [
        *figures.evals(records),
        *figures.end_positions(records),
        *figures.loss(records),
        *figures.speed(records),
      ]
    ),
    *audits.of_several(records),
    page.section("What differs between them"),
    _differences(records),
    page.section("Runs"),
  ]
  for number, record in enumerate(records):
    mark = page.dot(number % NUM_COLOURS)
    body.append(f"<h3>{mark}{page.text(record.name)}</h3>")
    body.append(page.facts(record.facts()))
  return page.page(f"{len(records)} runs", body)


def named_apart(records: list[RunRecord]) -> list[RunRecord]:
  """Runs of the same directory name get their paths as names."""
  names = [record.name for record in records]
  for record in records:
    if names.count(record.name) > 1:
      record.name = str(record.path)
  return records


def _comparison(records: Sequence[RunRecord]) -> str:
  evals = dict.fromkeys(name for r in records for name in r.evals)
  columns = columns_of(s for r in records for s in r.evals.values())
  rows: list[list[Any]] = []
  for name in evals:
    having = [r for r in records if name in r.evals]
    texts = dict.fromkeys(r.data_of(name) for r in having)
    rows.append([f"{name}: {' / '.join(texts)}"])
    teachers = {
      r.teacher_name: r.evals[name]["teacher"]
      for r in having
      if "teacher" in r.evals[name]
    }
    for teacher, row in teachers.items():
      cells = [cell(column, row) for column in columns]
      rows.append([f"{teacher} (teacher)", "", *cells])
    for record in having:
      row = record.evals[name]["end"]
      mark = page.dot(records.index(record) % NUM_COLOURS)
      cells = [cell(column, row) for column in columns]
      rows.append(
        [(mark + page.text(record.name),), f"{record.step:,}", *cells]
      )
  return page.table(["", "steps", *(MEASURES[c] for c in columns)], rows)


def _differences(records: Sequence[RunRecord]) -> str:
  """The fields of the configs that are not the same everywhere."""
  first = records[0].config
  fields = dict.fromkeys(
    line.split(": ")[0]
    for record in records[1:]
    for line in config_lib.changed(first, record.config)
  )
  if not fields:
    return '<p class="quiet">Their configs are the same.</p>'
  rows = [
    [field, *(_field(record.config, field) for record in records)]
    for field in fields
  ]
  return page.table(["", *(r.name for r in records)], rows)


def _field(tree: Any, path: str) -> str:
  for key in path.split("."):
    tree = tree.get(key) if isinstance(tree, Mapping) else None
  text = "–" if tree is None else str(tree)  # noqa: RUF001
  return text if len(text) <= 60 else text[:57] + "..."
