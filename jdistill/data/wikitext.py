# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""MediaWiki XML dumps as plain prose, one document per article."""

import functools
import html
import pathlib
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from jdistill import types
from jdistill.data import files, records

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_NOT_PROSE = re.compile(
  r"<(ref|math|gallery|table|timeline|source|syntaxhighlight|imagemap|score|"
  r"code|pre|poem)\b[^>]*?(/>|>.*?</\1\s*>)",
  re.DOTALL | re.IGNORECASE,
)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_BRACES = re.compile(r"\{\{|\}\}|^[ \t:]*\{\||^[ \t]*\|\}", re.MULTILINE)
_LINK = re.compile(r"\[\[((?:(?!\[\[|\]\]).)*)\]\]", re.DOTALL)
_OTHER_PAGES = re.compile(
  r":?\s*(file|image|category|media|[a-z]{2,3}(-[a-z]+)?)\s*:", re.IGNORECASE
)
_WEB = re.compile(r"\[(?:https?:|ftp:|mailto:)?//[^\s\]]*\s*([^\]]*)\]")
_HEADING = re.compile(r"^(={2,6})\s*(.*?)\s*\1[ \t]*$", re.MULTILINE)
_APPENDICES = re.compile(
  r"bibliography|citations|external links|footnotes|further reading|gallery|"
  r"literature|notes( and references)?|publications|references|see also|"
  r"sources|works cited",
  re.IGNORECASE,
)
_EMPTIED = re.compile(r"[ \t]*\([\s,;:]*\)")
_HALF_EMPTIED = re.compile(r"\(\s*[,;:][\s,;:]*")


class MediaWiki(records.Records):
  """The articles of a dump, redirects and other name spaces left out."""

  def __init__(self, paths: Sequence[pathlib.Path]):
    self._paths = list(paths)
    self._articles = [
      (title, prose) for path in self._paths for title, prose in _articles(path)
    ]

  @functools.cached_property
  def identity(self) -> str:
    return files.identity(self._paths)

  def __len__(self) -> int:
    return len(self._articles)

  def __getitem__(self, index: int) -> Mapping[str, Any]:
    title, prose = self._articles[index]
    return {"title": title, "text": prose}

  def where(self, index: int) -> str:
    return f"article {self._articles[index][0]!r} of {self._paths[0]}"

  def names(self) -> Sequence[str]:
    return [title for title, _ in self._articles]


def plain(markup: str) -> str:
  """The running text of an article's wikitext.

  Templates, tables, references, images and the appendices go; links keep
  their words, headings stand alone on a line.
  """
  text = _COMMENT.sub("", markup)
  text = _NOT_PROSE.sub("", text)
  text = _without_braces(text)
  # Innermost first, as captions of images hold links.
  previous = None
  while previous != text:
    previous, text = text, _LINK.sub(_words_of_link, text)
  text = _WEB.sub(r"\1", text)
  text = _without_appendices(text)
  text = _TAG.sub("", text.replace("'''", "").replace("''", ""))
  text = html.unescape(text).replace("\xa0", " ")
  text = re.sub(r"^[*#:;]+\s*", "", text, flags=re.MULTILINE)
  text = _HALF_EMPTIED.sub("(", _EMPTIED.sub("", text))
  text = re.sub(r"[ \t]+([,.;)]|$)", r"\1", text, flags=re.MULTILINE)
  text = re.sub(r"[ \t]{2,}", " ", text)
  return re.sub(r"\n\s*\n\s*", "\n\n", text).strip()


def _articles(path: pathlib.Path) -> Iterator[tuple[str, str]]:
  title, space, redirect = "", "0", False
  with files.open_bytes(path) as f:
    try:
      for _, node in ElementTree.iterparse(f):
        tag = node.tag.rpartition("}")[2]
        if tag == "title":
          title, redirect = node.text or "", False
        elif tag == "ns":
          space = node.text or "0"
        elif tag == "redirect":
          redirect = True
        elif tag == "text" and space == "0" and not redirect:
          prose = plain(node.text or "")
          if prose:
            yield title, prose
        elif tag == "page":
          node.clear()
    except (ElementTree.ParseError, OSError, EOFError, zlib.error) as e:
      raise types.UserError(f"{path}: not a whole MediaWiki dump: {e}") from e


def _without_braces(text: str) -> str:
  """Drops templates and tables, which nest in each other."""
  kept, depth, at = [], 0, 0
  for match in _BRACES.finditer(text):
    opens = match.group().endswith(("{{", "{|"))
    if depth == 0:
      if not opens:
        continue
      kept.append(text[at : match.start()])
    depth += 1 if opens else -1
    at = match.end()
  if depth == 0:
    kept.append(text[at:])
  return "".join(kept)


def _words_of_link(match: re.Match[str]) -> str:
  if _OTHER_PAGES.match(match[1]):
    return ""
  return match[1].rpartition("|")[2]


def _without_appendices(text: str) -> str:
  """Drops the sections that hold lists of sources, and marks of headings."""
  kept, at, below = [], 0, 0  # `below`: level of the section being dropped
  for match in _HEADING.finditer(text):
    level, name = len(match[1]), match[2]
    if not below:
      kept.append(text[at : match.start()])
    at = match.end()
    if not below or level <= below:
      below = level if _APPENDICES.fullmatch(name) else 0
      if not below:
        kept.append(f"\n{name}\n")
  if not below:
    kept.append(text[at:])
  return "".join(kept)
