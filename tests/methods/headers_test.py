# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Each method says which paper it is, how faithful, and where it departs."""

import ast
import inspect
import pathlib
import re

import pytest

from jdistill import losses, methods

FILES = sorted(pathlib.Path(methods.__file__).parent.glob("*.py"))
NO_PAPERS = ("__init__", "base", "several", "sum")
PAPERS = [p for p in FILES if p.stem not in NO_PAPERS]
HEADER = re.compile(
  r"\nPaper: (none; .+?|.*?\barXiv:\d{4}\.\d{4,5}.*?)"
  r"\nFidelity: (code|paper|reconstructed)\b.*?"
  r"\nDepartures: .+",
  re.DOTALL,
)


@pytest.mark.parametrize("path", PAPERS, ids=lambda p: p.stem)
def test_the_header_of_a_method(path):
  text = ast.get_docstring(ast.parse(path.read_text()))
  assert text is not None
  assert HEADER.search(text), text
  summary, equation = text.split("\n\n")[:2]
  assert summary.endswith((".", "?")), summary
  assert re.search(r"^ {4}.*= ", equation, re.MULTILINE), equation


def test_references_of_losses_can_be_found():
  """By an arXiv id or a DOI, where there is one."""
  referring = 0
  for name in dir(losses):
    text = inspect.getdoc(getattr(losses, name)) or ""
    _, found, reference = text.partition("References: ")
    if found and not reference.startswith("none"):
      referring += 1
      assert re.match(r"[^\n]*(\n +[^\n]*)*?(arXiv:\d{4}\.\d|doi:10\.)",
                      reference), name  # fmt: skip
  assert referring > 10
