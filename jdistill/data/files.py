# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Bytes and text of data files, and what identifies their content."""

import bz2
import gzip
import hashlib
import lzma
import os
import pathlib
import zlib
from collections.abc import Sequence

from jdistill import types

_WHOLE = 256 << 20
_SAMPLES = 256
_SAMPLE = 64 << 10
_BEGINNINGS = {
  b"\x1f\x8b": "it is packed by gzip: give its name the suffix .gz",
  b"BZh": "it is packed by bzip2: give its name the suffix .bz2",
  b"\xfd7zXZ": "it is packed by xz: give its name the suffix .xz",
  b"PAR1": "it is a Parquet file: name it parquet:PATH",
  b"\xff\xfe": "it is UTF-16: convert it with `iconv -f utf-16 -t utf-8`",
  b"\xfe\xff": "it is UTF-16: convert it with `iconv -f utf-16 -t utf-8`",
}
_OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def open_bytes(path: pathlib.Path):
  """Opens a file for reading bytes; .gz, .bz2 and .xz are unpacked."""
  try:
    return _OPENERS.get(path.suffix.lower(), open)(path, "rb")
  except OSError as e:
    raise types.UserError(f"{path}: cannot be read: {e.strerror}") from e


def read_bytes(path: pathlib.Path) -> bytes:
  """All bytes of a file, unpacked.

  Raises:
    UserError: where the file cannot be read, or is no sound archive.
  """
  with open_bytes(path) as f:
    try:
      return f.read()
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as e:
      raise types.UserError(
        f"{path}: cannot be unpacked ({e}); it may have been cut short"
      ) from e


def decode(data: bytes, where: str) -> str:
  """UTF-8 text without byte order mark, lines ending in a line feed.

  Raises:
    UserError: where bytes are not UTF-8; names `where` and the offset.
  """
  try:
    text = data.decode("utf-8")
  except UnicodeDecodeError as e:
    found = data[e.start : e.start + 4].hex(" ")
    what = "convert it, for instance with `iconv -f latin1 -t utf-8`"
    for begin, known in _BEGINNINGS.items():
      if data.startswith(begin):
        what = known
    raise types.UserError(
      f"{where}: not UTF-8 at byte {e.start} (found {found}); {what}"
    ) from e
  return text.removeprefix("\ufeff").replace("\r\n", "\n")


def digest(path: str | os.PathLike[str], *, by_time: bool = True) -> str:
  """Identifies a file's content: hex.

  Up to 256 MiB all bytes count. Larger files are known by their size, 256
  blocks of 64 KiB at even distances and, unless `by_time` is off, the time of
  their last change.
  """
  size = os.path.getsize(path)
  state = hashlib.blake2b(str(size).encode(), digest_size=16)
  with open(path, "rb") as f:
    if size <= _WHOLE:
      while block := f.read(1 << 20):
        state.update(block)
    else:
      if by_time:
        state.update(str(os.stat(path).st_mtime_ns).encode())
      for i in range(_SAMPLES):
        f.seek(i * (size - _SAMPLE) // (_SAMPLES - 1))
        state.update(f.read(_SAMPLE))
  return state.hexdigest()


def identity(paths: Sequence[pathlib.Path]) -> str:
  """Identifies the content of several files, in their order."""
  return combine(*map(digest, paths))


def combine(*parts: object) -> str:
  """One hex digest of plain values, by their `repr`."""
  return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
