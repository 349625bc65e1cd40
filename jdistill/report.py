# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a run has come to: a table for terminals, a page for colleagues."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jdistill import config as config_lib
from jdistill import report_page as page
from jdistill import types
from jdistill.plots import NUM_COLOURS, Line, lines, smooth
from jdistill.report_run import RunRecord, read_run, with_teacher_bits

if TYPE_CHECKING:
  from rich.table import Table

STAGES = {
  "teacher": "teacher",
  "start": "student at start",
  "end": "student at end",
}
_MEASURES = {
  "kl": "KL to teacher (nats)",
  "ppl": "perplexity",
  "agreement": "agreement",
  "bits_per_byte": "bits per byte",
  "accuracy": "accuracy",
}
_MOST_TOKENS = 1024
"""Of a sample text: more would make the page slow."""


def write(*runs: pathlib.Path, to: pathlib.Path | None = None) -> pathlib.Path:
  """Writes a page about a run, or one that compares several.

  Args:
    runs: run directories; a run that is not finished is shown as far as it is.
    to: the file; default: `report.html` in the run, for several runs in the
      current directory.
  Returns: the file, which loads nothing from elsewhere.
  Raises: UserError for a directory that is no run.
  """
  if not runs:
    raise types.UserError("report: expected at least one run directory")
  records = [read_run(pathlib.Path(run)) for run in runs]
  if len(records) == 1:
    text = _one(records[0])
    default = records[0].path / "report.html"
  else:
    text = _several(_named_apart(records))
    default = pathlib.Path("report.html")
  path = to or default
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(path.name + ".part")
  part.write_text(text, encoding="utf-8")
  part.replace(path)
  return path


def table(result: Mapping[str, Any]) -> "Table":
  """The final metrics of a run, a row for each model and evaluation.

  Args:
    result: what `jdistill.train.train` returns and `result.json` holds.
  """
  from rich import box
  from rich.table import Table

  evals = with_teacher_bits(result["evals"])
  columns = _columns(evals.values())
  made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
  made.add_column("evaluation")
  made.add_column("model")
  for column in columns:
    made.add_column(_MEASURES[column], justify="right")
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


def shown(measure: str, value: float | None) -> str:
  """A metric as people read it."""
  if value is None:
    return "–"  # noqa: RUF001
  if measure in ("agreement", "accuracy"):
    return f"{100 * value:.1f} %"
  if measure == "ppl":
    return f"{value:,.1f}" if value < 1e4 else f"{value:,.2e}"
  return f"{value:.3f}"


def _columns(evals) -> list[str]:
  rows = [row for stages in evals for row in stages.values()]
  return [m for m in _MEASURES if any(m in row for row in rows)]


def _one(record: RunRecord) -> str:
  body = [
    page.header(
      f"{record.teacher_name} → {record.student_name}",
      f"jdistill run {record.name}, step {record.step:,} of "
      f"{record.config['steps']:,}",
    ),
    page.tiles(_headline(record)),
    page.facts(record.facts()),
  ]
  if record.evals:
    body.append(
      page.section(
        "Held-out results",
        "KL(teacher || student) and perplexity at temperature 1, per target "
        f"token{_context(record)}. Agreement: how often both find the same "
        "token likeliest.",
      )
    )
    body.append(_result_table(record))
  plots = [*_loss_plot([record]), *_eval_plots([record])]
  plots += [*_position_plots(record), *_speed_plot([record])]
  body += [page.section("Curves"), page.grid(plots)]
  for name, samples in record.samples.items():
    body += _heat_maps(name, samples)
  body += _continuations(record)
  body.append(page.section("Use it"))
  run = page.text(record.path)
  commands = [
    f'jdistill generate {run} --prompt "Once upon a time"',
    f"jdistill evaluate {run}",
    f"jdistill export {run} --to {page.text(record.name)}-hf",
    f"jdistill export {run} --to {page.text(record.name)}.gguf --format gguf",
  ]
  body.append(page.card("", f"<pre>{chr(10).join(commands)}</pre>"))
  return page.page(f"{record.name}: {record.student_name}", body)


def _context(record: RunRecord) -> str:
  sizes = {spec.get("seq_len") for spec in record.config["evals"].values()}
  sizes.discard(None)
  if not sizes:
    return ""
  return f", in rows of {' or '.join(map(str, sorted(sizes)))} tokens"


def _headline(record: RunRecord) -> list[tuple[str, str]]:
  """The numbers that one wants first."""
  found: list[tuple[str, str]] = []
  first = next(iter(record.evals), None)
  if first is not None:
    stages = record.evals[first]
    start, end = stages.get("start", {}), stages["end"]
    if "kl" in end:
      found.append(
        (
          f"KL to the teacher on {first}, nats per token (at start "
          f"{shown('kl', start.get('kl'))})",
          shown("kl", end["kl"]),
        )
      )
      agreed = shown("agreement", end.get("agreement"))
      found.append(("agreement with the teacher", agreed))
    teacher = stages.get("teacher", {}).get("ppl")
    beside = f" (teacher {shown('ppl', teacher)})" if teacher else ""
    found.append((f"perplexity{beside}", shown("ppl", end.get("ppl"))))
  if record.share is not None:
    found.append(("of the teacher's parameters", f"{100 * record.share:.0f} %"))
  if record.speed is not None:
    found.append(("tokens per second", f"{record.speed:,.0f}"))
  return found


def _result_table(record: RunRecord) -> str:
  columns = _columns(record.evals.values())
  rows: list[list[Any]] = []
  for name, stages in record.evals.items():
    counted = stages["end"].get("tokens")
    targets = f", {counted:,.0f} targets" if counted else ""
    rows.append([f"{name}: {record.data_of(name)}{targets}"])
    for stage, row in stages.items():
      mark = "*" if stage == "end" else ""
      cells = [shown(column, row.get(column)) for column in columns]
      rows.append([mark + STAGES.get(stage, stage), *cells])
  return page.table(["", *(_MEASURES[c] for c in columns)], rows)


def _loss_plot(records: Sequence[RunRecord]) -> list[str]:
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


def _eval_plots(records: Sequence[RunRecord]) -> list[str]:
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


def _position_plots(record: RunRecord) -> list[str]:
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


def _speed_plot(records: Sequence[RunRecord]) -> list[str]:
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


def _heat_maps(name: str, samples: Sequence[Mapping[str, Any]]) -> list[str]:
  """Where on one text teacher and student disagree."""
  drawn = [samples[0], samples[-1]][: len(samples)]
  pieces = [_heat_pieces(sample) for sample in drawn]
  values = [v for _, kl in pieces for v in kl if v is not None]
  if not values:
    return []
  full = max(float(np.percentile(values, 95)), 0.1)
  cards = []
  for stage, sample, (tokens, kl) in zip(
    ("start", "end"), drawn, pieces, strict=False
  ):
    mean = float(np.mean([v for v in kl if v is not None]))
    title = (
      f"At the {stage}, step {sample['step']:,}: {mean:.2f} nats on average"
    )
    cards.append(page.card(title, page.heat(tokens, kl, full)))
  note = (
    "A held-out text. The redder a token, the further the student's prediction "
    "of it was from the teacher's; point at one to see its KL."
  )
  return [
    page.section(f"Where they disagree, {name}", note),
    page.heat_scale(full),
    page.grid(cards),
  ]


def _heat_pieces(
  sample: Mapping[str, Any],
) -> tuple[list[str], list[float | None]]:
  """Tokens, and how far apart the predictions *of* each were.

  `kl[t]` is of the prediction made after reading token `t`, so it belongs to
  the token after it. The first tokens of documents are predicted by nothing.
  """
  mask = np.asarray(sample["mask"])[:_MOST_TOKENS]
  last = int(np.flatnonzero(mask)[-1]) if mask.any() else -1
  tokens, values = list(sample["text"][: last + 2]), [None]
  for kl, counts in zip(sample["kl"], mask[: last + 1], strict=False):
    values.append(kl if counts else None)
  return tokens, values[: len(tokens)]


def _continuations(record: RunRecord) -> list[str]:
  if not record.continuations:
    return []
  cards = []
  for row in record.continuations:
    answers = [
      page.card(
        STAGES[stage],
        f'<div class="text"><em>{page.text(row["prompt"])}</em>'
        f"{page.text(row[stage])}</div>",
      )
      for stage in STAGES
      if stage in row
    ]
    cards.append(page.grid(answers, narrow=True))
  return [page.section("How they go on with the same text"), *cards]


def _named_apart(records: list[RunRecord]) -> list[RunRecord]:
  """Runs of the same directory name get their paths as names."""
  names = [record.name for record in records]
  for record in records:
    if names.count(record.name) > 1:
      record.name = str(record.path)
  return records


def _several(records: Sequence[RunRecord]) -> str:
  body = [
    page.header(
      f"{len(records)} runs compared", ", ".join(r.name for r in records)
    ),
    page.section("Held-out results at the end of each run"),
    _comparison(records),
    page.section("Curves"),
    page.grid(
      [
        *_eval_plots(records),
        *_end_positions(records),
        *_loss_plot(records),
        *_speed_plot(records),
      ]
    ),
    page.section("What differs between them"),
    _differences(records),
    page.section("Runs"),
  ]
  for number, record in enumerate(records):
    mark = page.dot(number % NUM_COLOURS)
    body.append(f"<h3>{mark}{page.text(record.name)}</h3>")
    body.append(page.facts(record.facts()))
  return page.page(f"{len(records)} runs", body)


def _comparison(records: Sequence[RunRecord]) -> str:
  evals = dict.fromkeys(name for r in records for name in r.evals)
  columns = _columns(s for r in records for s in r.evals.values())
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
      cells = [shown(column, row.get(column)) for column in columns]
      rows.append([f"{teacher} (teacher)", "", *cells])
    for record in having:
      row = record.evals[name]["end"]
      mark = page.dot(records.index(record) % NUM_COLOURS)
      cells = [shown(column, row.get(column)) for column in columns]
      rows.append(
        [(mark + page.text(record.name),), f"{record.step:,}", *cells]
      )
  return page.table(["", "steps", *(_MEASURES[c] for c in columns)], rows)


def _end_positions(records: Sequence[RunRecord]) -> list[str]:
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
