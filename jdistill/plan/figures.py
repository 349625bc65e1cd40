# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a plan says, in numbers."""

import dataclasses
from typing import Any

from jdistill.plan import chips, traffic

DAY = 86_400.0


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
class Apart:
  """The program of a teacher on devices of its own, as `Plan` has the step's.

  `moved` are the bytes of what it says of a batch that reach each device of the
  student.
  """

  mesh: dict[str, int]
  memory: Memory
  largest: tuple[str, ...]
  sent: tuple[traffic.Sent, ...]
  seconds: dict[str, float]
  moved: int
  compile_s: float

  @property
  def step_s(self) -> float:
    """The resource that is busy longest, all others behind it."""
    return max(self.seconds.values())


@dataclasses.dataclass(frozen=True)
class Writing:
  """The program that writes the answers of a batch, before each step.

  As if every answer were as long as it may be, and of a mixture the costliest
  writer. `memory` counts what lies there for the step too.
  """

  tokens: int  # that are written, of all rows
  memory: Memory
  largest: tuple[str, ...]
  sent: tuple[traffic.Sent, ...]
  seconds: dict[str, float]
  compile_s: float

  @property
  def step_s(self) -> float:
    """The resource that is busy longest, all others behind it."""
    return max(self.seconds.values())


@dataclasses.dataclass(frozen=True)
class Plan:
  """What the compiler and the chips' peaks say of a run.

  `seconds` are the least that a step takes by each resource (compute, hbm,
  ici, dcn), were it alone: a prediction, not a measurement. `apart` are the
  teachers that read the next batch on devices of their own meanwhile; the way
  of what they say from device to device is in no `seconds`.
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
  apart: dict[str, Apart] = dataclasses.field(default_factory=dict)
  writing: Writing | None = None

  @property
  def chip(self) -> chips.Chip:
    chip = self.topology.chip
    assert chip is not None
    return chip

  @property
  def peak(self) -> int:
    """Bytes of the device that needs most."""
    peaks = [self.memory.peak]
    peaks += [part.memory.peak for part in self.apart.values()]
    if self.writing is not None:
      peaks.append(self.writing.memory.peak)
    return max(peaks)

  @property
  def fits(self) -> bool:
    return self.peak <= self.chip.hbm

  @property
  def step_s(self) -> float:
    """The resource that is busy longest, all others behind it; after the same
    for the writing, where there is any."""
    parts = [part.step_s for part in self.apart.values()]
    before = 0.0 if self.writing is None else self.writing.step_s
    return before + max(*self.seconds.values(), *parts)

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
    for name, part in self.apart.items():
      plain["apart"][name]["memory"]["peak"] = part.memory.peak
      plain["apart"][name]["step_s"] = part.step_s
    if self.writing is not None:
      plain["writing"]["memory"]["peak"] = self.writing.memory.peak
      plain["writing"]["step_s"] = self.writing.step_s
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

  `arguments` are bytes of one device: weights and optimizer state. `apart` are
  those of the teachers that have devices of their own, by name.
  """

  topology: chips.Topology
  mesh: dict[str, int]
  tokens: int
  steps: int
  arguments: int
  flops: Flops
  apart: dict[str, int]
  fits = True  # nothing is known against it
  faults = ()

  def to_json(self) -> dict[str, Any]:
    """Everything, as plain values."""
    plain = dataclasses.asdict(self)
    plain["flops"]["model"] = self.flops.model
    return plain | {"topology": self.topology.name}


class TooLarge(Exception):
  """The compiler found no way to fit the step into memory.

  Attributes: `used` and `limit` in bytes, `largest` allocations as text, and
  `program`, whose they are.
  """

  def __init__(
    self,
    used: float,
    limit: float,
    largest: tuple[str, ...],
    program: str = "the step",
  ):
    super().__init__(f"{program} needs {used:.4g} bytes of {limit:.4g}")
    self.used, self.limit, self.largest = used, limit, largest
    self.program = program
