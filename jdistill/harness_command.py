# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What `jdistill harness` does."""

import argparse
import json
import pathlib
from typing import Any

from jdistill.generate_command import add


def harness(argv: list[str]) -> int:
  """`jdistill harness REF ... --tasks TASK,...`"""
  parser = argparse.ArgumentParser(
    prog="jdistill harness",
    description="Judge models on tasks of EleutherAI's lm-evaluation-harness "
    "(pip install 'jdistill[eval]'); tasks and their data are its own.",
  )
  parser.add_argument("models", nargs="+", metavar="REF")
  parser.add_argument(
    "--tasks",
    required=True,
    metavar="TASK,...",
    help="names or groups, or YAML files; `lm_eval ls tasks` lists them",
  )
  parser.add_argument(
    "--include-path",
    type=pathlib.Path,
    metavar="DIR",
    help="a directory of further tasks",
  )
  whole = {"type": int, "metavar": "N"}
  add(parser, "--num-fewshot", help="examples before each question", **whole)
  add(parser, "--limit", help="questions of each task", **whole)
  add(parser, "--batch-size", default=8, help="rows at once", **whole)
  add(parser, "--max-length", help="tokens that a model may see", **whole)
  parser.add_argument(
    "--chat", action="store_true", help="put prompts in the chat template"
  )
  parser.add_argument(
    "--dtype", choices=("float32", "bfloat16"), default="float32"
  )
  parser.add_argument(
    "--to",
    type=pathlib.Path,
    metavar="FILE",
    help="a .json file of all that the harness says, answers included",
  )
  parser.add_argument(
    "--json", action="store_true", help="one JSON line for each figure"
  )
  args = parser.parse_args(argv)
  from jdistill import refs, startup

  startup.prepare(refs.cache_directory() / "compiled")
  from jdistill import harness as harness_lib

  options = harness_lib.Options(
    tasks=tuple(task for task in args.tasks.split(",") if task),
    include_path=args.include_path,
    num_fewshot=args.num_fewshot,
    limit=args.limit,
    batch_size=args.batch_size,
    max_length=args.max_length,
    chat=args.chat,
    dtype=args.dtype,
  )
  rows = harness_lib.judge(args.models, options, to=args.to)
  if args.json:
    for row in rows:
      print(json.dumps(row))
    return 0
  import rich

  rich.print(table(rows))
  return 0


def table(rows: list[dict[str, Any]]) -> Any:
  """Models side by side, each figure with its standard error."""
  import rich.table

  models = list(dict.fromkeys(row["model"] for row in rows))
  found = rich.table.Table("task", "metric", "questions")
  for model in models:
    found.add_column(model, justify="right", overflow="fold")
  keys = dict.fromkeys((row["task"], row["metric"]) for row in rows)
  for task, metric in keys:
    own = {
      r["model"]: r for r in rows if (r["task"], r["metric"]) == (task, metric)
    }
    cells = [_cell(own[model]) if model in own else "" for model in models]
    size = str(next(iter(own.values()))["questions"])
    found.add_row(task, metric, size, *cells)
  return found


def _cell(row: dict[str, Any]) -> str:
  error = row["stderr"]
  shown = f"{row['value']:.4f}"
  return shown if error is None else f"{shown} ± {error:.4f}"
