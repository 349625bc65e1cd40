# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What the audits of runs say, and their charts."""

from collections.abc import Sequence

from jdistill import audit, config_json, types
from jdistill.report import page
from jdistill.report.plots import NUM_COLOURS, Line, lines
from jdistill.report.record import RunRecord


def of_one(record: RunRecord) -> list[str]:
  """A section with what each audit of a run says."""
  found = _findings(record)
  if not found:
    return []
  body = [page.section("Audits")]
  for name, one in found.items():
    mark = "Flagged: " if one.flagged else ""
    body.append(page.card(name, f"<p>{page.text(mark + one.said)}.</p>"))
    charts = [_figure(chart, _curves(chart)) for chart in one.charts]
    body.append(page.grid(charts))
  return body


def of_several(records: Sequence[RunRecord]) -> list[str]:
  """What the same audits say of several runs, their charts laid together."""
  found = [_findings(record) for record in records]
  body = []
  for name in dict.fromkeys(name for one in found for name in one):
    body.append(page.section(f"Audit: {name}"))
    rows, together = [], {}
    for number, record in enumerate(records):
      if name not in found[number]:
        continue
      one, colour = found[number][name], number % NUM_COLOURS
      flag = "flagged" if one.flagged else ""
      rows.append([(page.dot(colour) + page.text(record.name),), flag,
                   (_said(one.said),)])  # fmt: skip
      for chart in one.charts:
        _, curves = together.setdefault(chart.title, (chart, []))
        curves += _curves(chart, record.name, colour)
    body.append(page.table(["", "", ""], rows))
    charts = [_figure(chart, curves) for chart, curves in together.values()]
    body.append(page.grid(charts))
  return body


def _findings(record: RunRecord) -> dict[str, audit.Finding]:
  trees = record.config.get("audits", {})
  try:
    audits = {name: config_json.decode(tree) for name, tree in trees.items()}
    return audit.look(audits, record.rows, record.config["steps"])
  except types.UserError:  # one of the user's own, or of an older version
    return {}


def _said(text: str) -> str:
  return f'<span class="wrap">{page.text(text)}</span>'


def _curves(
  chart: audit.Chart, run: str | None = None, colour: int = 0
) -> list[Line]:
  """The curves of a chart; with the name of a run, those of one of several."""
  found, points = [], 0
  for curve in chart.curves:
    points += curve.role == "point"
    shade = colour if run is not None else points
    label = curve.label if run is None else run
    if run is not None and curve.role != "data":
      label = ""
    found.append(
      Line(
        label,
        curve.x,
        curve.y,
        shade,
        dashed=curve.role == "model",
        marked=curve.role == "data" and len(curve.x) < 50,
        point=curve.role == "point",
      )
    )
  return found


def _figure(chart: audit.Chart, curves: Sequence[Line]) -> str:
  svg = lines(
    curves,
    x_label=chart.x_label,
    y_label=chart.y_label,
    log_x=chart.log_x,
    log_y=chart.log_y,
  )
  return page.figure(chart.title, svg, chart.note)
