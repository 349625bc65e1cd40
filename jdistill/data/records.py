# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Corpora as numbered records: text files, pydoc topics, MediaWiki dumps.

The tables (JSON lines, Parquet, CSV, TFDS) are in `tables.py`.
"""

import abc
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from jdistill.data import files

Cutting = Literal["file", "paragraph", "line"]


class Records(abc.ABC):
  """The records of a corpus, by number, in an order that does not change."""

  @property
  @abc.abstractmethod
  def identity(self) -> str:
    """Changes when the content does."""

  @abc.abstractmethod
  def __len__(self) -> int: ...

  @abc.abstractmethod
  def __getitem__(self, index: int) -> Mapping[str, Any]:
    """The fields of one record."""

  @abc.abstractmethod
  def where(self, index: int) -> str:
    """Says to a person which record that is."""

  def names(self) -> Sequence[str] | None:
    """The records' names, where they have names of their own."""
    return None


class TextFiles(Records):
  """Text files; each is a document, or each paragraph or line of it is.

  Names are paths below the directory that the files have in common. Empty
  paragraphs and lines are left out.
  """

  def __init__(self, paths: Sequence[pathlib.Path], cutting: Cutting = "file"):
    self._paths = list(paths)
    self._root = pathlib.Path(os.path.commonpath([p.parent for p in paths]))
    self._cutting = cutting
    # One document per file is read when asked for; parts are cut at once.
    self._parts = None if cutting == "file" else self._cut()

  @property
  def identity(self) -> str:
    return files.combine(files.identity(self._paths), self._cutting)

  def __len__(self) -> int:
    return len(self._paths) if self._parts is None else len(self._parts)

  def __getitem__(self, index: int) -> Mapping[str, Any]:
    if self._parts is not None:
      return {"text": self._parts[index][1]}
    return {"text": self._read(self._paths[index])}

  def where(self, index: int) -> str:
    if self._parts is None:
      return str(self._paths[index])
    return f"{self._cutting} {index} of {self._paths[0]}"

  def names(self) -> Sequence[str]:
    names = [p.relative_to(self._root).as_posix() for p in self._paths]
    if self._parts is None:
      return names
    return [names[file] for file, _ in self._parts]

  def _read(self, path: pathlib.Path) -> str:
    return files.decode(files.read_bytes(path), str(path))

  def _cut(self) -> list[tuple[int, str]]:
    between = r"\n[^\S\n]*\n\s*" if self._cutting == "paragraph" else r"\n"
    return [
      (number, part)
      for number, path in enumerate(self._paths)
      for part in re.split(between, self._read(path))
      if part.strip()
    ]


class PydocTopics(Records):
  """The language reference that CPython's `help()` shows, one per topic."""

  def __init__(self):
    from pydoc_data import topics

    self._names = sorted(topics.topics)
    self._texts = [topics.topics[name] for name in self._names]

  @property
  def identity(self) -> str:
    return files.combine(self._names, self._texts)

  def __len__(self) -> int:
    return len(self._names)

  def __getitem__(self, index: int) -> Mapping[str, Any]:
    return {"text": self._texts[index], "title": self._names[index]}

  def where(self, index: int) -> str:
    return f"topic {self._names[index]!r} of stdlib:pydoc"

  def names(self) -> Sequence[str]:
    return self._names


class Memory(Records):
  """Texts or token arrays that the caller already holds."""

  def __init__(self, field: str, values: Sequence[Any], name: str):
    self._field = field
    self._values = list(values)
    self._name = name

  @property
  def identity(self) -> str:
    # The repr of a long array leaves out its middle.
    plain = (v.tolist() if hasattr(v, "tolist") else v for v in self._values)
    return files.combine(*plain)

  def __len__(self) -> int:
    return len(self._values)

  def __getitem__(self, index: int) -> Mapping[str, Any]:
    return {self._field: self._values[index]}

  def where(self, index: int) -> str:
    return f"document {index} of {self._name}"
