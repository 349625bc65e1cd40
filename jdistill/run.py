# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A run put together from its config: models, shardings, compiled steps."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdistill import (
  apart,
  bad_steps,
  cached,
  data,
  methods,
  optim,
  pretrained,
  rollout,
  run_checks,
  run_models,
  run_rollout,
  schedules,
  sharding,
  step,
  types,
)
from jdistill import (
  config as config_lib,
)
from jdistill.models import host
from jdistill.models.base import Architecture
from jdistill.run_models import Models as Models
from jdistill.run_models import find_models as find_models
from jdistill.run_models import rules as rules


@dataclasses.dataclass(frozen=True)
class Run:
  """Everything that runs on the mesh, apart from the arrays.

  `train_step(state, teacher_params, batch)` donates the state;
  `write(student_params, kept, step, teacher_params, batch)` writes its answers,
  `tell(step, batch)` adds what follows from how they were judged,
  and `eval_writes[NAME](student_params, teacher_params, batch)` those of an
  evaluation;
  `eval_step(student_params, teacher_params, batch)` compares with the first
  teacher, and `teacher_params` is always the dict by name. `parts` are the
  teachers on devices of their own.
  """

  config: config_lib.Config
  mesh: Any  # jax.sharding.Mesh, abstract where devices are but a number
  models: Models
  method: methods.Method
  optimizer: optax.GradientTransformation
  learning_rate: Any
  batch_shapes: types.Batch  # as the train step takes it
  written_shapes: types.Batch  # as a writer gives it
  output_shapes: Mapping[str, types.Outputs]
  state_shapes: types.TrainState
  state_shardings: types.TrainState
  teacher_shardings: types.PyTree
  parts: Mapping[str, apart.Part]
  train_step: step.Step
  eval_step: Any
  write: Any = None  # where the config has a rollout
  tell: Any = None  # and a reward
  eval_writes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def mesh_of(self, teacher: str) -> Any:
    """The mesh that a teacher's weights lie on."""
    part = self.parts.get(teacher)
    return self.mesh if part is None else part.mesh

  def teacher_shapes(self) -> types.PyTree:
    """The teachers' weights as they are stored, and in which memory.

    Programs traced from shapes alone would not know what waits on the hosts.
    """
    found = {}
    for name, teacher in self.models.teachers.items():
      own = self.config.teachers[name]
      found[name] = pretrained.stored_shapes(teacher.architecture, own.stored)
      if own.place == "host":
        found[name] = sharding.placed(found[name], self.teacher_shardings[name])
    return found

  def uneven(self) -> dict[str, list[sharding.Uneven]]:
    """What the rules of each model do not divide, by `student` or teacher."""
    models = {
      "student": (self.models.student, rules(self.config), self.mesh)
    } | {
      name: (found.architecture, rules(self.config, name), self.mesh_of(name))
      for name, found in self.models.teachers.items()
    }
    return {
      name: sharding.uneven(shape.axes(), shape.shapes(), mesh, own)
      for name, (shape, own, mesh) in models.items()
    }

  def writers(self, teacher_params: types.PyTree) -> types.PyTree:
    """What writers take: the teachers whose layers lie on the run's mesh."""
    return {k: p for k, p in teacher_params.items() if k not in self.parts}

  def load_teachers(self) -> types.PyTree:
    """The teachers' weights, each on its sharding.

    Returns: by name; `apart.Weights` of those on devices of their own.
    """
    loaded = {}
    for name, found in self.models.teachers.items():
      load = functools.partial(
        found.params,
        dtype=self.config.teachers[name].stored,
        shardings=lambda shape, shapes, name=name: _places_of(
          self.config, name, shape, shapes, self.mesh_of(name)
        ),
      )
      part = self.parts.get(name)
      loaded[name] = load() if part is None else part.weights(load)
    return loaded

  def init_state(self, teacher_params: types.PyTree) -> types.TrainState:
    """The state before the first update.

    Args:
      teacher_params: from `load_teachers`; a student cut from a teacher whose
        weights are stored in float32 takes its layers from there instead of
        reading the file again.
    """
    start = self._start(teacher_params)
    key = jax.random.key(self.config.seed)

    def make(start):
      params = {
        "student": run_models.initial(self.models, key, start),
        "method": self.method.init(
          jax.random.fold_in(key, 1), self.output_shapes
        ),
      }
      return _fresh_state(
        self.config, self.optimizer, params, self.written_shapes
      )

    make = jax.jit(make, out_shardings=self.state_shardings)
    with jax.set_mesh(self.mesh):
      return make(start)

  def _start(self, teacher_params: types.PyTree) -> types.PyTree | None:
    found = self.models.start
    if found is None:
      return None
    for name, teacher in self.models.teachers.items():
      if teacher is found:
        return teacher_params[name]
    places = lambda arch, shapes: sharding.param_shardings(  # noqa: E731
      arch.axes(), shapes, self.mesh, rules(self.config)
    )
    return found.params(shardings=places)


def build(
  config: config_lib.Config,
  models: Models,
  batch: types.Batch,
  *,
  token_bytes: np.ndarray | None = None,
  token_classes: np.ndarray | None = None,
  ends: tuple[int, ...] = (),
  encode: rollout.Encode | None = None,
  tables: step.Tables | None = None,
  devices: Any = None,
) -> Run:
  """Puts a run together; nothing is loaded and nothing compiled.

  Args:
    config: the run.
    models: from `find_models`.
    batch: shapes of the global batch as the data give it.
    token_bytes: [V] bytes of each token, for bits per byte.
    token_classes: [V] the class of each token, to judge these apart.
    ends: tokens that end an answer, where a rollout writes.
    encode: for texts of a rollout; None where nothing will run.
    tables: what the method needs to know of ids; None where nothing will run.
    devices: of the mesh; default: all. A number stands for devices that are
      not there: such a run says where its arrays would lie, and cannot start.
  Raises: UserError for whatever in the config does not fit together.
  """
  config = schedules.resolve(config, config.steps)
  mesh, own_meshes = apart.meshes(config, devices)
  run_checks.check(config, models, mesh, own_meshes)
  method = config.method
  teachers = {k: f.architecture for k, f in models.teachers.items()}
  rows = run_rollout.shapes(config, batch, encode)
  batch = rows.ready
  run_checks.check_reader(models.student, batch)
  run_checks.check_batch(method, batch)

  with sharding.in_context(mesh):
    outputs = step.output_shapes(
      models.student, models.speakers(), method, batch
    )
  own = jax.eval_shape(lambda: method.init(jax.random.key(0), outputs))
  params = {"student": models.student.shapes(), "method": own}
  axes = {
    "student": models.student.axes(),
    "method": jax.tree.map(lambda s: (None,) * len(s.shape), own),
  }
  mask = optim.trainable(config.freeze, params, _movable(models, params))
  optimizer = optim.make(config.optimizer, axes, mask)
  shapes = jax.eval_shape(
    lambda: _fresh_state(
      config,
      optimizer,
      jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), params),
      rows.written,
    )
  )
  places = sharding.param_shardings(axes, params, mesh, rules(config))
  state_places = _state_places(shapes, params, places, mesh)
  teacher_places = {
    name: _places_of(config, name, a, a.shapes(), own_meshes.get(name, mesh))
    for name, a in teachers.items()
  }
  parts = {
    name: _part(config, models, name, own, mesh, batch, teacher_places[name])
    for name, own in own_meshes.items()
  }
  heads = {name: part.head_shardings for name, part in parts.items()}
  train_step = _train_step(config, models, optimizer, mask, tables)
  student_places = state_places.params["student"]
  train_step = jax.jit(
    train_step,
    in_shardings=(
      state_places,
      teacher_places | heads,
      sharding.of_batch(apart.heard(batch, parts), mesh),
    ),
    out_shardings=(state_places, sharding.replicated(mesh)),
    donate_argnums=0,
    compiler_options=sharding.compiler_options(mesh),
  )
  if parts:
    train_step = apart.Step(train_step, parts, training=True)
  writing = run_rollout.Rollouts(config, models, parts, ends, mesh)
  teacher_pens = {k: p for k, p in teacher_places.items() if k not in parts}
  built = Run(
    config=config,
    mesh=mesh,
    models=models,
    method=method,
    optimizer=optimizer,
    learning_rate=config.optimizer.rate,
    batch_shapes=batch,
    written_shapes=rows.written,
    output_shapes=outputs,
    state_shapes=shapes,
    state_shardings=state_places,
    teacher_shardings=teacher_places,
    parts=parts,
    train_step=train_step,
    eval_step=_eval_step(
      config,
      models,
      parts,
      (student_places, teacher_places | heads),
      sharding.replicated(mesh),
      token_bytes=token_bytes,
      token_classes=token_classes,
    ),
    write=writing.in_training(state_places, teacher_pens, rows),
    tell=writing.after_judging(rows, encode or run_rollout.nothing),
    eval_writes=writing.in_evaluations(student_places, teacher_pens),
  )
  _check_writing(built, rows.given)
  return built


def _train_step(
  config: config_lib.Config,
  models: Models,
  optimizer: optax.GradientTransformation,
  mask: types.PyTree,
  tables: step.Tables | None,
) -> step.Step:
  """The train step, not jitted yet."""
  return step.make_train_step(
    models.student,
    models.speakers(),
    config.method,
    optimizer,
    microbatches=config.microbatches,
    mask=mask,
    ema=config.ema,
    living=models.living,
    seed=config.seed,
    tables=tables or _blank_tables(config.method, models),
  )


def _check_writing(built: Run, prompts: types.Batch) -> None:
  """Refuses a writer that asks a student who says nothing by itself."""
  if built.write is None or built.models.student.hears is None:
    return
  state = built.state_shapes
  own = state.params["student"], state.extra[rollout.KEY], state.step
  with sharding.in_context(built.mesh):
    pens = built.writers(built.teacher_shapes())
    jax.eval_shape(built.write, *own, pens, prompts)


def _state_places(shapes, params, places, mesh) -> types.TrainState:
  """Where the state lies, from the places of its parameters."""
  found = sharding.like(shapes, params, places, mesh)
  if rollout.KEY in shapes.extra:
    kept = run_rollout.kept_shardings(shapes.extra[rollout.KEY], mesh)
    found.extra[rollout.KEY] = kept
  return found


def _part(
  config: config_lib.Config,
  models: Models,
  name: str,
  own: sharding.AnyMesh,
  mesh: sharding.AnyMesh,
  batch: types.Batch,
  places: types.PyTree,
) -> apart.Part:
  """A teacher on devices of its own."""
  architecture = models.teachers[name].architecture
  return apart.Part(
    architecture=architecture,
    mesh=own,
    home=mesh,
    views=config.method.needs().views,
    want=step.wants(models.student, config.method).get(name, ()),
    eval_want=step.HEARD if models.student.hears == name else (),
    microbatches=config.microbatches,
    batch=batch,
    shapes=pretrained.stored_shapes(architecture, config.teachers[name].stored),
    shardings=places,
    rules=rules(config),
  )


def _blank_tables(method: methods.Method, models: Models) -> step.Tables:
  """Tables of the right shapes, to trace a step with."""
  speakers = {"student": models.student, **models.speakers()}
  return {
    name: {
      table: np.zeros(
        shape.vocab_size, bool if table == "boundary" else "int32"
      )
      for table in method.needs().tables
    }
    for name, shape in speakers.items()
  }


def _judges(config: config_lib.Config, models: Models) -> tuple[str, ...]:
  """The teachers that are judged by; where ids differ the first at most."""
  if config.data.views():  # they read other tokens than the student
    return ()
  names = tuple(models.teachers)
  return names if config.method.needs().same_vocabulary else names[:1]


def _eval_step(
  config: config_lib.Config,
  models: Models,
  parts: Mapping[str, apart.Part],
  places: tuple[types.PyTree, types.PyTree],
  whole: jax.sharding.NamedSharding,
  **about: np.ndarray | None,
) -> Any:
  """The jitted step of evaluations, for student and teachers at `places`."""
  judges = _judges(config, models)
  compiled = jax.jit(
    _judge(models, judges, **about),
    # Held-out batches may carry other arrays: they lie where they lie.
    in_shardings=(*places, None),
    out_shardings=whole,
  )
  judging = {name: part for name, part in parts.items() if name in judges}
  if not parts:
    return compiled
  return apart.Step(compiled, judging, training=False)


def _judge(models: Models, judges: tuple[str, ...], **about: np.ndarray | None):
  """`judge(student_params, teacher_params, batch)`, against these teachers.

  `about` is what is known of the tokens, as `step.make_eval_step` takes it.
  """
  teachers = {k: models.teachers[k].architecture for k in judges}
  first = judges[0] if judges else None
  others = {k: a for k, a in teachers.items() if k != first}
  eval_step = step.make_eval_step(
    models.student,
    None if first is None else teachers[first],
    others=others,
    **about,
  )

  def judge(student, params, batch):
    own = None if first is None else params[first]
    said = {k: said for k, said in batch.said.items() if k in judges}
    batch = dataclasses.replace(batch, said=said)
    return eval_step(student, own, batch, {k: params[k] for k in others})

  return judge


def to_batch(
  arrays: Mapping[str, Any],
  repeat: int = 1,
  said: Mapping[str, cached.Said] | None = None,
) -> types.Batch:
  """A batch from what a data loader yields.

  Its view "student", and those whose fields are under "NAME/".

  `said` are the teachers that the data have the words of.

  With `repeat`, each row so many times in a row, as a `group` of rows that
  have ids of their own.
  """
  arrays = dict(arrays)
  if repeat > 1:
    arrays = {k: np.repeat(v, repeat, axis=0) for k, v in arrays.items()}
    arrays["group"] = arrays["example_id"].astype(np.int32)
    member = np.arange(len(arrays["group"]), dtype=np.int32) % repeat
    arrays["example_id"] = arrays["group"] * repeat + member
  ids = arrays.pop("example_id")
  spoken = cached.taken(arrays, said or {})
  kind = types.Tokens if "tokens" in arrays else types.Examples
  names = [f.name for f in dataclasses.fields(kind)]
  further = [k.removesuffix("/tokens") for k in arrays if k.endswith("/tokens")]
  views = {"student": kind(**{n: arrays.pop(n) for n in names})}
  for view in further:
    views[view] = kind(**{n: arrays.pop(f"{view}/{n}") for n in names})
  return types.Batch(views, arrays, ids, spoken)


def batch_shapes(spec: data.Data, local: types.Batch, repeat: int = 1):
  """Shapes of the global batch, from this process's rows of one."""
  count = spec.batch_size * repeat
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype), local
  )


def _movable(models: Models, params: types.PyTree) -> types.PyTree | None:
  student = models.student.trainable()
  if student is None:
    return None
  method = jax.tree.map(lambda _: True, params["method"])
  return {"student": student, "method": method}


def _places_of(
  config: config_lib.Config,
  name: str,
  architecture: Architecture,
  shapes: types.PyTree,
  mesh: sharding.AnyMesh,
) -> types.PyTree:
  """The shardings of a teacher's weights, or of another way to store them."""
  places = sharding.param_shardings(
    architecture.axes(), shapes, mesh, rules(config, name)
  )
  if config.teachers[name].place == "host":
    decoder: Any = architecture
    places |= {
      key: jax.tree.map(host.place, places[key], shapes[key])
      for key in decoder.stacks
    }
  return places


def _fresh_state(config, optimizer, params, batch) -> types.TrainState:
  extra = {bad_steps.KEY: bad_steps.none()}
  if config.rollout is not None:
    rows = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), batch)
    extra[rollout.KEY] = config.rollout.init(rows)
  if config.ema is not None:
    extra["ema"] = jax.tree.map(jnp.copy, params["student"])
  return types.TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=optimizer.init(params),
    extra=extra,
  )
