# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""jdistill's docstrings as Markdown.

Sections begin with a word and a colon at the margin. `Args:` and `Attributes:`
list names, `Example:` is a doctest; other sections are text, from behind the
colon on. Blocks that are indented by four are equations or code.
"""

import re

SECTIONS = (
  "Args", "Attributes", "Returns", "Raises", "Example", "References",
  "Departures", "Paper", "Fidelity",
)  # fmt: skip
_HEAD = re.compile(rf"({'|'.join(SECTIONS)}):(?: (.*))?$")
_ITEM = re.compile(r"  (?! )(.+?): (.*)$")
_SHAPE = re.compile(r"(?<![`\w])\[(?:\*?[A-Z]\b|[0-9]|[ ,.+*-]|\.\.\.)*\]")
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
_DOI = re.compile(r"doi:(10\.[\w.()/-]*[\w)])")


def sections(text: str) -> list[tuple[str, list[str]]]:
  """Parts of a cleaned docstring: (section, lines), "" for plain text."""
  found: list[tuple[str, list[str]]] = [("", [])]
  for line in text.splitlines():
    head = _HEAD.match(line)
    name, lines = found[-1]
    if head:
      found.append((head[1], [f"  {head[2]}"] if head[2] else []))
    elif name and line and not line.startswith("  ") and not _goes_on(found):
      found.append(("", [line]))
    else:
      lines.append(line)
  return [(name, lines) for name, lines in found if any(lines)]


def _goes_on(found: list[tuple[str, list[str]]]) -> bool:
  """Whether a line at the margin belongs to a section: no blank before it."""
  name, lines = found[-1]
  return name not in ("Args", "Attributes", "Example") and bool(
    lines and lines[-1]
  )


def markdown(text: str) -> str:
  """A cleaned docstring as Markdown."""
  return "\n\n".join(
    _section(name, lines) for name, lines in sections(text)
  ).strip()


def _section(name: str, lines: list[str]) -> str:
  if not name:
    return prose(lines)
  if name == "Example":
    body = "\n".join(line[2:] for line in lines).strip()
    return f"**Example**\n\n```pycon\n{body}\n```"
  if name in ("Args", "Attributes"):
    return f"**{name}**\n\n{_items(lines)}"
  return f"**{name}** {joined(lines)}"


def joined(lines: list[str]) -> str:
  """The text of a section in one line."""
  return inline(" ".join(line.strip() for line in lines).strip())


def _items(lines: list[str]) -> str:
  items: list[list[str]] = []
  for line in lines:
    item = _ITEM.match(line)
    if item:
      names = ", ".join(f"`{n.strip()}`" for n in item[1].split(","))
      items.append([f"- {names}: {inline(item[2])}"])
    elif line.strip() and items:
      items[-1].append(inline(line.strip()))
  return "\n".join(" ".join(item) for item in items)


def prose(lines: list[str]) -> str:
  """Paragraphs with equations and lists; what is indented stays as it is."""
  out: list[str] = []
  code, blank, listed = False, True, False
  for line in lines:
    indented = line.startswith("    ") and not listed
    code = bool(line) and (
      (indented and (blank or code)) if line.strip() else code
    )
    bullet = line.startswith("- ")
    if bullet and out and out[-1] and not listed:
      out.append("")
    listed = bullet or (listed and line.startswith("  "))
    out.append(line if code else inline(line))
    blank = not line.strip()
  return "\n".join(out).strip("\n")


def inline(text: str) -> str:
  """Text whose stars, brackets and references are safe in Markdown."""
  parts = re.split(r"(`[^`]*`)", text)
  for i in range(0, len(parts), 2):
    pieces = re.split(f"({_SHAPE.pattern})", parts[i])
    for j in range(0, len(pieces), 2):
      plain = re.sub(r"([*<|])", r"\\\1", pieces[j])
      plain = _ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", plain)
      pieces[j] = _DOI.sub(r"[doi:\1](https://doi.org/\1)", plain)
    for j in range(1, len(pieces), 2):
      pieces[j] = f"`{pieces[j]}`"
    parts[i] = "".join(pieces)
  return "".join(parts)
