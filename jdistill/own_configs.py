# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Configs that come with jdistill: `jdistill train quickstart`."""

import difflib
import functools
import pathlib


@functools.cache
def files() -> dict[str, pathlib.Path]:
  """Their files by name: of what is installed, or of the repository."""
  here = pathlib.Path(__file__).parent
  folder = here / "configs"
  if not folder.is_dir() and (here.parent / "pyproject.toml").is_file():
    folder = here.parent / "configs"
  return {path.stem: path for path in sorted(folder.glob("*.py"))}


def find(name: str | pathlib.Path) -> pathlib.Path:
  """A config file, or the one of jdistill's with this name."""
  path = pathlib.Path(name)
  return path if path.exists() else files().get(str(name), path)


def near(name: str | pathlib.Path) -> str:
  """What to say of a name that is neither."""
  close = difflib.get_close_matches(pathlib.Path(name).stem, files(), 3)
  return f"; jdistill has {', '.join(close)}" if close else ""
