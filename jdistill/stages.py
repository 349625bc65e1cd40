# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs of several stages: one run after another, in one directory."""

import itertools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax

from jdistill import (
  checkpoint,
  config_json,
  distributed,
  evaluate,
  placement,
  pretrained,
  refs,
  run,
  signals,
  start,
  types,
)
from jdistill import workdir as workdir_lib
from jdistill.config import Config, Stages, changed, references
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
  for name in stages.stages:
    if name not in results:
      _check_stage(stages, name, workdir, list(results))
  if jax.process_index() == 0:
    workdir.mkdir(parents=True, exist_ok=True)
    tree = config_json.encode(stages)
    checkpoint.dump_json(workdir / "config.json", tree)
    workdir_lib.upload(workdir)
  last = list(stages.stages)[-1]
  for name, config in stages.stages.items():
    if name in results:
      log(f"stage {name}: finished before, {results[name]['steps']} steps")
      continue
    log(f"stage {name}")
    results[name] = one(config, workdir / name)
    if told and name != last:
      raise signals.Stopped(told[0], config.steps)
  return {**results[last], "stages": results}


def students(
  stages: Stages,
  name: str,
  known: Mapping[str, Architecture] | None = None,
) -> dict[str, Architecture]:
  """The architectures of the students that a stage's references name.

  Args:
    stages: the run; no weights are read.
    name: of the stage.
    known: architectures that need not be found out.
  Returns: by the names of their stages, for `run.find_models(beside=...)`.
  """
  found = dict(known or {})
  for ref in references(stages.stages[name]).values():
    reference = refs.parse(ref)
    other = reference.target
    if reference.scheme == "stage" and other not in found:
      found = students(stages, other, found)
      models = run.find_models(stages.stages[other], beside=found)
      found[other] = models.student
  return found


def _check_workdir(stages: Stages, workdir: pathlib.Path, resume: str) -> None:
  """Refuses a directory of another run, or a change to what has begun."""
  if start.read_config(workdir, resume) is None:
    return
  said, now = workdir_lib.name(workdir), list(stages.stages)
  names = workdir_lib.stages(workdir)
  if not names:
    raise types.UserError(
      f"{said} holds a run of one stage, and this config is of several; choose "
      "another --workdir"
    )
  begun = [s for s in names if (workdir / s / "config.json").is_file()]
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
    result = evaluate.read_json(path)
    new = config_json.encode(config)
    lines = changed(_config(workdir / name), new)
    fields = {line.partition(":")[0].partition(".")[0] for line in lines}
    if result["steps"] != config.steps or fields & set(_TO_DO):
      break
    found[name] = result
  return found


def _config(workdir: pathlib.Path) -> dict[str, Any]:
  return evaluate.read_json(workdir / "config.json")


def _check_stage(
  stages: Stages, name: str, workdir: pathlib.Path, finished: list[str]
) -> None:
  """Refuses what can be seen not to fit before the first stage starts."""
  known = {}
  for other in finished:
    tree = evaluate.read_json(workdir / other / "student.json")
    if not config_json.is_own(tree):
      known[other] = pretrained.run_architecture(workdir / other)
  config = stages.stages[name]
  try:
    models = run.find_models(config, beside=students(stages, name, known))
    batch = placement.batch_shapes(config.data, config.group_size)
    run.build(config, models, batch)
  except types.UserError as error:
    raise types.UserError(f"stage {name}: {error}") from error
