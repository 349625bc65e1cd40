# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The models of a run: what its config's references name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jdistill import config as config_lib
from jdistill import pretrained, sharding, types
from jdistill.models import low_rank as low_rank_lib
from jdistill.models.base import Architecture
from jdistill.surgery import cut

LIVING = ("student", "ema")
"""References of teachers that are the student itself."""


@dataclasses.dataclass(frozen=True)
class Models:
  """What a config's references name; no weights are read yet."""

  teachers: Mapping[str, pretrained.Found]
  student: Architecture
  start: pretrained.Found | None  # whose weights the student starts from
  layers: tuple[int, ...] | None  # of `start` that it keeps
  living: Mapping[str, str] = dataclasses.field(default_factory=dict)
  """Teachers that are the student itself: "student" or "ema" by their name."""

  def speakers(self) -> dict[str, Architecture]:
    """All teachers, the living ones too."""
    loaded = {name: found.architecture for name, found in self.teachers.items()}
    return loaded | dict.fromkeys(self.living, self.student)


def find_models(config: config_lib.Config) -> Models:
  """Resolves every model of a config and the student's shape."""
  living = {k: t.ref for k, t in config.teachers.items() if t.ref in LIVING}
  teachers = {
    k: _teacher(k, config) for k in config.teachers if k not in living
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
    heads_axis=rules(config).get("heads"),
  )
  if isinstance(config.student, config_lib.Lora):
    student = _with_adapters(student, config.student)
  return Models(teachers, student, start, layers, living)


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


def _teacher(name: str, config: config_lib.Config) -> pretrained.Found:
  spec = config.teachers[name]
  found = pretrained.find(
    spec.ref,
    architecture=spec.architecture,
    dtype=spec.dtype,
    stored=spec.stored,
  )
  shape = pretrained.with_fields(
    found.architecture,
    attention=config.attention,
    heads_axis=rules(config, name).get("heads"),
  )
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
    own = config.teachers[first]
    if own.stored != "float32" or own.place == "host" or own.mesh is not None:
      # The teacher's own weights are rounded, or lie elsewhere: a model of its
      # own, read again.
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


def rules(
  config: config_lib.Config, teacher: str | None = None
) -> dict[str, str | None]:
  """Logical axis -> mesh axis of the student, or of one of the teachers."""
  own = {} if teacher is None else config.teachers[teacher].rules
  return {**sharding.DEFAULT_RULES, **config.rules, **own}
