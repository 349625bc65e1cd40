# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A run's exact train step, compiled for chips that are not here."""

import dataclasses
import math
import re
import time
from typing import Any

import jax

from jdistill import (
  cached,
  hlo,
  placement,
  pretrained,
  rollout,
  run,
  sharding,
  stages,
  step,
  types,
)
from jdistill import config as config_lib
from jdistill.models.base import Architecture
from jdistill.plan import chips, faults, flops, traffic
from jdistill.plan.figures import DAY as DAY
from jdistill.plan.figures import Apart as Apart
from jdistill.plan.figures import Flops as Flops
from jdistill.plan.figures import Lowered as Lowered
from jdistill.plan.figures import Memory as Memory
from jdistill.plan.figures import Plan as Plan
from jdistill.plan.figures import TooLarge as TooLarge
from jdistill.plan.figures import Writing as Writing

BACKWARD = 3.0
"""Operations of forward and backward pass, in forward passes."""


def stage(
  config: config_lib.Config | config_lib.Stages, name: str | None = None
) -> tuple[config_lib.Config, pretrained.Beside]:
  """The run to plan, of several stages a named one or the last.

  Returns: its config, and the students that its references name, if any.
  """
  if isinstance(config, config_lib.Config):
    if name is not None:
      raise types.UserError(
        f"--stage is {name!r}, but the config has no stages"
      )
    return config, None
  name = name or list(config.stages)[-1]
  if name not in config.stages:
    raise types.UserError(
      f"--stage is {name!r}, and the stages are {', '.join(config.stages)}"
    )
  alone = {k: self_contained(one) for k, one in config.stages.items()}
  students = stages.students(config_lib.Stages(alone), name)
  return config.stages[name], students


def plan(
  config: config_lib.Config,
  topology: chips.Topology,
  *,
  beside: pretrained.Beside = None,
) -> Plan:
  """Compiles a run's step for a topology; nothing is loaded or downloaded.

  Models that have an `architecture` beside their `ref` are planned from it;
  others are looked up as training does. `beside` are the students of other
  stages that it names, of `stage`.

  Raises:
    UserError: for a config or topology that cannot work.
    TooLarge: where the compiler refuses for want of memory.
  """
  built, batch = _build(config, chips.devices(topology), beside)
  parts = {name: part.trace(batch) for name, part in built.parts.items()}
  apart = {name: _compiled(topology, built.mesh_of(name), traced,
                           f"the program of teachers.{name}")
           for name, traced in parts.items()}  # fmt: skip
  made = _compiled(topology, built.mesh, _trace(built, batch), "the step")
  moved = {name: _bytes(part.said(batch)) for name, part in built.parts.items()}
  counted = count(
    built, batch, made.flops + sum(part.flops for part in apart.values())
  )
  # What teachers say of the next batch arrives during the step.
  arguments = made.memory.arguments + sum(moved.values())
  return Plan(
    topology=topology,
    mesh=dict(built.mesh.shape),
    tokens=_tokens(batch),
    steps=config.steps,
    memory=dataclasses.replace(made.memory, arguments=arguments),
    largest=_largest(made.program),
    flops=counted,
    sent=made.sent,
    seconds=made.seconds,
    faults=tuple(faults.find(built, made.program)),
    compile_s=made.compile_s,
    apart={
      name: Apart(
        mesh=dict(built.mesh_of(name).shape),
        memory=part.memory,
        largest=_largest(part.program),
        sent=part.sent,
        seconds=part.seconds,
        moved=moved[name],
        compile_s=part.compile_s,
      )
      for name, part in apart.items()
    },
    writing=_writing(built, topology),
  )


def _writing(built: run.Run, topology: chips.Topology) -> Writing | None:
  writer = built.config.rollout
  if writer is None:
    return None
  count = writer.max_new_tokens()
  made = _compiled(
    topology,
    built.mesh,
    _trace_writing(built),
    "the program that writes",
    turns=max(count, 1),
  )
  state, places = built.state_shapes, built.state_shardings
  beside = _placed_bytes(state.opt_state, places.opt_state)
  arguments = made.memory.arguments + beside
  return Writing(
    tokens=_rows(built.batch_shapes) * count,
    memory=dataclasses.replace(made.memory, arguments=arguments),
    largest=_largest(made.program),
    sent=made.sent,
    seconds=made.seconds,
    compile_s=made.compile_s,
  )


def _trace_writing(built: run.Run) -> Any:
  state = built.state_shapes
  with sharding.in_context(built.mesh):
    return built.write.trace(
      state.params["student"],
      state.extra[rollout.KEY],
      state.step,
      built.writers(built.teacher_shapes()),
      placement.batch_shapes(
        built.config.data, built.config.group_size, built.models.said
      ),
    )


def _rows(batch: types.Batch) -> int:
  """Rows of a batch or of its shapes."""
  return batch.example_id.shape[0]


@dataclasses.dataclass(frozen=True)
class _Compiled:
  """A program of some of the devices, and what it needs of each."""

  program: hlo.Program
  memory: Memory
  flops: float  # of all of them
  sent: tuple[traffic.Sent, ...]
  seconds: dict[str, float]
  compile_s: float


def _compiled(
  topology: chips.Topology, mesh: Any, traced: Any, name: str, turns: int = 1
) -> _Compiled:
  begin = time.perf_counter()
  with jax.set_mesh(mesh):
    try:
      made = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
      raise _overflow(str(error), name) from error
  compile_s = time.perf_counter() - begin
  program = dataclasses.replace(hlo.parse(made.as_text()), untold=turns)
  sent = tuple(traffic.collectives(program, mesh.size // topology.slices))
  counted = flops.of_jaxpr(traced.jaxpr.jaxpr, turns)
  return _Compiled(
    program=program,
    memory=_memory(made.memory_analysis()),
    flops=counted,
    sent=sent,
    seconds=_seconds(topology, counted / mesh.size, program, sent),
    compile_s=compile_s,
  )


def lower(
  config: config_lib.Config,
  topology: chips.Topology,
  *,
  beside: pretrained.Beside = None,
) -> Lowered:
  """Traces and lowers a run's step for GPUs, which is as far as it goes.

  Raises: UserError for a config that cannot work.
  """
  built, batch = _build(config, topology.num_devices, beside)
  programs = [(part.mesh, part.trace(batch)) for part in built.parts.values()]
  programs.append((built.mesh, _trace(built, batch)))
  if built.write is not None:
    programs.append((built.mesh, _trace_writing(built)))
  for mesh, traced in programs:
    with sharding.in_context(mesh):
      traced.lower(lowering_platforms=("cuda",))
  program = sum(flops.of_jaxpr(one.jaxpr.jaxpr) for _, one in programs)
  laid = placement.of_run(built)
  return Lowered(
    topology=topology,
    mesh=dict(built.mesh.shape),
    tokens=_tokens(batch),
    steps=config.steps,
    arguments=laid["bytes_per_device"],
    flops=count(built, batch, program),
    apart={k: part["bytes_per_device"] for k, part in laid["apart"].items()},
  )


def _build(
  config: config_lib.Config, devices: Any, beside: pretrained.Beside
) -> tuple[run.Run, types.Batch]:
  config = self_contained(config)
  models = run.find_models(config, beside=beside)
  batch = placement.batch_shapes(config.data, config.group_size, models.said)
  built = run.build(config, models, batch, devices=devices)
  return built, built.batch_shapes


def _trace(built: run.Run, batch: types.Batch) -> Any:
  train_step: Any = built.train_step
  with sharding.in_context(built.mesh):
    return train_step.trace(built.state_shapes, built.teacher_shapes(), batch)


def _bytes(shapes: types.PyTree) -> int:
  """Those of arrays on one device."""
  return sum(
    math.prod(s.sharding.shard_shape(s.shape)) * s.dtype.itemsize
    for s in jax.tree.leaves(shapes)
  )


def _placed_bytes(shapes: types.PyTree, places: types.PyTree) -> int:
  pairs = zip(jax.tree.leaves(shapes), jax.tree.leaves(places), strict=True)
  return sum(
    math.prod(place.shard_shape(s.shape)) * s.dtype.itemsize
    for s, place in pairs
  )


def self_contained(config: config_lib.Config) -> config_lib.Config:
  """The config with references left out where an architecture is given."""
  teachers = {
    name: dataclasses.replace(t, ref=None)
    if t.architecture and t.cache is None
    else t
    for name, t in config.teachers.items()
  }
  student = config.student
  if isinstance(student, config_lib.Pretrained) and student.architecture:
    student = config_lib.Fresh(student.architecture)
  return dataclasses.replace(config, teachers=teachers, student=student)


def count(built: run.Run, batch: types.Batch, program: float) -> Flops:
  """Operations of the models, each counted in a trace of its forward pass."""
  view = batch["student"]

  def forward(architecture: Architecture, want: tuple[str, ...]) -> float:
    hears = architecture.hears
    told = {} if hears is None else {"heard": built.output_shapes[hears]}

    def outputs(params, view, told):
      return architecture.bind(params)(view, want=want, **told)

    shapes = architecture.shapes()
    found = jax.eval_shape(outputs, shapes, view, told)
    whole = flops.count(outputs, shapes, view, told)
    head = flops.count(lambda h, x: h(x), found.head, found.hidden)
    return whole + head

  wants = step.wants(built.models.student, built.method)
  student = forward(built.models.student, wants.get("student", ()))
  teacher = 0.0
  for name, found in built.models.teachers.items():
    if name not in built.models.said:
      teacher += forward(found.architecture, wants.get(name, ()))
    elif isinstance(found.architecture, cached.HeadOnly):
      hidden = batch.said[name]["student"].hidden
      head = found.architecture.shapes()
      teacher += flops.count(lambda h, x: h(x), head, hidden)
  return Flops(teacher, BACKWARD * student, program)


def _tokens(batch: types.Batch) -> int:
  return math.prod(batch["student"].targets.shape)


def _memory(stats: Any) -> Memory:
  return Memory(
    arguments=stats.argument_size_in_bytes,
    temporaries=stats.temp_size_in_bytes,
    outputs=stats.output_size_in_bytes - stats.alias_size_in_bytes,
    code=stats.generated_code_size_in_bytes,
  )


def _largest(program: hlo.Program, count: int = 5) -> tuple[str, ...]:
  """The largest arrays in main memory, by what made them."""
  best: dict[tuple[str, tuple[int, ...]], tuple[int, str]] = {}
  for i in program.buffers():
    if i.opcode in ("tuple", "while", "get-tuple-element", "bitcast"):
      continue
    for array in i.arrays:
      if array.space == 0:
        key = array.dtype, array.shape
        best.setdefault(key, (array.nbytes, i.source or i.opcode))
  ordered = sorted(best.items(), key=lambda item: -item[1][0])[:count]
  return tuple(
    f"{size / chips.GIB:.2f} GiB  {dtype}{list(shape)}  {source}"
    for (dtype, shape), (size, source) in ordered
  )


def _seconds(topology, counted: float, program, sent) -> dict[str, float]:
  chip = topology.chip
  near = sum(s.wire for s in sent if not s.across_slices)
  far = sum(s.wire for s in sent if s.across_slices)
  return {
    "compute": counted / chip.flops,
    "hbm": traffic.memory_bytes(program) / chip.hbm_rate,
    "ici": near / (2 * chip.ici_rate),
    "dcn": far / chip.dcn_rate,
  }


def _overflow(message: str, name: str = "the step") -> Exception:
  """What the compiler said, in numbers; other errors as they are."""
  found = None
  for pattern in _TOO_LARGE:
    found = found or re.search(pattern, message)
  if not found:
    return types.UserError(
      f"the TPU compiler refuses {name}: {message.splitlines()[0][:300]}"
    )
  used, limit = (float(n) * _UNITS[unit] for n, unit in _SIZE.findall(found[0]))
  rows = zip(
    re.findall(r"Size: ([\d.]+[KMGT])", message),
    re.findall(r"Shape: (\S+?)\{", message),
    re.findall(r'op_name="([^"]*)"', message),
    strict=False,
  )
  largest = tuple("  ".join(row) for row in rows)[:5]
  return TooLarge(used, limit, largest, name)


_UNITS = {"K": 2.0**10, "M": 2.0**20, "G": 2.0**30, "T": 2.0**40}
_SIZE = re.compile(r"([\d.]+)([KMGT])\b")
_TOO_LARGE = (
  r"Used [\d.]+[KMGT] of [\d.]+[KMGT] hbm",
  r"\([\d.]+[KMGT]\) exceeds available HBM \([\d.]+[KMGT]\)",
)
