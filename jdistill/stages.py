# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs of several stages: one run after another, in one directory."""

import itertools
import pathlib
from collections.abc import Callable, Container
from typing import Any

import jax

from jdistill import (
  checkpoint,
  config_json,
  distributed,
  pretrained,
  refs,
  run,
  signals,
  start,
  types,
)
from jdistill import workdir as workdir_lib
from jdistill.config import (
  Config,
  Cut,
  Lora,
  Retokenised,
  Stages,
  changed,
  references,
)
from jdistill.models.base import Architecture

_TO_DO = ("eval_rollouts", "evals", "samples", "steps")
"""Fields whose change gives a stage that had finished something to do."""


def train(
  stages: Stages,
  workdir: pathlib.Path,
  one: Callable[[Config, pathlib.Path], dict[str, Any]],
  *,
  resume: str,
  told: list[int],
  log: Any,
) -> dict[str, Any]:
  """Runs stages one after another, from the first that has not finished.

  Args:
    stages: the run.
    workdir: its directory, of `workdir.local`; each stage has one in it.
    one: runs one stage in its directory to the end, or raises.
    resume: "never" refuses a directory that already has a run.
    told: exit codes that signals have asked for during `one`.
    log: called with lines for people.
  Returns: the result of the last stage, and those of all by name as `stages`.
  Raises: UserError before anything is compiled or written; Stopped after a
    signal.
  """
  distributed.decide(lambda: _check_workdir(stages, workdir, resume))
  results = distributed.decide(lambda: _finished(stages, workdir))
  _check(stages, workdir, results)
  if jax.process_index() == 0:
    workdir.mkdir(parents=True, exist_ok=True)
    tree = config_json.encode(stages)
    checkpoint.dump_json(workdir / "config.json", tree)
  last = list(stages.stages)[-1]
  for name, config in stages.stages.items():
    if name in results:
      log(f"stage {name}: finished before, {results[name]['steps']} steps")
      continue
    log(f"stage {name}")
    distributed.decide(lambda: workdir_lib.upload(workdir))
    if jax.process_index() != 0:
      workdir_lib.refresh(workdir)
    results[name] = one(config, workdir / name)
    if told and name != last:
      raise signals.Stopped(told[0], config.steps, workdir / name)
  return {**results[last], "stages": results}


def students(stages: Stages, name: str) -> dict[str, pretrained.Found]:
  """The students that a stage's references name, before there are any.

  Args:
    stages: the run; no weights are read.
    name: of the stage.
  Returns: by the names of their stages, for `run.find_models(beside=...)`.
  """
  found = {}
  for ref in references(stages.stages[name]).values():
    reference = refs.parse(ref)
    if reference.scheme == "stage" and reference.target not in found:
      found |= students(stages, reference.target)
      config = stages.stages[reference.target]
      models = run.find_models(config, beside=found)
      found[reference.target] = _to_come(reference.target, models.student)
  return found


def _to_come(
  name: str, student: Architecture, tokenizer: refs.Located | None = None
) -> pretrained.Found:
  ref = f"stage:{name}"
  drawn = refs.Located(ref, "drawn", pathlib.Path(), name=ref)
  return pretrained.Found(ref, tokenizer or drawn, student)


def _check_workdir(stages: Stages, workdir: pathlib.Path, resume: str) -> None:
  """Refuses a directory of another run, or a change to what has begun."""
  if start.read_config(workdir) is None:
    return
  said, now = workdir_lib.name(workdir), list(stages.stages)
  names = workdir_lib.stages(workdir)
  if not names:
    raise types.UserError(
      f"{said} holds a run of one stage, and this config is of several; choose "
      "another --workdir"
    )
  begun = [s for s in names if (workdir / s / "config.json").is_file()]
  if begun:
    start.check_resume(workdir, resume)
  if now[: len(begun)] != begun:
    raise types.UserError(
      f"{said} holds a run whose first stages are {', '.join(begun)}, and "
      f"those of this config are {', '.join(now)}; choose another --workdir"
    )
  for name in begun:
    start.check_workdir(stages.stages[name], workdir / name, "auto")
  for name, after in itertools.pairwise(begun):
    old = _config(workdir / name)["steps"]
    if old != stages.stages[name].steps:
      raise types.UserError(
        f"{said}: stage {name} differs in steps: {old} -> "
        f"{stages.stages[name].steps}, but stage {after} has begun from what "
        "it came to; choose another --workdir"
      )


def _finished(stages: Stages, workdir: pathlib.Path) -> dict[str, Any]:
  """The results of the stages that have nothing more to do, by name."""
  found = {}
  for name, config in stages.stages.items():
    path = workdir / name / "result.json"
    if not path.is_file():
      break
    result = checkpoint.read_object(path, "steps")
    new = config_json.encode(config)
    lines = changed(_config(workdir / name), new)
    fields = {line.partition(":")[0].partition(".")[0] for line in lines}
    if result["steps"] != config.steps or fields & set(_TO_DO):
      break
    found[name] = result
  return found


def _config(workdir: pathlib.Path) -> dict[str, Any]:
  return checkpoint.read_object(workdir / "config.json")


def _check(stages: Stages, workdir: pathlib.Path, finished: Container) -> None:
  """Refuses what can be seen not to work, before the first stage starts."""
  there: dict[str, pretrained.Found] = {}
  for name, config in stages.stages.items():
    if name in finished:
      there[name] = _come(config, workdir / name)
      continue
    try:
      ready = start.prepare(config, there)
    except types.UserError as error:
      raise types.UserError(f"stage {name}: {error}") from error
    ready.close()
    models = ready.built.models
    tokenizer = start.tokenizer_location(config, models, there)
    there[name] = _to_come(name, models.student, tokenizer)


def _come(config: Config, workdir: pathlib.Path) -> pretrained.Found:
  """The student of a stage that has finished."""
  spec = config.student
  own = (
    None if isinstance(spec, (Cut, Lora, Retokenised)) else spec.architecture
  )
  return pretrained.find(workdir_lib.name(workdir), architecture=own)
