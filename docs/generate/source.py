# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What pages are made from: the package's and the configs' files, read only."""

import ast
import dataclasses
import functools
import pathlib
import posixpath

ROOT = pathlib.Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Public:
  """A public name of a module and where it is defined."""

  name: str
  path: str  # such as jdistill.losses.divergences.forward_kl
  summary: str


@functools.cache
def tree(path: pathlib.Path) -> ast.Module:
  return ast.parse(path.read_text())


def docstring(path: pathlib.Path) -> str:
  return ast.get_docstring(tree(path)) or ""


def file_of(module: str) -> pathlib.Path:
  """The file of a module such as `jdistill.losses`."""
  path = ROOT.joinpath(*module.split("."))
  return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@functools.cache
def public(module: str) -> list[Public]:
  """Classes and functions that a module hands out, in its own order.

  Those are its own with a docstring and no underscore, and what it imports
  under the same name once more or lists in `__all__`.
  """
  found = {}
  nodes = tree(file_of(module)).body
  listed = _listed(nodes)
  for node in nodes:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
      text = ast.get_docstring(node)
      if text and not node.name.startswith("_"):
        path = f"{module}.{node.name}"
        found[node.name] = Public(node.name, path, _first(text))
    elif isinstance(node, ast.ImportFrom):
      for alias in node.names:
        if alias.asname == alias.name or alias.name in listed:
          text = _text_of(f"{node.module}", alias.name)
          if text:
            path = f"{node.module}.{alias.name}"
            found[alias.name] = Public(alias.name, path, _first(text))
  return list(found.values())


def _listed(nodes: list[ast.stmt]) -> set[str]:
  """The names of `__all__`."""
  for node in nodes:
    if isinstance(node, ast.Assign) and ast.unparse(node).startswith("__all__"):
      return set(ast.literal_eval(node.value))
  return set()


def _text_of(module: str, name: str) -> str:
  """The docstring of a class or function; empty for other things."""
  for node in tree(file_of(module)).body:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
      return ast.get_docstring(node) or ""
  return ""


def _first(text: str) -> str:
  return text.partition("\n\n")[0].replace("\n", " ")


def link(page: str, target: str) -> str:
  """The link from one page of the site to another, both like `a/b.md`."""
  path, hash_, anchor = target.partition("#")
  return posixpath.relpath(path, posixpath.dirname(page)) + hash_ + anchor
