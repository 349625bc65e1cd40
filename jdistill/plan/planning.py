# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A run's exact train step, compiled for chips that are not here."""

import dataclasses
import math
import re
import time
from typing import Any

import jax

from jdistill import config as config_lib
from jdistill import hlo, placement, run, sharding, types
from jdistill.models.base import Architecture
from jdistill.plan import chips, faults, flops, traffic

DAY = 86_400.0
BACKWARD = 3.0
"""Operations of forward and backward pass, in forward passes."""


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes of one device.

  `arguments` are weights, optimizer state and batch; `temporaries` whatever
  the step needs besides; `outputs` what does not reuse an argument's place.
  """

  arguments: int
  temporaries: int
  outputs: int
  code: int

  @property
  def peak(self) -> int:
    """What must fit: all of it, as if all were there at once."""
    return self.arguments + self.temporaries + self.outputs + self.code


@dataclasses.dataclass(frozen=True)
class Flops:
  """Floating-point operations of one step on all devices.

  `teacher` is a forward pass, `student` three of them; `program` is all that
  the step computes, what remat repeats included.
  """

  teacher: float
  student: float
  program: float

  @property
  def model(self) -> float:
    """What the step is for, whatever is computed twice."""
    return self.teacher + self.student


@dataclasses.dataclass(frozen=True)
class Plan:
  """What the compiler and the chips' peaks say of a run.

  `seconds` are the least that a step takes by each resource (compute, hbm,
  ici, dcn), were it alone: a prediction, not a measurement.
  """

  topology: chips.Topology
  mesh: dict[str, int]
  tokens: int  # of one step
  steps: int
  memory: Memory
  largest: tuple[str, ...]
  flops: Flops
  sent: tuple[traffic.Sent, ...]
  seconds: dict[str, float]
  faults: tuple[str, ...]
  compile_s: float

  @property
  def chip(self) -> chips.Chip:
    chip = self.topology.chip
    assert chip is not None
    return chip

  @property
  def fits(self) -> bool:
    return self.memory.peak <= self.chip.hbm

  @property
  def step_s(self) -> float:
    """The resource that is busy longest, all others behind it."""
    return max(self.seconds.values())

  @property
  def mfu(self) -> float:
    peak = self.chip.flops * self.topology.num_devices
    return self.flops.model / (peak * self.step_s)

  def to_json(self) -> dict[str, Any]:
    """Everything, derived figures too, as plain values."""
    plain = dataclasses.asdict(self)
    plain["topology"] = self.topology.name
    plain["chip"] = dataclasses.asdict(self.chip)
    plain["memory"]["peak"] = self.memory.peak
    plain["flops"]["model"] = self.flops.model
    return plain | {
      "fits": self.fits,
      "step_s": self.step_s,
      "mfu": self.mfu,
      "tokens_per_day": self.tokens * DAY / self.step_s,
      "hours": self.steps * self.step_s / 3600,
    }


@dataclasses.dataclass(frozen=True)
class Lowered:
  """What is known of a run on GPUs, whose compiler is not here.

  `arguments` are bytes of one device: weights and optimizer state.
  """

  topology: chips.Topology
  mesh: dict[str, int]
  tokens: int
  steps: int
  arguments: int
  flops: Flops
  fits = True  # nothing is known against it
  faults = ()

  def to_json(self) -> dict[str, Any]:
    """Everything, as plain values."""
    plain = dataclasses.asdict(self)
    plain["flops"]["model"] = self.flops.model
    return plain | {"topology": self.topology.name}


class TooLarge(Exception):
  """The compiler found no way to fit the step into memory.

  Attributes: `used` and `limit` in bytes, `largest` allocations as text.
  """

  def __init__(self, used: float, limit: float, largest: tuple[str, ...]):
    super().__init__(f"needs {used:.4g} bytes of {limit:.4g}")
    self.used, self.limit, self.largest = used, limit, largest


def plan(config: config_lib.Config, topology: chips.Topology) -> Plan:
  """Compiles a run's step for a topology; nothing is loaded or downloaded.

  Models that have an `architecture` beside their `ref` are planned from it;
  others are looked up as training does.

  Raises:
    UserError: for a config or topology that cannot work.
    TooLarge: where the compiler refuses for want of memory.
  """
  devices = chips.devices(topology)
  built, batch = _build(config, devices)
  begin = time.perf_counter()
  with jax.set_mesh(built.mesh):
    traced = _trace(built, batch)
    try:
      made = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
      raise _overflow(str(error)) from error
  compile_s = time.perf_counter() - begin
  program = hlo.parse(made.as_text())
  counted = count(built, batch, flops.of_jaxpr(traced.jaxpr.jaxpr))
  per_slice = len(devices) // topology.slices
  sent = tuple(traffic.collectives(program, per_slice))
  return Plan(
    topology=topology,
    mesh=dict(built.mesh.shape),
    tokens=_tokens(batch),
    steps=config.steps,
    memory=_memory(made.memory_analysis()),
    largest=_largest(program),
    flops=counted,
    sent=sent,
    seconds=_seconds(topology, counted, program, sent),
    faults=tuple(faults.find(built, program)),
    compile_s=compile_s,
  )


def lower(config: config_lib.Config, topology: chips.Topology) -> Lowered:
  """Traces and lowers a run's step for GPUs, which is as far as it goes.

  Raises: UserError for a config that cannot work.
  """
  built, batch = _build(config, topology.num_devices)
  with sharding.in_context(built.mesh):
    traced = _trace(built, batch)
    traced.lower(lowering_platforms=("cuda",))
  shapes = jax.tree.leaves((built.state_shapes, built.teacher_shapes()))
  places = jax.tree.leaves((built.state_shardings, built.teacher_shardings))
  return Lowered(
    topology=topology,
    mesh=dict(built.mesh.shape),
    tokens=_tokens(batch),
    steps=config.steps,
    arguments=sum(
      math.prod(place.shard_shape(s.shape)) * s.dtype.itemsize
      for s, place in zip(shapes, places, strict=True)
    ),
    flops=count(built, batch, flops.of_jaxpr(traced.jaxpr.jaxpr)),
  )


def _build(
  config: config_lib.Config, devices: Any
) -> tuple[run.Run, types.Batch]:
  config = self_contained(config)
  models = run.find_models(config)
  batch = placement.batch_shapes(config.data)
  return run.build(config, models, batch, devices=devices), batch


def _trace(built: run.Run, batch: types.Batch) -> Any:
  train_step: Any = built.train_step
  return train_step.trace(built.state_shapes, built.teacher_shapes(), batch)


def self_contained(config: config_lib.Config) -> config_lib.Config:
  """The config with references left out where an architecture is given."""
  teachers = {
    name: dataclasses.replace(t, ref=None) if t.architecture else t
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
    def outputs(params, view):
      return architecture.bind(params)(view, want=want)

    shapes = architecture.shapes()
    found = jax.eval_shape(outputs, shapes, view)
    whole = flops.count(outputs, shapes, view)
    head = flops.count(lambda h, x: h(x), found.head, found.hidden)
    return whole + head

  wants = built.method.wants()
  student = forward(built.models.student, wants.get("student", ()))
  teacher = sum(
    forward(found.architecture, wants.get(name, ()))
    for name, found in built.models.teachers.items()
  )
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


def _seconds(topology, counted: Flops, program, sent) -> dict[str, float]:
  chip = topology.chip
  near = sum(s.wire for s in sent if not s.across_slices)
  far = sum(s.wire for s in sent if s.across_slices)
  return {
    "compute": counted.program / topology.num_devices / chip.flops,
    "hbm": traffic.memory_bytes(program) / chip.hbm_rate,
    "ici": near / (2 * chip.ici_rate),
    "dcn": far / chip.dcn_rate,
  }


def _overflow(message: str) -> Exception:
  """What the compiler said, in numbers; other errors as they are."""
  found = None
  for pattern in _TOO_LARGE:
    found = found or re.search(pattern, message)
  if not found:
    return types.UserError(
      f"the TPU compiler refuses the step: {message.splitlines()[0][:300]}"
    )
  used, limit = (float(n) * _UNITS[unit] for n, unit in _SIZE.findall(found[0]))
  rows = zip(
    re.findall(r"Size: ([\d.]+[KMGT])", message),
    re.findall(r"Shape: (\S+?)\{", message),
    re.findall(r'op_name="([^"]*)"', message),
    strict=False,
  )
  return TooLarge(used, limit, tuple("  ".join(row) for row in rows)[:5])


_UNITS = {"K": 2.0**10, "M": 2.0**20, "G": 2.0**30, "T": 2.0**40}
_SIZE = re.compile(r"([\d.]+)([KMGT])\b")
_TOO_LARGE = (
  r"Used [\d.]+[KMGT] of [\d.]+[KMGT] hbm",
  r"\([\d.]+[KMGT]\) exceeds available HBM \([\d.]+[KMGT]\)",
)
