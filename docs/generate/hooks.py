# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What MkDocs asks for as it builds the site: generated pages and links.

Pages of methods, modules and configs are made of the files of the repository.
Links of a page to files outside of docs/, which are right in the repository,
lead to the pages that show them; to a file that no page shows is an error.
"""

import functools
import pathlib
import posixpath
import re
from typing import Any

import command_pages
import config_pages
import method_pages
import notebook_pages
import reference_pages
import source
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
_CODE = re.compile(r"(^ *```.*?^ *```|`[^`\n]+`)", re.M | re.S)
_CONFIG = re.compile(r"`configs/(\w+)\.py`")
_FIGURES = re.compile(r"`docs/(results/\w+\.jsonl?)`")
_SPDX = re.compile(r"\A(<!-- SPDX-.*-->\n)+\n*")


OUTSIDE = {
  "launch.md": "launch/README.md",
  "contributing.md": "CONTRIBUTING.md",
  "changelog.md": "CHANGELOG.md",
}
"""Pages that are files elsewhere in the repository, as they are."""


@functools.cache
def generated() -> dict[str, str]:
  """Markdown of the pages that no file in docs/ has, by path."""
  return {
    **method_pages.pages(),
    **command_pages.pages(),
    **reference_pages.pages(),
    **config_pages.pages(),
    **notebook_pages.pages(),
    **{
      page: (source.ROOT / file).read_text()
      for page, file in OUTSIDE.items()
      if (source.ROOT / file).is_file()
    },
  }


def on_config(config: Any) -> Any:
  """Puts the generated pages into the navigation."""
  config.nav = _filled(config.nav)
  return config


def _filled(entries: list[Any]) -> list[Any]:
  """The entries with what is generated.

  `Title: folder/` gets the pages of that folder; a page that would be a file
  elsewhere goes if there is no such file.
  """
  found = []
  for entry in entries:
    if isinstance(entry, str):
      found.append(entry)
      continue
    ((title, value),) = entry.items()
    if isinstance(value, list):
      found.append({title: _filled(value)})
    elif value.endswith("/"):
      index = f"{value}index.md"
      inside = [p for p in generated() if p.startswith(value) and p != index]
      found.append({title: [index, *({_title(p): p} for p in inside)]})
    elif value not in OUTSIDE or value in generated():
      found.append(entry)
  return found


def _title(path: str) -> str:
  return posixpath.basename(path).removesuffix(".md")


def on_files(files: Any, config: Any) -> Any:
  """Adds the generated pages."""
  for path, text in generated().items():
    files.append(File.generated(config, path, content=text))
  return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
  """Leads links out of docs/, and names of configs, to pages of the site."""
  del config
  here = page.file.src_uri
  if here in generated() and _folder(here).startswith("docs"):
    return markdown  # its links are right already
  markdown = _SPDX.sub("", markdown)

  def mended(match: re.Match[str]) -> str:
    target, anchor = match[1], match[2] or ""
    path = posixpath.normpath(posixpath.join(_folder(here), target))
    if files.get_file_from_path(path.removeprefix("docs/")):
      inside = path.removeprefix("docs/")
    else:
      inside = _shown(path, here)
    return f"]({source.link(here, inside)}{anchor})"

  parts = _CODE.split(markdown)
  for i, part in enumerate(parts):
    if i % 2 == 0:
      parts[i] = _LINK.sub(mended, part)
    elif _open(parts[i - 1]) and (path := _named(part)):
      parts[i] = f"[{part}]({source.link(here, path)})"
  return "".join(parts)


def _named(code: str) -> str | None:
  """The page of a config, or the file of figures, that `code` names."""
  if figures := _FIGURES.fullmatch(code):
    return figures[1]
  config = _CONFIG.fullmatch(code)
  path = f"configs/{config[1]}.md" if config else ""
  return path if path in generated() else None


def _folder(page: str) -> str:
  """Where the file of a page lies in the repository."""
  if page in OUTSIDE:
    return posixpath.dirname(OUTSIDE[page])
  if page.startswith("notebooks/") and not page.endswith("/index.md"):
    return "colab"
  return posixpath.join("docs", posixpath.dirname(page))


def _open(before: str) -> bool:
  """Whether what follows is in no link and no heading."""
  line = before.rpartition("\n")[2]
  return not line.startswith("#") and line.count("[") == line.count("]")


def _shown(path: str, page: str) -> str:
  """The page that shows a file of the repository."""
  file = pathlib.PurePosixPath(path)
  for shown, outside in OUTSIDE.items():
    if path == outside:
      return shown
  if path == "README.md":
    return "index.md"
  if file.suffix == ".ipynb" and (source.ROOT / path).is_file():
    return f"notebooks/{file.stem}.md"
  if file.parent.name == "configs" and file.suffix == ".py":
    return f"configs/{file.stem}.md"
  if file.parent.name == "methods" and file.suffix == ".py":
    method = method_pages.page_of(source.ROOT / path)
    if method is not None:
      return method
  raise PluginError(f"{page}: no page of the site shows {path}")
