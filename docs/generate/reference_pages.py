# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A page for each public module, which mkdocstrings fills."""

import docstrings
import source

MODULES = (
  "losses",
  "methods",
  "config",
  "students",
  "schedules",
  "optim",
  "data",
  "models",
  "surgery",
  "tokenizers",
  "refs",
  "rollout",
  "sampling",
  "sampling.speculative",
  "cached",
  "served",
  "audit",
  "beds",
  "types",
  "step",
  "sharding",
  "checkpoint",
  "metrics",
  "train",
  "evaluate",
  "harness",
  "export",
  "plan",
)


def pages() -> dict[str, str]:
  """Markdown by path."""
  found = {f"reference/{name}.md": _page(name) for name in MODULES}
  lines = [
    "# Reference",
    "",
    "[The commands](commands.md), and the modules:",
    "",
    "| module | |",
    "|---|---|",
  ]
  for name in MODULES:
    text = source.docstring(source.file_of(f"jdistill.{name}"))
    first = docstrings.inline(text.partition("\n")[0])
    lines.append(f"| [`jdistill.{name}`]({name}.md) | {first} |")
  return {"reference/index.md": "\n".join(lines) + "\n", **found}


def _page(name: str) -> str:
  module = f"jdistill.{name}"
  text = source.docstring(source.file_of(module))
  lines = [f"# jdistill.{name}", "", docstrings.markdown(text), ""]
  entries = source.public(module)
  if len(entries) > 5:
    lines += ["| | |", "|---|---|"]
    lines += [
      f"| [`{e.name}`](#{e.path}) | {docstrings.inline(e.summary)} |"
      for e in entries
    ]
    lines.append("")
  for entry in entries:
    lines += [
      f"::: {entry.path}",
      "    options:",
      f"      heading: {entry.name}",
      f"      toc_label: {entry.name}",
      "",
    ]
  return "\n".join(lines)
