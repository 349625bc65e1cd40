# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The training loop: start or resume a run, and leave nothing lost."""

import contextlib
import dataclasses
import os
import pathlib
import sys
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jdistill import (
  audit,
  bad_steps,
  checkpoint,
  data,
  distributed,
  evaluate,
  heldout,
  metrics,
  profiling,
  rollout,
  run,
  run_rollout,
  sharding,
  signals,
  stages,
  start,
  types,
)
from jdistill import workdir as workdir_lib
from jdistill.config import Config, Stages
from jdistill.signals import Stopped


def train(
  config: Config | Stages,
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
    config: the run, of one stage or several.
    workdir: its directory, created when missing; or `gs://bucket/run`.
    resume: "never" refuses a directory that already has a run.
    profile: steps to trace into `profile/` of the directory.
    log: called with lines for people; default: standard error.
  Returns: what `result.json` holds: a row of metrics for the teacher, the
    student at the start and at the end, per evaluation. Of several stages that
    of the last, and those of all by name as `stages`.
  Raises: UserError before anything is compiled or written; Stopped after a
    signal, the state saved.
  """
  log = log or distributed.log
  workdir = workdir_lib.local(workdir, new=True)
  profile = profile or profiling.Profile(0, 0)
  if isinstance(config, Config):
    return _one(config, workdir, resume, profile, log, [])
  told: list[int] = []
  return stages.train(
    config,
    workdir,
    lambda one, where: _one(one, where, "auto", profile, log, told),
    resume=resume,
    told=told,
    log=log,
  )


def _one(
  config: Config,
  workdir: pathlib.Path,
  resume: str,
  profile: profiling.Profile,
  log: Any,
  told: list[int],
) -> dict[str, Any]:
  """Runs one stage; signals during it are put into `told`."""
  distributed.decide(lambda: start.check_workdir(config, workdir, resume))
  ready = start.prepare(config, workdir)
  built, loader = ready.built, ready.loader
  start.describe(built, loader, workdir, log)

  with jax.set_mesh(built.mesh), checkpoint.disk_errors(workdir):
    # All weights are read before anything is written.
    teacher_params = built.load_teachers()
    begun = distributed.decide(workdir_lib.checkpoints(workdir).is_dir)
    state = None if begun else built.init_state(teacher_params)
    if not begun:
      start.write(config, built, ready.tokenizer, workdir)
  with (
    jax.set_mesh(built.mesh),
    checkpoint.disk_errors(workdir),
    checkpoint.Checkpoints(
      workdir_lib.checkpoints(workdir),
      keep=config.keep,
      best=None if config.select == "last" else config.select,
    ) as saved,
    signals.collected(told),
  ):
    if state is None:
      state, loader_at = _start(built, teacher_params, saved, log)
      if loader_at is not None:
        loader.restore(loader_at)
      # What it says of the config is of use only if the run can go on.
      start.write(config, built, ready.tokenizer, workdir)
    loop = _Loop(
      built,
      teacher_params,
      loader,
      ready.evals,
      saved,
      workdir,
      ready.tokenizer,
      told,
      profile,
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
    if step == 0 or self._due(step):
      row = self._evaluate(state, step, self._missing(step))
      state = self._after_eval(state, row)
    if step == 0:
      self._continue({"start": state.params["student"]})
    with _progress(step, config.steps) as bar:
      while step < config.steps:
        with self.clock.waiting():
          batch = sharding.place_rows(
            run.to_batch(
              next(self.loader), config.group_size, self.built.models.said
            ),
            self.built.mesh,
          )
        step += 1
        written = {}
        if self.built.write is not None:
          if pending is not None:
            self._report(*pending, bar)
            pending = None
          state, batch, written = self._write(state, batch)
        self.profile.before(step, self.workdir / "profile", state)
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
          state, found = self.built.train_step(
            state, self.teacher_params, batch
          )
        self.profile.after(step, state)
        if pending is not None:
          self._report(*pending, bar)
        pending = (step, {**found, **written}, batch.example_id)
        last = step == config.steps
        if self._told_to_stop(step):
          self._report(*pending, bar)
          self._save(state, step)
          self.saved.wait()
          code = self.stop[0] if self.stop else 143
          raise Stopped(code, step, self.workdir)
        row = None
        if self.evals and self._due(step):
          self._report(*pending, bar)
          pending = None
          row = self._evaluate(state, step, self.evals)
          state = self._after_eval(state, row)
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

  def _write(
    self, state: types.TrainState, batch: types.Batch
  ) -> tuple[types.TrainState, types.Batch, types.Metrics]:
    """Has the answers of a batch written, and waits for them."""
    with self.clock.phase("generate"):
      batch, kept, found = self.built.write(
        state.params["student"],
        state.extra[rollout.KEY],
        state.step,
        self.built.writers(self.teacher_params),
        batch,
      )
      jax.block_until_ready(found)
    if self.built.config.reward is not None:
      with self.clock.phase("annotate"):
        batch, worth = self._judge(state.step, batch)
        found = {**found, **worth}
    extra = {**state.extra, rollout.KEY: kept}
    return dataclasses.replace(state, extra=extra), batch, found

  def _judge(
    self, step: jax.Array, written: types.Batch
  ) -> tuple[types.Batch, types.Metrics]:
    """Has answers judged, and the teacher told of it."""
    config = self.built.config
    assert config.reward is not None
    assert config.rollout is not None
    worth, mean = run_rollout.judge(
      config.reward,
      written,
      self.tokenizer,
      self.built.mesh,
      feedback_size=config.rollout.feedback_size(),
    )
    judged = dataclasses.replace(written, data=written.data | worth)
    batch, found = self.built.tell(step, judged)
    return batch, {"rollout/reward": mean, **found}

  def _after_eval(
    self, state: types.TrainState, row: dict[str, float]
  ) -> types.TrainState:
    """Tells the writer of the run how the student does."""
    writer = self.built.config.rollout
    if writer is None or not row:
      return state
    kept = writer.on_eval(state.extra[rollout.KEY], row)
    extra = {**state.extra, rollout.KEY: kept}
    return dataclasses.replace(state, extra=extra)

  def _report(
    self, step: int, found: types.Metrics, ids: jax.Array, bar: Any
  ) -> None:
    """Reads the metrics of a step that has been left behind."""
    config = self.built.config
    row = metrics.means(found)
    bad = self.bad.see(step, row, ids)
    rows = config.data.batch_size * config.group_size
    tokens = rows * getattr(config.data, "seq_len", 1)
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

  def _due(self, step: int) -> bool:
    config = self.built.config
    return (
      step == config.steps
      or step % config.eval_every == 0
      or step in config.eval_at
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
          self.built,
          state.params["student"],
          self.teacher_params,
          write=self.built.eval_writes.get(name),
        )
        row |= {f"{name}/{k}": v for k, v in heldout.summary(sums).items()}
        heldout.write_details(
          self.workdir, step, name, sums, held, self.tokenizer
        )
    self.writer.write(step, row | self._audited({"step": step, **row}))
    shown = ("kl", "coarse_kl", "ppl", "agreement", "accuracy", "reward")
    for name in evals:
      values = [
        f"{k} {row[f'{name}/{k}']:.4g}" for k in shown if f"{name}/{k}" in row
      ]
      self.log(f"step {step}  {name}: {'  '.join(values)}")
    return {k: v for k, v in row.items() if isinstance(v, float)}

  def _audited(self, row: dict[str, Any]) -> dict[str, float]:
    """What audits add to the row of an evaluation; warnings are said once."""
    config = self.built.config
    if not config.audits:
      return {}

    def look() -> dict[str, float]:
      before = metrics.read(self.workdir)
      added = {}
      found = audit.look(config.audits, [*before, row], config.steps)
      for name, one in found.items():
        added |= {f"{name}/{k}": v for k, v in one.numbers.items()}
        flag = f"{name}/flagged"
        if one.flagged and not any(r.get(flag) for r in before):
          self.log(f"warning: audit {name}: {one.said}")
        added[flag] = float(one.flagged)
      return added

    return distributed.decide(look)

  def _save(self, state, step: int, row: dict[str, float] | None = None):
    with self.clock.paused():
      workdir_lib.upload(self.workdir)
      self.saved.save(step, state, self.loader.state(), row)

  def _told_to_stop(self, step: int) -> bool:
    if jax.process_count() > 1:
      return self.saved.reached_preemption()
    return bool(self.stop)

  def _finish(self, state: types.TrainState) -> dict[str, Any]:
    self._continue({"end": state.params["student"]}, teacher=True)
    result = distributed.decide(
      lambda: heldout.result_of(metrics.read(self.workdir), list(self.evals))
    )
    if audits := self.built.config.audits:
      said = distributed.decide(
        lambda: audit.result(
          audits, metrics.read(self.workdir), self.built.config.steps
        )
      )
      result["audits"] = said
    if jax.process_index() == 0:
      checkpoint.dump_json(self.workdir / "result.json", result)
    return result

  def _continue(self, students, *, teacher: bool = False) -> None:
    """Lets the models go on with the config's prompts, for the report."""
    prompts, models = self.built.config.samples, self.built.models
    if not prompts or self.tokenizer is None:
      return
    mesh = self.built.mesh
    speakers = {k: (mesh, models.student, p) for k, p in students.items()}
    if teacher and self.teacher_params:
      first, params = next(iter(self.teacher_params.items()))
      if first in self.built.parts:
        params = params.params
      shape = models.teachers[first].architecture
      speakers["teacher"] = self.built.mesh_of(first), shape, params
    for name, (mesh, shape, params) in speakers.items():
      with self.clock.paused(), jax.set_mesh(mesh):
        rows = evaluate.continuations(
          {name: (shape, params)}, self.tokenizer, prompts, max_new_tokens=40
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


def _progress(step: int, steps: int):
  from tqdm import tqdm

  return tqdm(
    total=steps,
    initial=step,
    disable=jax.process_index() != 0 or not sys.stderr.isatty(),
    unit="step",
  )
