# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A page for each file of configs/."""

import ast
import functools
import pathlib

import docstrings
import source

CONFIGS = sorted((source.ROOT / "configs").glob("*.py"))


def pages() -> dict[str, str]:
  """Markdown by path."""
  lines = [
    "# Configs",
    "",
    "A run is one file with `get_config()`; every field is a flag. These come",
    "with jdistill:",
    "",
    "| file | |",
    "|---|---|",
  ]
  found = {}
  for path in CONFIGS:
    text = source.docstring(path)
    first = docstrings.inline(text.partition("\n")[0])
    lines.append(f"| [`configs/{path.name}`]({path.stem}.md) | {first} |")
    found[f"configs/{path.stem}.md"] = _page(path, text)
  return {"configs/index.md": "\n".join(lines) + "\n", **found}


def _page(path: pathlib.Path, text: str) -> str:
  first, _, rest = text.partition("\n")
  shown = path.read_text().partition('"""\n\n')[2].rstrip()  # below that text
  names = sorted(methods_of(path))
  lines = [f"# configs/{path.name}", "", docstrings.inline(first), ""]
  lines += [_text(rest.strip()), ""]
  if names:
    links = ", ".join(f"[`{name}`](../methods/{name}.md)" for name in names)
    lines += [f"Methods: {links}.", ""]
  return "\n".join([*lines, "```python", shown, "```", ""])


def _text(text: str) -> str:
  """Paragraphs of a config's docstring; commands are code."""
  parts = []
  for paragraph in text.split("\n\n"):
    if paragraph.startswith(("jdistill ", "python ")):
      parts.append(f"```sh\n{paragraph}\n```")
    else:
      parts.append(docstrings.prose(paragraph.splitlines()))
  return "\n\n".join(parts)


@functools.cache
def methods_of(path: pathlib.Path) -> set[str]:
  """Names `X` of `methods.X` in a config that are method classes."""
  used = {
    node.attr
    for node in ast.walk(source.tree(path))
    if isinstance(node, ast.Attribute)
    and isinstance(node.value, ast.Name)
    and node.value.id == "methods"
  }
  return used & {entry.name for entry in source.public("jdistill.methods")} - {
    "Part", "layer_map",
  }  # fmt: skip
