# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Models and datasets of a Hugging Face hub; `HF_ENDPOINT` names another."""

import contextlib
import dataclasses
import fnmatch
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from jdistill.refs import cache, globs, grammar
from jdistill.types import UserError

_WEIGHTS = "*.safetensors"
_WANTED = (
  _WEIGHTS,
  "*.json",
  "*.jinja",
  "*.model",
  "*.tiktoken",
  "vocab.txt",
  "merges.txt",
  "README.md",
  "LICENSE*",
  "NOTICE*",
)
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclasses.dataclass(frozen=True)
class Repository:
  """One revision of a repository; `offline`, as far as it is cached."""

  reference: grammar.Reference
  kind: Literal["model", "dataset"]
  names: tuple[str, ...]
  offline: bool
  licence: str | None
  cache_dir: str | None

  def fetch(self, names: Sequence[str]) -> list[pathlib.Path]:
    """Downloads files, unless they are cached; their paths, in order."""
    import huggingface_hub

    with _explained(self.reference):
      root = huggingface_hub.snapshot_download(
        self.reference.target,
        repo_type=self.kind,
        # By its name, not its commit, so that the cache knows it offline.
        revision=self.reference.version,
        allow_patterns=[_literally(name) for name in names],
        cache_dir=self.cache_dir,
        endpoint=_endpoint(),
        local_files_only=self.offline,
      )
    return [pathlib.Path(root) / name for name in names]


def fetch_model(
  reference: grammar.Reference, cache_dir: str | os.PathLike[str] | None
) -> pathlib.Path:
  """Downloads a model's configuration, tokenizer and safetensors.

  Args:
    reference: an `hf:` reference.
    cache_dir: instead of the hub's own cache.
  Returns: a directory, or the GGUF file that the reference names.
  Raises:
    Unreachable: the hub does not answer and it is not cached.
    UserError: no such model or revision, a gated one, or pickled weights.
  """
  repository = _open(reference, "model", cache_dir)
  names = repository.names
  if inside := reference.inside:
    if inside not in names or not inside.lower().endswith(".gguf"):
      ggufs = [n for n in names if n.lower().endswith(".gguf")]
      raise UserError(
        f"{reference.ref}: no GGUF file {inside!r} in it;"
        f" {globs.nearest(inside, ggufs)}"
      )
    return repository.fetch([inside])[0]
  wanted = [
    name
    for name in names
    if "/" not in name and any(fnmatch.fnmatch(name, p) for p in _WANTED)
  ]
  weights = fnmatch.filter(wanted, _WEIGHTS)
  if not weights or "config.json" not in names:
    raise _not_a_model(reference, names, weights)
  if any(name.startswith("model") for name in weights):
    # The same weights a second time, in their trainers' own layout.
    wanted = [name for name in wanted if not name.startswith("consolidated")]
  return repository.fetch(["config.json", *wanted])[0].parent


def open_dataset(
  reference: grammar.Reference, cache_dir: str | os.PathLike[str] | None
) -> Repository:
  """Lists a dataset's files.

  Raises:
    Unreachable: the hub does not answer and it is not cached.
    UserError: no such dataset or revision, or a gated one.
  """
  return _open(reference, "dataset", cache_dir)


def _not_a_model(
  reference: grammar.Reference, names: Sequence[str], weights: list[str]
) -> UserError:
  ggufs = [n for n in names if n.lower().endswith(".gguf")]
  if ggufs:
    return UserError(
      f"{reference.ref} holds GGUF files: name one, such as"
      f" hf:{reference.target}/{ggufs[0]}"
    )
  pickled = [n for n in names if any(fnmatch.fnmatch(n, p) for p in _PICKLED)]
  if pickled and not weights:
    return UserError(
      f"{reference.ref}: its weights are pickled ({pickled[0]}), which are"
      " never fetched; use a revision or copy with safetensors"
    )
  lacking = "config.json" if weights else "safetensors file"
  return UserError(
    f"{reference.ref} is not a model: no {lacking} among"
    f" {', '.join(names[:8]) or 'its 0 files'}"
  )


def _open(
  reference: grammar.Reference,
  kind: Literal["model", "dataset"],
  cache_dir: str | os.PathLike[str] | None,
) -> Repository:
  import huggingface_hub

  directory = str(cache_dir) if cache_dir else None
  api = huggingface_hub.HfApi(endpoint=_endpoint())
  try:
    with _explained(reference):
      info: Any = api.repo_info(
        reference.target, revision=reference.version, repo_type=kind
      )
  except cache.Unreachable:
    found = _cached(reference, kind, directory)
    if found is None:
      raise
    return found
  names = tuple(sibling.rfilename for sibling in info.siblings or ())
  tags = [t for t in info.tags or () if t.startswith("license:")]
  stated = tags[0].partition(":")[2] if tags else None
  return Repository(reference, kind, names, False, stated, directory)


def _cached(
  reference: grammar.Reference,
  kind: Literal["model", "dataset"],
  cache_dir: str | None,
) -> Repository | None:
  """What an earlier download has left of a repository, if anything."""
  import huggingface_hub

  try:
    root = huggingface_hub.snapshot_download(
      reference.target,
      repo_type=kind,
      revision=reference.version,
      cache_dir=cache_dir,
      allow_patterns=[],
      local_files_only=True,
    )
  except (OSError, ValueError):
    return None
  files = [p for p in pathlib.Path(root).rglob("*") if p.is_file()]
  names = tuple(sorted(p.relative_to(root).as_posix() for p in files))
  return Repository(reference, kind, names, True, None, cache_dir)


def _endpoint() -> str | None:
  # The library reads it once, at its import, which may lie far back.
  return os.environ.get("HF_ENDPOINT") or None


def _literally(name: str) -> str:
  """A pattern that matches just this name."""
  return "".join(f"[{c}]" if c in "*?[" else c for c in name)


@contextlib.contextmanager
def _explained(reference: grammar.Reference) -> Iterator[None]:
  """Turns the hub library's exceptions into one message each."""
  from huggingface_hub import errors

  ref = reference.ref
  host = _endpoint() or "huggingface.co"
  try:
    yield
  except errors.GatedRepoError:
    raise UserError(
      f"{ref} is gated: accept its terms on its page at {host}, then set"
      " HF_TOKEN to a token of that account"
    ) from None
  except errors.RepositoryNotFoundError:
    raise UserError(
      f"{ref}: {host} knows no {reference.target}, or it is private; check the"
      " spelling, or set HF_TOKEN to a token that may read it"
    ) from None
  except errors.RevisionNotFoundError:
    raise UserError(
      f"{ref}: {reference.target} has no revision {reference.version!r}"
    ) from None
  except errors.HfHubHTTPError as error:
    status = error.response.status_code if error.response is not None else 0
    if status >= 500:
      raise cache.Unreachable(f"{ref}: {host} answers {status}") from None
    hint = "; set HF_TOKEN" if status in (401, 403) else ""
    raise UserError(f"{ref}: {host} answers {status}{hint}") from None
  except errors.HFValidationError as error:
    raise grammar.malformed(ref, str(error)) from None
  except (errors.HTTPError, errors.EntryNotFoundError, OSError) as error:
    reason = str(error).strip().splitlines()
    raise cache.Unreachable(
      f"{ref} is not in the cache and {host} does not answer:"
      f" {reason[0] if reason else type(error).__name__}"
    ) from None
