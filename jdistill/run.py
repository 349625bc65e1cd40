# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A run put together from its config: models, shardings, compiled steps."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jdistill import (
  config as config_lib,
)
from jdistill import (
  data,
  methods,
  optim,
  pretrained,
  schedules,
  sharding,
  step,
  types,
)
from jdistill.models import flash
from jdistill.models import low_rank as low_rank_lib
from jdistill.models.base import Architecture
from jdistill.surgery import cut


@dataclasses.dataclass(frozen=True)
class Models:
  """What a config's references name; no weights are read yet."""

  teachers: Mapping[str, pretrained.Found]
  student: Architecture
  start: pretrained.Found | None  # whose weights the student starts from
  layers: tuple[int, ...] | None  # of `start` that it keeps


def find_models(config: config_lib.Config) -> Models:
  """Resolves every model of a config and the student's shape."""
  teachers = {
    name: _teacher(t, config.attention) for name, t in config.teachers.items()
  }
  spec = config.student
  if isinstance(spec, config_lib.Lora):
    spec = spec.base
  start, layers = None, None
  if isinstance(spec, config_lib.Pretrained):
    start = pretrained.find(spec.ref, architecture=spec.architecture)
    student = start.architecture
  elif isinstance(spec, config_lib.Cut):
    start, layers, student = _cut(spec, config, teachers)
  elif spec.architecture is not None:
    student = spec.architecture
  elif spec.like is not None:
    student = _cut(spec.like, config, teachers)[2]
  else:
    raise types.UserError("student: Fresh needs an `architecture` or `like`")
  if getattr(student, "kernels", "float") != "float":
    raise types.UserError(
      "student: its architecture has int8 kernels, which nothing can train; "
      'take kernels="float"'
    )
  student = pretrained.with_fields(
    student,
    dtype=config.dtype,
    remat=config.remat,
    attention=config.attention,
  )
  if isinstance(config.student, config_lib.Lora):
    student = _with_adapters(student, config.student)
  return Models(teachers, student, start, layers)


def _with_adapters(
  student: Architecture, spec: config_lib.Lora
) -> Architecture:
  if not hasattr(student, "low_rank"):
    raise types.UserError(
      "student: Lora puts adapters into decoders, and the base is a "
      f"{type(student).__name__}; for a module of your own apply qwix's LoRA "
      "and name its parameters in the adapter's `train`"
    )
  adapters = low_rank_lib.LowRank(
    spec.rank, spec.alpha, spec.targets, spec.also
  )
  student = pretrained.with_fields(student, low_rank=adapters)
  student.trainable()  # refuses patterns without a parameter
  return student


def _teacher(spec: config_lib.Teacher, attention: str) -> pretrained.Found:
  found = pretrained.find(
    spec.ref,
    architecture=spec.architecture,
    dtype=spec.dtype,
    stored=spec.stored,
  )
  shape = pretrained.with_fields(found.architecture, attention=attention)
  return dataclasses.replace(found, architecture=shape)


def _cut(
  spec: config_lib.Cut,
  config: config_lib.Config,
  teachers: Mapping[str, pretrained.Found],
):
  if spec.ref is not None:
    start = pretrained.find(spec.ref)
  elif teachers:
    first, start = next(iter(teachers.items()))
    if config.teachers[first].stored != "float32":
      # The teacher's own weights are rounded: a model of its own, read again.
      full = pretrained.with_storage(start.architecture, "float32")
      start = dataclasses.replace(start, architecture=full)
  else:
    raise types.UserError(
      "student: Cut takes layers of the first teacher, but there is none; "
      "give it a `ref`"
    )
  shape: Any = start.architecture
  if not hasattr(shape, "num_layers"):
    raise types.UserError(
      f"student: {start.ref} is a {type(shape).__name__}, which has no layers "
      "to cut"
    )
  layers = spec.layers
  if isinstance(layers, int):
    layers = cut.evenly_spaced(shape.num_layers, layers)
  student, _ = cut.cut_layers(shape, shape.shapes(), layers)
  return start, tuple(layers), student


@dataclasses.dataclass(frozen=True)
class Run:
  """Everything that runs on the mesh, apart from the arrays.

  `train_step(state, teacher_params, batch)` donates the state;
  `eval_step(student_params, teacher_params, batch)` compares with the first
  teacher, and `teacher_params` is always the dict by name.
  """

  config: config_lib.Config
  mesh: Mesh
  models: Models
  method: methods.Method
  optimizer: optax.GradientTransformation
  learning_rate: Any
  output_shapes: Mapping[str, types.Outputs]
  state_shapes: types.TrainState
  state_shardings: types.TrainState
  teacher_shardings: types.PyTree
  train_step: step.Step
  eval_step: Any

  def load_teachers(self) -> types.PyTree:
    """The teachers' weights, each on its sharding."""
    return {
      name: found.params(
        dtype=self.config.teachers[name].stored,
        shardings=lambda _, shapes, name=name: self.teacher_shardings[name],
      )
      for name, found in self.models.teachers.items()
    }

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
        "student": _student(self.models, key, start),
        "method": self.method.init(
          jax.random.fold_in(key, 1), self.output_shapes
        ),
      }
      return _fresh_state(self.config, self.optimizer, params)

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
      arch.axes(), shapes, self.mesh, _rules(self.config)
    )
    return found.params(shardings=places)


def build(
  config: config_lib.Config,
  models: Models,
  batch: types.Batch,
  *,
  token_bytes: np.ndarray | None = None,
  devices: Any = None,
) -> Run:
  """Puts a run together; nothing is loaded and nothing compiled.

  Args:
    config: the run.
    models: from `find_models`.
    batch: shapes of the global batch.
    token_bytes: [V] bytes of each token, for bits per byte.
    devices: of the mesh; default: all.
  Raises: UserError for whatever in the config does not fit together.
  """
  config = schedules.resolve(config, config.steps)
  mesh = sharding.make_mesh(config.mesh, devices)
  check(config, models, mesh)
  method, rules = config.method, _rules(config)
  teachers = {k: f.architecture for k, f in models.teachers.items()}

  key = jax.random.key(0)
  with jax.set_mesh(mesh):
    outputs = _output_shapes(models, method, batch)
  params = {
    "student": models.student.shapes(),
    "method": jax.eval_shape(lambda: method.init(key, outputs)),
  }
  axes = {
    "student": models.student.axes(),
    "method": jax.tree.map(lambda s: (None,) * len(s.shape), params["method"]),
  }
  mask = optim.trainable(config.freeze, params, _movable(models, params))
  optimizer = optim.make(config.optimizer, axes, mask)
  shapes = jax.eval_shape(
    lambda: _fresh_state(
      config,
      optimizer,
      jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), params),
    )
  )
  places = sharding.param_shardings(axes, params, mesh, rules)
  state_places = sharding.like(shapes, params, places, mesh)
  teacher_places = {
    name: sharding.param_shardings(a.axes(), a.shapes(), mesh, rules)
    for name, a in teachers.items()
  }
  train_step = step.make_train_step(
    models.student,
    teachers,
    method,
    optimizer,
    microbatches=config.microbatches,
    mask=mask,
    ema=config.ema,
    seed=config.seed,
  )
  first = next(iter(teachers), None)
  eval_step = step.make_eval_step(
    models.student,
    teachers[first] if first is not None else None,
    token_bytes=token_bytes,
  )
  rows, whole = sharding.rows(mesh), sharding.replicated(mesh)
  return Run(
    config=config,
    mesh=mesh,
    models=models,
    method=method,
    optimizer=optimizer,
    learning_rate=config.optimizer.rate,
    output_shapes=outputs,
    state_shapes=shapes,
    state_shardings=state_places,
    teacher_shardings=teacher_places,
    train_step=jax.jit(
      train_step,
      in_shardings=(state_places, teacher_places, rows),
      out_shardings=(state_places, whole),
      donate_argnums=0,
    ),
    eval_step=jax.jit(
      lambda student, teacher, batch: eval_step(
        student, teacher[first] if first is not None else None, batch
      ),
      in_shardings=(state_places.params["student"], teacher_places, rows),
      out_shardings=whole,
    ),
  )


def check(config: config_lib.Config, models: Models, mesh: Mesh) -> None:
  """Refuses what cannot work, before anything is compiled."""
  needs = config.method.needs()
  missing = [t for t in needs.teachers if t not in models.teachers]
  if missing:
    raise types.UserError(
      f"method {type(config.method).__name__} needs a teacher named "
      f"{missing[0]!r}; teachers has {sorted(models.teachers) or 'none'}"
    )
  shards = sharding.num_row_shards(mesh)
  parts = shards * config.microbatches
  for name, spec in {"data": config.data, **config.evals}.items():
    want = parts if name == "data" else shards
    if spec.batch_size % want:
      raise types.UserError(
        f"{name}.batch_size is {spec.batch_size}, which does not divide over "
        f"{shards} mesh rows (data x fsdp)"
        + (f" x {config.microbatches} microbatches" if want != shards else "")
        + f"; take a multiple of {want}, or another mesh"
      )
    _check_ids(name, spec, models)
    if config.attention == "flash":
      _check_flash(name, spec)
  if needs.same_vocabulary and not config.data.needs_tokenizer:
    _check_classes(models)
  if config.select != "last":
    _check_select(config)
  if config.steps < 1:
    raise types.UserError(f"steps is {config.steps}; a run takes at least 1")


def _check_classes(models: Models) -> None:
  own = models.student.vocab_size
  for name, found in models.teachers.items():
    size = found.architecture.vocab_size
    if size != own:
      raise types.UserError(
        f"teachers.{name}: {found.ref} tells {size} classes or ids apart and "
        f"the student {own}; this method compares the same ones"
      )


def _check_ids(name: str, spec: data.Data, models: Models) -> None:
  speakers = {"student": models.student} | {
    f"teachers.{k}": found.architecture for k, found in models.teachers.items()
  }
  for who, architecture in speakers.items():
    if (spec.vocab_size or 0) > architecture.vocab_size:
      raise types.UserError(
        f"{name}: has {spec.vocab_size} ids, but {who} knows only "
        f"{architecture.vocab_size}; give it a vocab_size of {spec.vocab_size}"
      )


def _check_flash(name: str, spec: data.Data) -> None:
  length = getattr(spec, "seq_len", flash.LANES)
  reason = flash.refusal(length, probs=False)
  if reason:
    raise types.UserError(
      f"attention is 'flash', but {name}: {reason}; take another seq_len, or"
      " attention 'auto'"
    )


def _check_select(config: config_lib.Config) -> None:
  if config.select.partition("/")[0] not in config.evals:
    raise types.UserError(
      f"select is {config.select!r}, but evals has "
      f"{', '.join(config.evals) or 'none'}; take 'last' or a metric such as "
      f"'{next(iter(config.evals), 'eval')}/kl'"
    )


def to_batch(arrays: Mapping[str, Any]) -> types.Batch:
  """A batch with the one view "student" from what a data loader yields."""
  arrays = dict(arrays)
  ids = arrays.pop("example_id")
  kind = types.Tokens if "tokens" in arrays else types.Examples
  names = [f.name for f in dataclasses.fields(kind)]
  view = kind(**{n: arrays.pop(n) for n in names})
  return types.Batch({"student": view}, arrays, ids)


def batch_shapes(spec: data.Data, local: types.Batch):
  """Shapes of the global batch, from this process's rows of one."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((spec.batch_size, *x.shape[1:]), x.dtype),
    local,
  )


def _movable(models: Models, params: types.PyTree) -> types.PyTree | None:
  student = models.student.trainable()
  if student is None:
    return None
  method = jax.tree.map(lambda _: True, params["method"])
  return {"student": student, "method": method}


def _rules(config: config_lib.Config) -> dict[str, str | None]:
  return {**sharding.DEFAULT_RULES, **config.rules}


def _student(models: Models, key, start) -> types.PyTree:
  if start is None:
    return models.student.init(jax.random.fold_in(key, 0))
  if models.layers is not None:
    assert models.start is not None
    shape: Any = models.start.architecture
    _, start = cut.cut_layers(shape, start, models.layers)
  if getattr(models.student, "low_rank", None) is not None:
    drawn = models.student.init(jax.random.fold_in(key, 0))
    start = low_rank_lib.beside(drawn, start)
  return jax.tree.map(
    lambda x: (
      x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x
    ),
    start,
  )


def _fresh_state(config, optimizer, params) -> types.TrainState:
  extra = {}
  if config.ema is not None:
    extra["ema"] = jax.tree.map(jnp.copy, params["student"])
  return types.TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=optimizer.init(params),
    extra=extra,
  )


def _output_shapes(models, method, batch):
  """Shapes of what each model says of a batch, for `Method.init`."""
  wants = method.wants()
  found = {}
  speakers = {"student": models.student} | {
    k: f.architecture for k, f in models.teachers.items()
  }
  for name, architecture in speakers.items():
    want = wants.get(name, ())
    found[name] = jax.eval_shape(
      lambda p, v, a=architecture, w=want: a.bind(p)(v, want=w),
      architecture.shapes(),
      batch["student"],
    )
  return found
