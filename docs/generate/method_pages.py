# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A page for each method, of its file, its configs and its results."""

import ast
import dataclasses
import functools
import inspect
import json
import pathlib
import re
import sys
from typing import Any

import config_pages
import docstrings
import source

from jdistill import methods as methods_lib

sys.path.insert(0, str(source.ROOT / "docs" / "results"))
import methods as experiments_lib  # docs/results/methods.py
import page as results_page

FIDELITY = {
  "code": "from the authors' code",
  "paper": "from the paper",
  "reconstructed": "reconstructed",
}


@functools.cache
def classes() -> dict[str, type[methods_lib.Method]]:
  """Every method of the registry by its public name."""
  found = inspect.getmembers(methods_lib, inspect.isclass)
  return {
    name: cls
    for name, cls in sorted(found, key=lambda pair: pair[0].lower())
    if issubclass(cls, methods_lib.Method) and not inspect.isabstract(cls)
  }


@functools.cache
def pages() -> dict[str, str]:
  """Markdown by path."""
  found = {
    f"methods/{name}.md": _page(name, c) for name, c in classes().items()
  }
  return {"methods/index.md": _index(), **found}


def page_of(path: pathlib.Path) -> str | None:
  """The page of the method that a file has, if it has one."""
  for name, cls in classes().items():
    if pathlib.Path(inspect.getfile(cls)).name == path.name:
      return f"methods/{name}.md"
  return None


def _parts(cls: type) -> dict[str, str]:
  """Sections of the file's docstring; "title" is its first line."""
  text = source.docstring(pathlib.Path(inspect.getfile(cls)))
  parts = {"": ""}
  for name, lines in docstrings.sections(text):
    parts[name] = "\n".join(lines)
  first, _, rest = parts[""].partition("\n")
  return {**parts, "title": first, "": rest.strip("\n")}


GROUPS = {
  "Whole distributions": "Given text, token by token.",
  "Text that is written": "By the student or its teacher, during the run.",
  "Another tokenizer": "The teacher has tokens of its own.",
  "Features": "Hidden states, router probabilities, or what is pooled of them.",
  "The text alone": "No teacher.",
  "Made of other methods": "They stand where any method does.",
}
WRITTEN = {"log_probs", "sampling_log_probs", "age", "source", "reward"}


def _group(cls: type[methods_lib.Method]) -> str:
  """Where a method belongs, by what it asks for with its defaults."""
  try:
    method = cls()
  except TypeError:  # it needs fields, which are methods
    return "Made of other methods"
  needs = method.needs()
  if set(needs.views) - {"student", "teacher"} or WRITTEN & set(needs.data):
    return "Text that is written"
  if "teacher" in needs.views:
    return "Another tokenizer"
  if method.wants():
    return "Features"
  return "Whole distributions" if needs.teachers else "The text alone"


def _index() -> str:
  lines = [
    "# Methods",
    "",
    "One method is one file: a frozen dataclass with a pure `loss`. Each says",
    "how faithful it is to its paper: made from the authors' code, from the",
    "paper's text, or reconstructed where neither says everything. Whether a",
    "paper's claim was found on small exact worlds is in [the",
    "results](../results.md). `Sum` adds methods with weights or schedules.",
    "",
  ]
  for group, text in GROUPS.items():
    lines += [f"## {group}", "", text, ""]
    lines += ["| method | | fidelity | measured |", "|---|---|---|---|"]
    for name, cls in classes().items():
      if _group(cls) == group:
        lines.append(_line(name, cls))
    lines.append("")
  return "\n".join(lines)


def _line(name: str, cls: type) -> str:
  parts = _parts(cls)
  label = re.match(r"\s*(\w*)", parts.get("Fidelity", ""))[1]
  rows = ", ".join(
    f"[{e.title}](../results.md#{results_page._anchor(e.title)})"
    for e in _experiments(name)
  )
  title = docstrings.inline(parts["title"])
  return f"| [`{name}`]({name}.md) | {title} | {label} | {rows} |"


def _page(name: str, cls: type) -> str:
  parts = _parts(cls)
  file = pathlib.Path(inspect.getfile(cls))
  lines = [f"# {name}", "", docstrings.inline(parts["title"]), ""]
  lines += [docstrings.prose(parts[""].splitlines()), ""]
  lines += _facts(name, cls, parts)
  if "Departures" in parts:
    text = docstrings.joined(parts["Departures"].splitlines())
    lines += [
      "## Departures",
      "",
      "Where code, paper and this file differ.",
      "",
    ]
    lines += [text[0].upper() + text[1:], ""]
  lines += ["## Fields", "", docstrings.markdown(inspect.getdoc(cls) or ""), ""]
  lines += _fields(cls)
  lines += _results(name)
  shown = "\n".join(file.read_text().splitlines()[2:])
  lines += ["## The file", "", f'??? quote "jdistill/methods/{file.name}"', ""]
  block = ["```python", *shown.splitlines(), "```"]
  lines += [f"    {line}".rstrip() for line in block]
  return "\n".join(lines) + "\n"


def _facts(name: str, cls: type, parts: dict[str, str]) -> list[str]:
  lines = ["| | |", "|---|---|"]
  for section in ("Paper", "Fidelity"):
    if section in parts:
      text = docstrings.joined(parts[section].splitlines())
      word = text.split(" ")[0].strip(".")
      if section == "Fidelity" and word in FIDELITY:
        text = text.replace(word, FIDELITY[word], 1)
      lines.append(f"| {section} | {text} |")
  lines += [f"| {key} | {value} |" for key, value in _needs(cls).items()]
  files = [
    p for p in config_pages.CONFIGS if name in config_pages.methods_of(p)
  ]
  if files:
    links = ", ".join(f"[`{p.name}`](../configs/{p.stem}.md)" for p in files)
    lines.append(f"| Configs | {links} |")
  return [*lines, ""]


def _needs(cls: type) -> dict[str, str]:
  """What `Method.needs` says of the method with its defaults."""
  try:
    needs = cls().needs()
  except TypeError:  # it is made of other methods
    return {"Needs": "what the methods that it is made of need"}

  def names(values: Any) -> str:
    return ", ".join(f"`{value}`" for value in values)

  found = {
    "Teachers": names(needs.teachers) or "none",
    "Views of a row": names(needs.views),
  }
  if needs.teachers:
    found["Tokenizers"] = (
      "the same" if needs.same_vocabulary else "the teacher's may be another"
    )
    found["Teachers of a few ids"] = names(needs.sparse) or "no"
  if needs.data:
    found["Of the batch"] = names(needs.data)
  if needs.tables:
    found["Of the tokenizers"] = names(needs.tables)
  if cls.batch_coupled:
    found["Microbatches"] = "refused: rows of a batch enter each other's loss"
  return found


def _fields(cls: type) -> list[str]:
  """A row for each field, as it is written where it is declared."""
  rows = {}
  for owner in reversed(cls.__mro__):
    if owner.__module__.startswith("jdistill."):
      rows |= _declared(owner)
  lines = [rows[field.name] for field in dataclasses.fields(cls)]
  if not lines:
    return []
  return ["| field | type | default |", "|---|---|---|", *lines, ""]


def _declared(cls: type) -> dict[str, str]:
  rows = {}
  for node in source.tree(pathlib.Path(inspect.getfile(cls))).body:
    if isinstance(node, ast.ClassDef) and node.name == cls.__name__:
      for item in node.body:
        if isinstance(item, ast.AnnAssign):
          name = ast.unparse(item.target)
          kind = ast.unparse(item.annotation).replace("|", "\\|")
          default = f"`{ast.unparse(item.value)}`" if item.value else ""
          rows[name] = f"| `{name}` | `{kind}` | {default} |"
  return rows


def _experiments(name: str) -> list[Any]:
  return [e for e in experiments_lib.EXPERIMENTS.values() if name in e.methods]


def _results(name: str) -> list[str]:
  """Claim, verdict and figures of the experiments with the method."""
  figures = json.loads(results_page.FIGURES.read_text())
  lines = []
  for experiment in _experiments(name):
    if experiment.name not in figures:
      continue
    anchor = results_page._anchor(experiment.title)
    section = results_page._section(experiment, figures[experiment.name])
    body = section.split("**Claim.**")[1].split("\n```sh")[0].strip()
    lines += [
      f"### [{experiment.title}](../results.md#{anchor})",
      "",
      f"**Claim.** {body}",
      "",
    ]
  return ["## Measured", "", *lines] if lines else []
