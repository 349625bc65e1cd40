# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Writes a report."""

import json
import pathlib
from typing import Literal

from jdistill import checkpoint, types, workdir
from jdistill.report.compare import compare, named_apart
from jdistill.report.record import read_run
from jdistill.report.results import markdown, results
from jdistill.report.single import one_run


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
    text = one_run(records[0])
    default = records[0].path / "report.html"
    if to is None:
      checkpoint.check_links(records[0].path)
  else:
    text = compare(named_apart(records))
    default = pathlib.Path("report.html")
  path = to or default
  if path.is_dir():
    raise types.UserError(f"--to {path}: is a directory; name a file")
  workdir.check_place(path, "--to")
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(path.name + ".part")
  part.write_text(text, encoding="utf-8")
  part.replace(path)
  return path


def summary(
  *runs: pathlib.Path, format: Literal["markdown", "json"] = "markdown"
) -> str:
  """Final figures of runs as text: a Markdown table or JSON.

  Args:
    runs: run directories; those that differ only in their seed are one row.
    format: of the text.
  Raises: UserError for a directory that is no run.
  """
  records = [read_run(pathlib.Path(run)) for run in runs]
  found = results(named_apart(records))
  if format == "json":
    return json.dumps(found, indent=1)
  return markdown(found)
