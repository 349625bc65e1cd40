# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The page of the command line, of what each command says of itself."""

import contextlib
import io
import os
from unittest import mock

from jdistill import cli


def pages() -> dict[str, str]:
  """Markdown by path."""
  lines = ["# Commands", "", "```text", cli.USAGE.rstrip(), "```", ""]
  for name in cli.COMMANDS:
    lines += [f"## {name}", "", "```text", _help(name), "```", ""]
  return {"reference/commands.md": "\n".join(lines)}


def _help(name: str) -> str:
  said = io.StringIO()
  with (
    mock.patch.dict(os.environ, {"COLUMNS": "80", "NO_COLOR": "1"}),
    contextlib.redirect_stdout(said),
    contextlib.suppress(SystemExit),
  ):
    cli.main([name, "--help"])
  assert said.getvalue(), name
  return said.getvalue().rstrip()
