# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Run directories in a bucket: `gs://bucket/path/run`.

Checkpoints are read and written in the bucket itself, by Orbax. Everything
else is small, and some of it grows by a line at a time, which objects cannot:
it lives in a local directory of this process, which `local` fills from the
bucket and `upload` brings back. The bucket alone counts: nothing local is
found again by a later start.

A run uploads before each checkpoint that it saves. So whatever checkpoint a
resumed run finds, the metrics up to it are there too, and what is lost with
the process is what its restart would drop anyway.

A run of several stages is a directory whose `config.json` lists them, with a
complete run directory for each: `NAME/`.
"""

import atexit
import contextlib
import json
import logging
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from concurrent import futures
from typing import Any

from jdistill.types import UserError

_SCHEME = "gs://"
_CHECKPOINTS = "checkpoints"
# What no later start reads is not fetched: it may be large.
_LEFT = (_CHECKPOINTS, "tensorboard", "profile")
RESERVED = _LEFT
"""Names that no stage can have: the directories of a run."""
_PARTIAL = (".tmp", ".part")
_MARK = pathlib.PurePath("config.json")
STAGE_NAME = re.compile(r"[A-Za-z]\w*(-\w+)*", re.ASCII)
SEVERAL = "jdistill.config.Stages"
"""The type of what the config of a run of several stages holds."""

# The bucket's path of each local directory, and what is known to be there.
_buckets: dict[pathlib.Path, "_Bucket"] = {}


class _Bucket:
  """A run's place in a bucket and the files that are the same there."""

  def __init__(self, uri: str):
    self.uri = uri
    self.known: dict[pathlib.PurePath, tuple[int, int]] = {}


def local(where: str | os.PathLike[str], *, new: bool = False) -> pathlib.Path:
  """The directory in which a run's small files are read and written.

  Args:
    where: a run directory, here or in a bucket.
    new: whether there need be no run yet.
  Returns: the directory itself, or a temporary one, filled from the bucket.
  Raises: UserError if the bucket cannot be read, or holds something else.
  """
  text = os.fspath(where)
  if not text.startswith(_SCHEME):
    return pathlib.Path(text)
  uri = text.rstrip("/")
  if uri.count("/") < 3:
    raise UserError(f"{text}: name a directory in the bucket: {uri}/RUN")
  for directory, bucket in _buckets.items():
    rest = uri.removeprefix(bucket.uri).lstrip("/")
    if not new and uri in (bucket.uri, f"{bucket.uri}/{rest}"):
      return directory / rest
  # It tells at every step that it cannot see what kind of bucket this is.
  logging.getLogger("gcsfs").setLevel(logging.ERROR)
  root = pathlib.Path(tempfile.mkdtemp(prefix="jdistill-"))
  atexit.register(shutil.rmtree, root, ignore_errors=True)
  directory = root / uri.rpartition("/")[2]
  directory.mkdir()
  _fetch(uri, directory, new=new)
  _buckets[directory] = _Bucket(uri)
  _buckets[directory].known = dict(_files(directory))
  return directory


def checkpoints(directory: pathlib.Path) -> Any:
  """Where a run's checkpoints are, as an absolute etils.epath.Path.

  Args:
    directory: of `local`.
  """
  from etils import epath

  where = _bucket_of(directory)
  root = directory.absolute() if where is None else name(directory)
  return epath.Path(root) / _CHECKPOINTS


def upload(directory: pathlib.Path) -> None:
  """Brings what has changed into the bucket; nothing to do elsewhere.

  Args:
    directory: of `local`, or of a stage in it.
  Raises: UserError if the bucket cannot be written.
  """
  where = _bucket_of(directory)
  if where is None:
    return
  directory, bucket = where
  found = dict(_files(directory))
  changed = [p for p, state in found.items() if bucket.known.get(p) != state]

  def one(path: pathlib.PurePath) -> None:
    _remote(bucket.uri, path).write_bytes((directory / path).read_bytes())

  def rank(path: pathlib.PurePath) -> int:
    """What begins with its mark is a run, however much came after."""
    return (path == _MARK) + (path.name == _MARK.name)

  with _told(bucket.uri, "written"):
    for now in (2, 1, 0):
      _all(one, [path for path in changed if rank(path) == now])
  bucket.known |= {path: found[path] for path in changed}


def check_place(path: pathlib.Path, flag: str) -> None:
  """Refuses a place that cannot come to be: below a file, or not writable.

  Args:
    path: what is to be written; need not exist.
    flag: that named it.
  """
  there = path.absolute()
  while not there.exists():
    there = there.parent
  what = None
  if there != path.absolute() and not there.is_dir():
    what = f"{there} is a file"
  elif not os.access(there, os.W_OK):
    what = f"{there} cannot be written"
  if what is not None:
    raise UserError(f"{flag} {path}: {what}; choose another place")


def refresh(directory: pathlib.Path) -> None:
  """Reads again from the bucket what another process has uploaded.

  Args:
    directory: of `local`; elsewhere than in a bucket all see the same files.
  """
  bucket = _buckets.get(directory)
  if bucket is not None:
    _fetch(bucket.uri, directory, new=False)
    bucket.known |= dict(_files(directory))


def name(path: pathlib.Path) -> str:
  """How people call a run's directory or a file in it."""
  where = _bucket_of(path)
  if where is None:
    return str(path)
  directory, bucket = where
  rest = path.relative_to(directory).as_posix()
  return bucket.uri if rest == "." else f"{bucket.uri}/{rest}"


def stages(directory: pathlib.Path) -> tuple[str, ...]:
  """The names of a run's stages, in order; none of a run that is but one.

  Args:
    directory: of `local`; need not be a run.
  """
  path = directory / _MARK
  return _stages(path.read_text()) if path.is_file() else ()


def _stages(text: str) -> tuple[str, ...]:
  try:
    found = json.loads(text)
  except (ValueError, RecursionError):  # whoever reads the config says so
    return ()
  if not isinstance(found, dict) or found.get("type") != SEVERAL:
    return ()
  inside = found.get("stages")
  names = tuple(inside) if isinstance(inside, dict) else ("",)
  for stage in names:
    if not STAGE_NAME.fullmatch(stage):
      raise UserError(f"{_MARK}: {stage!r} is not the name of a stage")
  return names


def beside(directory: pathlib.Path, stage: str) -> pathlib.Path:
  """The directory of another stage of the same run.

  Args:
    directory: of a stage, of `local`.
    stage: a name.
  Raises: UserError if they are not stages of one run, or not in this order.
  """
  where = _buckets.get(directory)
  if where is None:
    root = directory.absolute().parent
  else:
    root = local(where.uri.rpartition("/")[0])
  names = stages(root)
  earlier = (
    names[: names.index(directory.name)] if directory.name in names else ()
  )
  if stage not in earlier:
    there = (
      f"has {', '.join(names)}" if names else "is no run of several stages"
    )
    raise UserError(
      f"stage:{stage}: no stage before {name(directory)}; {name(root)} {there}"
    )
  return root / stage


def _bucket_of(path: pathlib.Path) -> tuple[pathlib.Path, _Bucket] | None:
  """The bucket that a path stands for a place in, by its local directory."""
  for directory, bucket in _buckets.items():
    if path.is_relative_to(directory):
      return directory, bucket
  return None


def _fetch(uri: str, directory: pathlib.Path, *, new: bool) -> None:
  """Reads a run's small files; nothing of what is no run."""
  from etils import epath

  with _told(uri, "read"):
    bucket = epath.Path("/".join(uri.split("/")[:3]))
    if not bucket.exists():
      raise UserError(f"{uri}: there is no bucket {bucket}")
    root = epath.Path(uri)
    there = _names(root)
    if _MARK.name not in there:
      if new and not there:
        return
      what = "other files and no run" if there else "nothing"
      hint = "choose an empty --workdir" if new else "is the name right?"
      raise UserError(f"{uri} holds {what}; {hint}")
    paths = list(_wanted(root, there, new=new))

    def one(path: Any) -> None:
      to = directory / path.relative_to(root)
      to.parent.mkdir(parents=True, exist_ok=True)
      to.write_bytes(path.read_bytes())

    _all(one, paths)


def _names(folder: Any) -> list[str]:
  """What is in a folder, which may be an object itself."""
  found = [p.name for p in folder.iterdir()] if folder.is_dir() else []
  return sorted(filter(None, found))


def _wanted(root: Any, there: list[str], *, new: bool) -> Iterator[Any]:
  """The files of a run that a start or a reader needs, those of stages too."""
  yield root / _MARK.name
  inside = _stages((root / _MARK.name).read_text())
  for stage in inside:
    names = _names(root / stage) if stage in there else []
    if _MARK.name in names:
      yield from _wanted(root / stage, names, new=new)
  if new and not inside and _CHECKPOINTS not in there:
    return  # lost before its first upload was over: the rest may be half
  for entry in there:
    if entry not in (_MARK.name, *_LEFT, *inside):
      yield from under(root / entry)


def under(path: Any) -> Iterator[Any]:
  """The files in a directory, here or in a bucket, and in those within it."""
  if not path.is_dir():
    yield path
    return
  for entry in path.iterdir():
    yield from under(entry)


def _all(function: Any, items: list[Any]) -> None:
  """Calls a function that waits for the network on each item."""
  with futures.ThreadPoolExecutor(16) as pool:
    list(pool.map(function, items))


def _files(
  directory: pathlib.Path,
) -> Iterator[tuple[pathlib.PurePath, tuple[int, int]]]:
  """Files by their place in a directory, each with what tells of a change."""
  for path in sorted(directory.rglob("*")):
    if path.is_file() and path.suffix not in _PARTIAL:
      stat = path.stat()
      yield path.relative_to(directory), (stat.st_size, stat.st_mtime_ns)


def _remote(uri: str, path: pathlib.PurePath) -> Any:
  from etils import epath

  return epath.Path(uri) / path.as_posix()


@contextlib.contextmanager
def _told(uri: str, verb: str) -> Iterator[None]:
  """Turns what a bucket's library raises into a message."""
  try:
    yield
  except UserError:
    raise
  except ImportError as error:
    raise UserError(
      f"{uri}: buckets need gcsfs: pip install 'jdistill[gcs]'"
    ) from error
  except Exception as error:
    lines = str(error).strip().splitlines()
    said = f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
    raise UserError(
      f"{uri} cannot be {verb}: {said}. Is somebody logged in who may "
      "(gcloud auth application-default login)?"
    ) from error
