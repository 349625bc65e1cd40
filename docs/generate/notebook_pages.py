# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A page for each notebook of colab/, to read; what it prints is not in it."""

import json
import pathlib
import re

import source

NOTEBOOKS = sorted((source.ROOT / "colab").glob("*.ipynb"))
_BADGE = re.compile(r"\[!\[[^\]]*\]\([^)]*\)\]\(([^)]*)\)")


def pages() -> dict[str, str]:
  """Markdown by path."""
  lines = [
    "# Notebooks",
    "",
    "In `colab/`, to run on Colab or anywhere. The tests run each of them,",
    "with fewer steps.",
    "",
    "| notebook | |",
    "|---|---|",
  ]
  found = {}
  for path in NOTEBOOKS:
    text = _page(path)
    title = re.search(r"^# (.+)$", text, re.M)
    assert title, path
    lines.append(f"| [`{path.name}`]({path.stem}.md) | {title[1]} |")
    found[f"notebooks/{path.stem}.md"] = text
  return {"notebooks/index.md": "\n".join(lines) + "\n", **found}


def _page(path: pathlib.Path) -> str:
  """Cells in their order; the badge, which is a picture, as a link."""
  cells = json.loads(path.read_text())["cells"]
  parts = []
  for cell in cells:
    text = "".join(cell["source"]).strip()
    code = cell["cell_type"] == "code" and text
    parts.append(f"```python\n{text}\n```" if code else text)
  badge = _BADGE.search(parts[0])
  parts[0] = _BADGE.sub("", parts[0]).strip()
  title, _, rest = "\n\n".join(filter(None, parts)).partition("\n")
  opened = f", [open it in Colab]({badge[1]})" if badge else ""
  return f"{title}\n\n`colab/{path.name}`{opened}.\n{rest}\n"
