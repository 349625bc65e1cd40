# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The page of one run."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jdistill.report import audits, figures, page
from jdistill.report.record import RunRecord
from jdistill.report.terminal import MEASURES, STAGES, cell, columns_of, shown

_BY_CLASS = ("kl", "ppl", "agreement")

_MOST_TOKENS = 1024
"""Of a sample text: more would make the page slow."""


def one_run(record: RunRecord) -> str:
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
        "token likeliest. ±: half of a 95 % confidence interval, over rows.",
      )
    )
    body.append(_result_table(record))
  plots = [*figures.loss([record]), *figures.evals([record])]
  plots += [*figures.positions(record), *figures.reliability(record)]
  plots += figures.speed([record])
  body += [page.section("Curves"), page.grid(plots)]
  body += audits.of_one(record)
  for name, samples in record.samples.items():
    body += _classes(name, samples[-1])
    body += _heat_maps(name, samples)
  body += _continuations(record)
  body += _placements(record)
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
  columns = columns_of(record.evals.values())
  rows: list[list[Any]] = []
  for name, stages in record.evals.items():
    counted = stages["end"].get("tokens")
    targets = f", {counted:,.0f} targets" if counted else ""
    rows.append([f"{name}: {record.data_of(name)}{targets}"])
    for stage, row in stages.items():
      mark = "*" if stage == "end" else ""
      cells = [cell(column, row) for column in columns]
      rows.append([mark + STAGES.get(stage, stage), *cells])
  return page.table(["", *(MEASURES[c] for c in columns)], rows)


def _classes(name: str, sample: Mapping[str, Any]) -> list[str]:
  """Held-out results by what the target is."""
  classes = sample.get("classes")
  if not classes:
    return []
  whole = sum(row["tokens"] for row in classes.values())
  rows = [
    [
      label,
      f"{100 * row['tokens'] / whole:.1f} %",
      shown("kl", row.get("kl")),
      shown("ppl", math.exp(row["ce"]) if "ce" in row else None),
      shown("agreement", row.get("agreement")),
    ]
    for label, row in sorted(
      classes.items(), key=lambda item: -item[1]["tokens"]
    )
  ]
  columns = ["target", "share", *(MEASURES[m] for m in _BY_CLASS)]
  return [
    page.section(f"By kind of token, {name}", "At the end of the run."),
    page.table(columns, rows),
  ]


def _heat_maps(name: str, samples: Sequence[Mapping[str, Any]]) -> list[str]:
  """Where on one text teacher and student disagree."""
  drawn = [samples[0], samples[-1]][: len(samples)]
  pieces = [_heat_pieces(sample) for sample in drawn]
  if not all(any(v is not None for v in kl) for _, kl in pieces):
    return []
  # By the end's values: at the start nearly everything is far off anyway.
  last = [v for v in pieces[-1][1] if v is not None]
  full = max(float(np.percentile(last, 98)), 0.1)
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
  tokens = list(sample["text"][: last + 2])
  values: list[float | None] = [None]
  for kl, counts in zip(sample["kl"], mask[: last + 1], strict=False):
    values.append(kl if counts else None)
  return tokens, values[: len(tokens)]


def _placements(record: RunRecord) -> list[str]:
  plots = figures.placements(record)
  if not plots or record.layout is None:
    return []
  sizes = ", ".join(f"{k} {v}" for k, v in record.layout["mesh"].items())
  note = (
    f"Devices by their number in the mesh ({sizes}) and the part of the "
    "student's parameters that they hold."
  )
  return [page.section("Who holds what", note), page.grid(plots)]


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
