# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The training loop: start or resume a run, and leave nothing lost."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shlex
import shutil
import sys
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jdistill import (
  bad_steps,
  checkpoint,
  config_json,
  data,
  distributed,
  evaluate,
  heldout,
  metrics,
  placement,
  pretrained,
  profiling,
  refs,
  run,
  sharding,
  signals,
  tokenizers,
  types,
)
from jdistill import workdir as workdir_lib
from jdistill.config import Config, changed
from jdistill.signals import Stopped

MAY_CHANGE = (
  "attention",
  "eval_every",
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


def train(
  config: Config,
  workdir: str | os.PathLike[str],
  *,
  resume: Literal["auto", "never"] = "auto",
  profile: profiling.Profile | None = None,
  log: Any = None,
) -> dict[str, Any]:
  """Runs a config to its end, going on where an earlier start stopped.

  Of several processes (`jdistill.distributed.joined`) all call it with the
  same config and directory; they share the work and the first writes.

  Args:
    config: the run.
    workdir: its directory, created when missing; or `gs://bucket/run`.
    resume: "never" refuses a directory that already has a run.
    profile: steps to trace into `profile/` of the directory.
    log: called with lines for people; default: standard error.
  Returns: what `result.json` holds: a row of metrics for the teacher, the
    student at the start and at the end, per evaluation.
  Raises: UserError before anything is compiled or written; Stopped after a
    signal, the state saved.
  """
  log = log or distributed.log
  workdir = workdir_lib.local(workdir, new=True)
  distributed.decide(lambda: check_workdir(config, workdir, resume))
  share = sharding.row_share(sharding.make_mesh(config.mesh))
  models = run.find_models(config)
  tokenizer = find_tokenizer(config, models)
  cache = refs.cache_directory() / "tokens"
  loader = data.load(
    config.data, tokenizer, seed=config.seed, cache_dir=cache, **share
  )
  evals = {
    name: heldout.HeldOut(spec, tokenizer, cache, share)
    for name, spec in config.evals.items()
  }
  position = loader.state()
  shapes = run.batch_shapes(config.data, run.to_batch(next(loader)))
  loader.restore(position)
  table = None if tokenizer is None else tokenizers.token_bytes(tokenizer)
  built = run.build(config, models, shapes, token_bytes=table)
  _describe(built, loader, workdir, log)

  with jax.set_mesh(built.mesh), checkpoint.disk_errors(workdir):
    # All weights are read before anything is written.
    teacher_params = built.load_teachers()
    begun = distributed.decide(workdir_lib.checkpoints(workdir).is_dir)
    state = None if begun else built.init_state(teacher_params)
    _write_start(config, built, tokenizer, workdir)
  with (
    jax.set_mesh(built.mesh),
    checkpoint.disk_errors(workdir),
    checkpoint.Checkpoints(
      workdir_lib.checkpoints(workdir),
      keep=config.keep,
      best=None if config.select == "last" else config.select,
    ) as saved,
    signals.collected() as stop,
  ):
    if state is None:
      state, loader_at = _start(built, teacher_params, saved, log)
      if loader_at is not None:
        loader.restore(loader_at)
    loop = _Loop(
      built,
      teacher_params,
      loader,
      evals,
      saved,
      workdir,
      tokenizer,
      stop,
      profile or profiling.Profile(0, 0),
      log,
    )
    with contextlib.closing(loop):
      return loop.run(state)


@dataclasses.dataclass
class _Loop:
  """One process's way through the steps."""

  built: run.Run
  teacher_params: types.PyTree
  loader: data.Loader
  evals: dict[str, heldout.HeldOut]
  saved: checkpoint.Checkpoints
  workdir: pathlib.Path
  tokenizer: Any
  stop: list[int]
  profile: profiling.Profile
  log: Any

  def run(self, state: types.TrainState) -> dict[str, Any]:
    config, step = self.built.config, int(state.step)
    self.writer = metrics.Writer(self.workdir, from_step=step + (step > 0))
    self.clock = metrics.Clock()
    self.bad = bad_steps.Watch(config.max_bad_steps, self.log)
    pending: tuple[int, Any, Any] | None = None
    if step in (0, config.steps) or step % config.eval_every == 0:
      self._evaluate(state, step, self._missing(step))
    if step == 0:
      self._continue({"start": state.params["student"]})
    with _progress(step, config.steps) as bar:
      while step < config.steps:
        with self.clock.waiting():
          batch = sharding.place_rows(
            run.to_batch(next(self.loader)), self.built.mesh
          )
        step += 1
        self.profile.before(step, self.workdir / "profile", state)
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
          state, found = self.built.train_step(
            state, self.teacher_params, batch
          )
        self.profile.after(step, state)
        if pending is not None:
          self._report(*pending, bar)
        pending = (step, found, batch.example_id)
        last = step == config.steps
        if self._told_to_stop(step):
          self._report(*pending, bar)
          self._save(state, step)
          self.saved.wait()
          raise Stopped(self.stop[0] if self.stop else 143, step)
        row = None
        if self.evals and (last or step % config.eval_every == 0):
          self._report(*pending, bar)
          pending = None
          row = self._evaluate(state, step, self.evals)
        if last or step % config.save_every == 0 or (
          row is not None and config.select != "last"
        ):  # fmt: skip
          if pending is not None:  # so that no row is lost with the process
            self._report(*pending, bar)
            pending = None
          if last or not self.bad.in_a_row:  # the good ones before stay
            self._save(state, step, row)
      if pending is not None:
        self._report(*pending, bar)
    self.saved.wait()
    return self._finish(state)

  def _report(
    self, step: int, found: types.Metrics, ids: jax.Array, bar: Any
  ) -> None:
    """Reads the metrics of a step that has been left behind."""
    config = self.built.config
    row = metrics.means(found)
    bad = self.bad.see(step, row, ids)
    tokens = config.data.batch_size * getattr(config.data, "seq_len", 1)
    speed = self.clock.tick(tokens)
    bar.update(1)
    bar.set_postfix_str(
      f"loss {row['loss']:.3f}, {speed['tokens_per_s']:,.0f} tokens/s"
    )
    if bad or step % config.log_every == 0 or step in (1, config.steps):
      applied = step - 1 - int(row["bad_steps"]) + bad
      row["lr"] = float(self.built.learning_rate(jnp.asarray(applied)))
      self.writer.write(step, row | speed | {"tokens": step * tokens})
      if bar.disable:
        self.log(
          f"step {step}/{config.steps}  loss {row['loss']:.4f}  "
          f"{speed['tokens_per_s']:,.0f} tokens/s  "
          f"{self.clock.left(config.steps - step)} left"
        )
    if self.bad.too_many:
      said = self.bad.message(
        lambda ids: distributed.whole_rows(ids, self.built.mesh)
      )
      raise types.UserError(
        f"{said}; the last good checkpoint is step "
        f"{max(self.saved.steps(), default=0)} in "
        f"{workdir_lib.name(self.workdir)}; lower the "
        "learning rate, look at the data, or raise --max-bad-steps"
      )

  def _missing(self, step: int) -> dict[str, heldout.HeldOut]:
    """Evaluations that this step has no row of: it was stopped right after."""

    def names() -> list[str]:
      rows = [r for r in metrics.read(self.workdir) if r["step"] == step]
      told = {key for row in rows for key in row}
      return [name for name in self.evals if f"{name}/ce" not in told]

    return {name: self.evals[name] for name in distributed.decide(names)}

  def _evaluate(
    self, state: types.TrainState, step: int, evals: dict[str, heldout.HeldOut]
  ) -> dict[str, float]:
    if not evals:
      return {}
    row: dict[str, Any] = {}
    with self.clock.paused():
      for name, held in evals.items():
        sums = held.run(
          self.built, state.params["student"], self.teacher_params
        )
        row |= {f"{name}/{k}": v for k, v in heldout.summary(sums).items()}
        heldout.write_details(
          self.workdir, step, name, sums, held, self.tokenizer
        )
    self.writer.write(step, row)
    shown = ("kl", "ppl", "agreement", "accuracy")
    for name in evals:
      values = [
        f"{k} {row[f'{name}/{k}']:.4g}" for k in shown if f"{name}/{k}" in row
      ]
      self.log(f"step {step}  {name}: {'  '.join(values)}")
    return {k: v for k, v in row.items() if isinstance(v, float)}

  def _save(self, state, step: int, row: dict[str, float] | None = None):
    with self.clock.paused():
      workdir_lib.upload(self.workdir)
      self.saved.save(step, state, self.loader.state(), row)

  def _told_to_stop(self, step: int) -> bool:
    if jax.process_count() > 1:
      return self.saved.reached_preemption(step)
    return bool(self.stop)

  def _finish(self, state: types.TrainState) -> dict[str, Any]:
    self._continue({"end": state.params["student"]}, teacher=True)
    result = distributed.decide(
      lambda: heldout.result_of(metrics.read(self.workdir), list(self.evals))
    )
    if jax.process_index() == 0:
      checkpoint.dump_json(self.workdir / "result.json", result)
    return result

  def _continue(self, students, *, teacher: bool = False) -> None:
    """Lets the models go on with the config's prompts, for the report."""
    prompts, models = self.built.config.samples, self.built.models
    if not prompts or self.tokenizer is None:
      return
    speakers = {name: (models.student, p) for name, p in students.items()}
    if teacher and self.teacher_params:
      first = next(iter(self.teacher_params))
      speakers["teacher"] = (
        models.teachers[first].architecture,
        self.teacher_params[first],
      )
    with self.clock.paused():
      rows = evaluate.continuations(
        speakers, self.tokenizer, prompts, max_new_tokens=40
      )
      evaluate.write_continuations(self.workdir, rows)

  def close(self) -> None:
    self.profile.close()
    if hasattr(self, "writer"):
      self.writer.close()
      workdir_lib.upload(self.workdir)
    self.loader.close()
    for held in self.evals.values():
      held.loader.close()


def check_workdir(config: Config, workdir: pathlib.Path, resume: str) -> None:
  """Refuses a directory of another run, or what is no run at all."""
  path, said = workdir / "config.json", workdir_lib.name(workdir)
  if workdir.exists() and not workdir.is_dir():
    raise types.UserError(f"{said} is a file; choose another --workdir")
  if not path.is_file():
    # A run that was killed at its very start may have left half a config.
    there = {p.name for p in workdir.iterdir()} if workdir.exists() else set()
    if there - {"config.json.tmp"}:
      raise types.UserError(
        f"{said} holds other files and no run; choose an empty --workdir"
      )
    return
  if resume == "never":
    raise types.UserError(
      f"{said} already holds a run and --resume is never; choose another "
      "--workdir"
    )
  checkpoint.check_links(workdir)
  try:
    old = json.loads(path.read_text())
  except ValueError as error:
    raise types.UserError(
      f"{path}: not valid JSON: {error}; choose another --workdir"
    ) from error
  new = config_json.encode(config)
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
  placed = path[0] == "teachers" and path[2:3] in (["rules"], ["place"])
  return placed or path[0] in MAY_CHANGE


def find_tokenizer(config: Config, models: run.Models) -> Any:
  """The run's tokenizer, checked against every head; None without text."""
  specs = (config.data, *config.evals.values())
  if not any(spec.needs_tokenizer for spec in specs):
    return None
  origin = None
  if config.tokenizer is not None:
    found = tokenizers.load(config.tokenizer)
  else:
    sources = [*models.teachers.values(), models.start]
    source = next((s for s in sources if s is not None), None)
    if source is None or not source.location.has_tokenizer:
      raise types.UserError(
        "tokenizer: neither teacher nor student brings one; name a model "
        "reference whose tokenizer the text is cut with"
      )
    origin = source.location
    found = tokenizers.load(origin)
  tokenizers.check_head(found, models.student.vocab_size)
  if config.method.needs().same_vocabulary:
    for name, teacher in models.teachers.items():
      tokenizers.check_head(found, teacher.architecture.vocab_size)
      if teacher.location.has_tokenizer and teacher.location != origin:
        _check_vocabulary(name, teacher, found)
  return found


def _check_vocabulary(name: str, teacher: pretrained.Found, tokenizer) -> None:
  difference = tokenizers.vocabulary_difference(
    tokenizer, tokenizers.load(teacher.location)
  )
  if difference:
    raise types.UserError(
      f"teachers.{name}: {teacher.ref} has another vocabulary than the "
      f"student: {difference}; this method compares the same tokens"
    )


def _start(built, teacher_params, saved, log):
  """The newest readable checkpoint, else the state before the first step."""
  like = jax.tree.map(
    lambda s, p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p),
    built.state_shapes,
    built.state_shardings,
  )
  error = None
  for step in reversed(distributed.decide(saved.steps)):
    try:
      found = saved.restore(step, like)
    except types.UserError as damage:
      error = error or damage
      log(f"warning: {damage}; trying the one before")
      continue
    log(f"resuming at step {step} of {built.config.steps}")
    return found.state, found.position
  if error is not None:
    raise types.UserError(
      f"no checkpoint of this run can be read; the newest: {error}. Choose "
      "another --workdir to start anew"
    )
  return built.init_state(teacher_params), None


def _write_start(config, built, tokenizer, workdir) -> None:
  if jax.process_index() != 0:
    return
  workdir.mkdir(parents=True, exist_ok=True)
  checkpoint.dump_json(workdir / "config.json", config_json.encode(config))
  student = config_json.encode(built.models.student)
  checkpoint.dump_json(workdir / "student.json", student)
  checkpoint.dump_json(workdir / "models.json", _models(built.models))
  checkpoint.dump_json(workdir / "shardings.json", placement.of_run(built))
  command = workdir / "command.txt"
  if not command.exists():
    program = pathlib.Path(sys.argv[0]).name
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


def _describe(built: run.Run, loader, workdir, log) -> None:
  from jdistill.models.base import num_params

  for name, found in built.models.teachers.items():
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
  sizes = ", ".join(f"{k} {v}" for k, v in built.mesh.shape.items())
  log(f"data: {loader.num_rows} rows; mesh: {sizes}; run: "
      f"{workdir_lib.name(workdir)}")  # fmt: skip


def _progress(step: int, steps: int):
  from tqdm import tqdm

  return tqdm(
    total=steps,
    initial=step,
    disable=jax.process_index() != 0 or not sys.stderr.isatty(),
    unit="step",
  )
