# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""One bad input: how it is made, the command that meets it, what is said."""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

Make = Callable[[pathlib.Path], Any]
"""Spoils something in a directory that is a copy of the world."""


@dataclasses.dataclass(frozen=True)
class Case:
  """A row of the table.

  `argv` is what is typed after `jdistill`; `says` are parts of the message:
  what is wrong, and where. `makes` are applied first, in order. `leaves` are
  names of what a job leaves that has begun, so that it can go on.
  """

  name: str
  argv: str
  says: tuple[str, ...]
  makes: tuple[Make, ...] = ()
  leaves: tuple[str, ...] = ()


def case(
  name: str,
  argv: str,
  *rest: str | Make,
  leaves: tuple[str, ...] = (),
) -> Case:
  """A row from words: texts are what is said, functions what is done."""
  says = tuple(one for one in rest if isinstance(one, str))
  makes = tuple(one for one in rest if not isinstance(one, str))
  assert says, f"{name}: says nothing"
  return Case(name, argv, says, makes, leaves)


def put(path: str, content: str | bytes = b"") -> Make:
  """A file with this content."""
  data = content.encode() if isinstance(content, str) else content

  def make(root: pathlib.Path) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(data)

  return make


def cut(path: str, size: int) -> Make:
  """A file of which so many bytes are left, or without the last so many."""
  return swap(path, lambda data: data[:size])


def swap(path: str, change: Callable[[bytes], bytes]) -> Make:
  """A file whose bytes are changed."""

  def make(root: pathlib.Path) -> None:
    (root / path).write_bytes(change((root / path).read_bytes()))

  return make


def fields(path: str, **changes: Any) -> Make:
  """A JSON file with other fields; None takes one away."""

  def make(root: pathlib.Path) -> None:
    tree = json.loads((root / path).read_text()) | changes
    left_out = {k for k, v in changes.items() if v is None}
    tree = {k: v for k, v in tree.items() if k not in left_out}
    (root / path).write_text(json.dumps(tree))

  return make


def gone(path: str) -> Make:
  """Files that are removed, by a pattern of which there is at least one."""

  def make(root: pathlib.Path) -> None:
    found = sorted(root.glob(path))
    assert found, path
    for one in found:
      one.unlink()

  return make


def rows(path: str, *lines: str) -> Make:
  """A file of lines."""
  return put(path, "".join(f"{line}\n" for line in lines))


def config(code: str) -> Make:
  """`bad.py`: the config of `tiny.py` as `cfg`, after which `code` is run."""

  def make(root: pathlib.Path) -> None:
    text = (root / "tiny.py").read_text()
    assert "  return cfg\n" in text
    body = f"  {code}\n  return cfg\n"
    (root / "bad.py").write_text(text.replace("  return cfg\n", body))

  return make


def change(arguments: str) -> Make:
  """`bad.py`: the config of `tiny.py` with fields replaced."""
  return config(f"cfg = dataclasses.replace(cfg, {arguments})")


def text(path: str, more: str = "") -> Make:
  """`bad.py`: the config of `tiny.py` with another source of text."""
  return change(
    f"data=data.TextData((data.Source({path!r}, {more}),), seq_len=16, "
    "batch_size=8), evals={}"
  )
