# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The cache: where it is, and how files get into it whole or not at all."""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from jdistill.types import UserError

_CHUNK = 1 << 20


class Unreachable(UserError):
  """What a reference names is not cached and its source does not answer."""


def cache_directory(
  cache_dir: str | os.PathLike[str] | None = None,
) -> pathlib.Path:
  """The cache: `cache_dir`, else $JDISTILL_CACHE, else ~/.cache/jdistill.

  Raises:
    UserError: it cannot be made.
  """
  chosen = cache_dir or os.environ.get("JDISTILL_CACHE") or "~/.cache/jdistill"
  path = pathlib.Path(chosen).expanduser().absolute()
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(
      f"cache directory {path}: {error.strerror}; set JDISTILL_CACHE to a"
      " directory that can be written"
    ) from None
  return path


@contextlib.contextmanager
def lock(root: pathlib.Path, name: str) -> Iterator[None]:
  """Lets one process at a time fetch `name` into the cache.

  It only saves work: files appear by an atomic rename, so that where a file
  system knows no locks the result is still right.
  """
  directory = root / ".locks"
  directory.mkdir(parents=True, exist_ok=True)
  with open(directory / name, "w") as file:
    with contextlib.suppress(ImportError, OSError):
      import fcntl

      fcntl.flock(file, fcntl.LOCK_EX)
    yield


@contextlib.contextmanager
def scratch(directory: pathlib.Path) -> Iterator[pathlib.Path]:
  """A directory beside `directory`'s files that is gone afterwards."""
  directory.mkdir(parents=True, exist_ok=True)
  path = pathlib.Path(tempfile.mkdtemp(prefix=".partial-", dir=directory))
  try:
    yield path
  finally:
    shutil.rmtree(path, ignore_errors=True)


def need_space(directory: pathlib.Path, num_bytes: int, what: str) -> None:
  """Refuses what does not fit on the disk, before a byte is written."""
  free = shutil.disk_usage(directory).free
  if num_bytes > free:
    raise UserError(
      f"{what} needs {num_bytes / 1e6:,.0f} MB in {directory} and the disk has"
      f" {free / 1e6:,.0f} MB free; set JDISTILL_CACHE to another disk"
    )


def copy_hashed(source: Any, target: Any, digest: Any) -> None:
  """Copies a binary stream and updates `digest`, of hashlib, with it."""
  while block := source.read(_CHUNK):
    digest.update(block)
    target.write(block)
