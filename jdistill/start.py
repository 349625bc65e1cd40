# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What is checked, said and written before a run's first step."""

import dataclasses
import json
import pathlib
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jdistill import (
  apart,
  cached,
  checkpoint,
  config_json,
  data,
  evaluate,
  heldout,
  placement,
  pretrained,
  refs,
  run,
  run_rollout,
  sharding,
  step,
  tokenizers,
  types,
)
from jdistill import workdir as workdir_lib
from jdistill.config import Config, changed
from jdistill.models.base import num_params

MAY_CHANGE = (
  "attention",
  "audits",
  "eval_at",
  "eval_every",
  "eval_rollouts",
  "evals",
  "keep",
  "log_every",
  "max_bad_steps",
  "mesh",
  "microbatches",
  "remat",
  "rules",
  "samples",
  "save_every",
  "steps",
)
"""Config fields that may differ when a run is resumed."""


@dataclasses.dataclass(frozen=True)
class Ready:
  """What a run is made of, apart from the arrays."""

  built: run.Run
  loader: data.Loader
  evals: dict[str, heldout.HeldOut]
  tokenizer: Any

  def close(self) -> None:
    self.loader.close()
    for held in self.evals.values():
      held.loader.close()


def prepare(config: Config, beside: pretrained.Beside) -> Ready:
  """Finds a run's models and data and puts them together.

  Args:
    config: the run.
    beside: where other stages are that its references may name.
  Raises: UserError for whatever does not fit together; no weights are read.
  """
  share = sharding.row_share(apart.meshes(config)[0])
  models = run.find_models(config, beside=beside)
  tokenizer = find_tokenizer(config, models, beside)
  cache = refs.cache_directory() / "tokens"
  loader = data.load(
    config.data,
    tokenizer,
    seed=config.seed,
    cache_dir=cache,
    beside=cached.beside(models.said),
    **share,
  )
  evals = {
    name: heldout.HeldOut(spec, tokenizer, cache, share, models.said)
    for name, spec in config.evals.items()
  }
  classes = models.student.vocab_size
  _check_labels("data", config.data, loader, classes)
  for name, held in evals.items():
    _check_labels(f"evals.{name}", config.evals[name], held.loader, classes)
  position = loader.state()
  local = run.to_batch(next(loader), config.group_size, models.said)
  shapes = run.batch_shapes(config.data, local, config.group_size)
  loader.restore(position)
  about, ends = {}, config.data.end_ids
  if tokenizer is not None:
    about["token_bytes"] = tokenizers.token_bytes(tokenizer)
    about["token_classes"] = tokenizers.token_classes(tokenizer)
    location = None if models.start is None else models.start.location
    ends = evaluate.end_ids(tokenizer, location)
  built = run.build(
    config,
    models,
    shapes,
    **about,
    ends=ends,
    encode=run_rollout.encoder(tokenizer),
    tables=_tables(config, models, tokenizer, cache),
  )
  return Ready(built, loader, evals, tokenizer)


def _check_labels(
  name: str, spec: data.Data, loader: data.Loader, classes: int
) -> None:
  """Refuses labels that the student has no class for."""
  needed = loader.num_classes or 0
  if needed > classes:
    raise types.UserError(
      f"{name} of {spec.title}: its labels go up to {needed - 1}, and the "
      f"student tells {classes} classes apart, from 0; give it classes="
      f"{needed}, or correct the labels"
    )


def check_workdir(config: Config, workdir: pathlib.Path, resume: str) -> None:
  """Refuses a directory of another run, or what is no run at all."""
  old = read_config(workdir)
  if old is not None:
    check_resume(workdir, resume)
    check_same(old, config, workdir)


def check_resume(workdir: pathlib.Path, resume: str) -> None:
  """Refuses to go on with the run in a directory where that is not wanted."""
  if resume == "never":
    raise types.UserError(
      f"{workdir_lib.name(workdir)} already holds a run and --resume is never; "
      "choose another --workdir"
    )


def read_config(workdir: pathlib.Path) -> dict[str, Any] | None:
  """The config of the run in a directory, as JSON; None if there is none yet.

  Raises: UserError for what is no run.
  """
  path, said = workdir / "config.json", workdir_lib.name(workdir)
  if workdir.exists() and not workdir.is_dir():
    raise types.UserError(f"{said} is a file; choose another --workdir")
  workdir_lib.check_place(workdir, "--workdir")
  if not path.is_file():
    # A run that was killed at its very start may have left half a config.
    there = {p.name for p in workdir.iterdir()} if workdir.exists() else set()
    if there - {"config.json.tmp"}:
      raise types.UserError(
        f"{said} holds other files and no run; choose an empty --workdir"
      )
    return None
  checkpoint.check_links(workdir)
  try:
    found = json.loads(path.read_text())
  except (ValueError, RecursionError) as error:
    raise types.UserError(
      f"{path}: not valid JSON: {error}; choose another --workdir"
    ) from error
  if not isinstance(found, dict):
    raise types.UserError(
      f"{path}: is not the config of a run; choose another --workdir"
    )
  return found


def check_same(
  old: dict[str, Any], config: Config, workdir: pathlib.Path
) -> None:
  """Refuses a config that differs from that of a run that is to go on.

  Args:
    old: the run's, as JSON.
    config: what is to be run.
    workdir: the run's directory.
  Raises: UserError with the differences, but for those of `MAY_CHANGE`.
  """
  said, new = workdir_lib.name(workdir), config_json.encode(config)
  if old.get(config_json.TYPE) == workdir_lib.SEVERAL:
    raise types.UserError(
      f"{said} holds a run of several stages, and this config is of one; "
      "choose another --workdir"
    )
  found = [
    line
    for line in changed(old, new)
    if not _may_change(line.split(":")[0].split("."))
  ]
  if found:
    raise types.UserError(
      f"{said} holds a run of another config; it differs in "
      f"{'; '.join(found[:5])}{' ...' if len(found) > 5 else ''}. Choose "
      "another --workdir, or undo the change to go on with this run"
    )


def _may_change(path: Sequence[str]) -> bool:
  placed = path[0] == "teachers" and path[2:3] in (
    ["rules"],
    ["place"],
    ["mesh"],
  )
  return placed or path[0] in MAY_CHANGE


def find_tokenizer(
  config: Config, models: run.Models, beside: pretrained.Beside
) -> Any:
  """The run's tokenizer, checked against every head; None without text."""
  specs = (config.data, *config.evals.values())
  if not any(spec.needs_tokenizer for spec in specs):
    return None
  origin = tokenizer_location(config, models, beside)
  if origin is None:
    raise types.UserError(
      "tokenizer: neither teacher nor student brings one; name a model "
      "reference whose tokenizer the text is cut with"
    )
  found = tokenizers.load(origin)
  tokenizers.check_head(found, models.student.vocab_size)
  writes = config.rollout is not None and config.rollout.teachers()
  if config.method.needs().same_vocabulary or writes:
    for name, teacher in models.teachers.items():
      tokenizers.check_head(found, teacher.architecture.vocab_size)
      if teacher.location.has_tokenizer and teacher.location != origin:
        _check_vocabulary(name, teacher, found)
  return found


def _tables(
  config: Config, models: run.Models, tokenizer: Any, cache: pathlib.Path
) -> step.Tables:
  """What the method needs to know of the ids of student and teachers.

  Raises: UserError if the data's second tokenizer is not the teachers'.
  """
  if not isinstance(config.data, data.Aligned):
    return {}
  theirs, needs = config.data.teachers_tokenizer(), config.method.needs()
  sizes = {"student": models.student.vocab_size}
  for name, teacher in models.teachers.items():
    sizes[name] = teacher.architecture.vocab_size
    tokenizers.check_head(theirs, sizes[name])
    own = teacher.location
    if own.has_tokenizer and own.ref != config.data.tokenizer:
      difference = tokenizers.vocabulary_difference(
        theirs, tokenizers.load(own)
      )
      if difference:
        raise types.UserError(
          f"data.tokenizer is {config.data.tokenizer}, but teachers.{name} has "
          f"another vocabulary: {difference}; name the teacher"
        )
  found: dict[str, dict[str, Any]] = {name: {} for name in sizes}
  size = sizes["student"]
  if "boundary" in needs.tables:
    for name, count in sizes.items():
      one = tokenizer if name == "student" else theirs
      found[name]["boundary"] = tokenizers.boundary(one, count)
  if "same" in needs.tables:
    found["student"]["same"] = tokenizers.same(tokenizer, theirs, size)
  if "nearest" in needs.tables:
    near = tokenizers.nearest(tokenizer, theirs, size, cache)
    found["student"]["nearest"] = near
  return found


def tokenizer_location(
  config: Config, models: run.Models, beside: pretrained.Beside
) -> refs.Located | None:
  """Where a run's tokenizer is, if anywhere."""
  if config.tokenizer is not None:
    student = pretrained.to_come(config.tokenizer, beside)
    if student is not None:
      return student.location if student.location.has_tokenizer else None
    directory = beside if isinstance(beside, pathlib.Path) else None
    return tokenizers.locate(config.tokenizer, beside=directory)
  # Of a pair of tokenizers it is the student's.
  teachers = [] if config.data.views() else models.teachers.values()
  sources = [*teachers, models.start]
  brings = [s for s in sources if s is not None and s.location.has_tokenizer]
  return brings[0].location if brings else None


def _check_vocabulary(name: str, teacher: pretrained.Found, tokenizer) -> None:
  difference = tokenizers.vocabulary_difference(
    tokenizer, tokenizers.load(teacher.location)
  )
  if difference:
    raise types.UserError(
      f"teachers.{name}: {teacher.ref} has another vocabulary than the "
      f"student: {difference}; this run takes their tokens for the same"
    )


def describe(
  built: run.Run,
  loader: data.Loader,
  workdir: pathlib.Path,
  log: Callable[[str], None],
) -> None:
  """Tells people what is trained, from whom, on what."""
  for name, found in built.models.teachers.items():
    if name in built.models.said:
      cache = built.models.said[name].cache
      size = cache.size / max(1, cache.tokens)
      log(f"{name}: {found.ref}, cached in {cache.directory}: {len(cache)} "
          f"rows, {size:.1f} bytes a token")  # fmt: skip
      continue
    plain = pretrained.with_storage(found.architecture, "float32")
    size = num_params(plain.shapes()) / 1e6
    log(f"{name}: {found.ref}, {size:.1f} M parameters, licence "
        f"{found.location.licence or 'not stated'}")  # fmt: skip
  student = built.models.student
  size, moving = num_params(student.shapes()) / 1e6, student.trainable()
  layers = built.models.layers
  kept = f", keeps layers {', '.join(map(str, layers))}" if layers else ""
  if moving is not None and not all(jax.tree.leaves(moving)):
    shapes = zip(*map(jax.tree.leaves, (student.shapes(), moving)), strict=True)
    part = sum(shape.size for shape, moves in shapes if moves) / 1e6
    kept += f", trains {part:.2f} M of them"
  log(f"student: {size:.1f} M parameters{kept}")
  for name, axes in built.uneven().items():
    for one in axes:
      log(f"{name}: {one}")
  for name, part in built.parts.items():
    log(f"{name}: mesh of its own, of {placement.mesh_text(part.mesh.shape)}")
  sizes = ", ".join(f"{k} {v}" for k, v in built.mesh.shape.items())
  log(f"data: {loader.num_rows} rows; mesh: {sizes}; run: "
      f"{workdir_lib.name(workdir)}")  # fmt: skip


def write(
  config: Config, built: run.Run, tokenizer: Any, workdir: pathlib.Path
) -> None:
  """Writes the config, the models and the tokenizer into the directory.

  Of several processes the first writes.
  """
  if jax.process_index() != 0:
    return
  workdir.mkdir(parents=True, exist_ok=True)
  checkpoint.dump_json(workdir / "config.json", config_json.encode(config))
  student = config_json.encode(built.models.student)
  checkpoint.dump_json(workdir / "student.json", student)
  checkpoint.dump_json(workdir / "models.json", _models(built.models))
  checkpoint.dump_json(workdir / "shardings.json", placement.of_run(built))
  command = workdir / "command.txt"
  program = pathlib.Path(sys.argv[0]).name
  # A notebook's kernel has a command line that says nothing of the run.
  if not command.exists() and not program.endswith("kernel_launcher.py"):
    command.write_text(shlex.join([program, *sys.argv[1:]]) + "\n")
  if tokenizer is not None and not (workdir / "tokenizer").exists():
    half = workdir / "tokenizer.tmp"  # so that it is there whole or not at all
    shutil.rmtree(half, ignore_errors=True)
    tokenizers.save(tokenizer, half)
    half.rename(workdir / "tokenizer")
  workdir_lib.upload(workdir)


def _models(models: run.Models) -> dict[str, Any]:
  """Where the models of a run come from, for the card of its student."""

  def said(found: pretrained.Found) -> dict[str, Any]:
    return {"ref": found.ref, "licence": found.location.licence}

  return {
    "teachers": {name: said(found) for name, found in models.teachers.items()},
    "start": None if models.start is None else said(models.start),
    "layers": None if models.layers is None else list(models.layers),
  }
