# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Changes of a config that make its step smaller, tried by compiling them."""

import dataclasses
from collections.abc import Callable, Iterator

from jdistill import config as config_lib
from jdistill import optim, pretrained, types
from jdistill.config import Config
from jdistill.plan import chips, planning

Try = tuple[tuple[str, ...], planning.Plan | planning.TooLarge]
"""The flags of a change, and what the compiler made of it."""


def search(
  config: Config,
  topology: chips.Topology,
  found: Callable[[Try], None] = lambda _: None,
  *,
  beside: pretrained.Beside = None,
) -> list[Try]:
  """Tries each change alone and, where none is enough, more and more together.

  Args:
    config: a run that does not fit.
    topology: what it should fit.
    found: called with every try when it is done.
    beside: see `planning.plan`.
  """
  tries: list[Try] = []

  def attempt(changed: Config, flags: tuple[str, ...]) -> bool:
    try:
      made = planning.plan(changed, topology, beside=beside)
    except planning.TooLarge as error:
      made = error
    except types.UserError:
      return False  # such as a batch that does not divide
    tries.append((flags, made))
    found(tries[-1])
    return fits(made)

  each = list(changes(config, topology))
  alone = [attempt(change(config), (flag,)) for flag, change in each]
  if any(alone):
    return tries
  together, flags = config, ()
  for flag, change in each:
    together, flags = change(together), (*flags, flag)
    if len(flags) > 1 and attempt(together, flags):
      break
  return tries


def fits(made: planning.Plan | planning.TooLarge) -> bool:
  return isinstance(made, planning.Plan) and made.fits


def changes(
  config: Config, topology: chips.Topology
) -> Iterator[tuple[str, Callable[[Config], Config]]]:
  """The changes that apply, as flags, what costs least time first."""
  large = {k: t for k, t in config.teachers.items() if t.stored != "int8"}
  for name, teacher in large.items():
    if teacher.stored == "float32":
      yield _teacher(name, "bfloat16")
  if config.mesh.data != 1:
    mesh = dataclasses.replace(config.mesh, data=1, fsdp=-1)
    yield "--mesh.data 1 --mesh.fsdp -1", _with(mesh=mesh)
  if isinstance(config.optimizer, optim.AdamW):
    adam = dataclasses.replace(config.optimizer, moments="bfloat16")
    if adam != config.optimizer:
      yield "--optimizer.moments bfloat16", _with(optimizer=adam)
  for times in (2, 4):
    parts = config.microbatches * times
    yield f"--microbatches {parts}", _with(microbatches=parts)
  if config.remat != "full":
    yield "--remat full", _with(remat="full")
  for name in large:
    yield _teacher(name, "int8")
  tensor = 2 * config.mesh.tensor
  if config.mesh.tensor > 0 and topology.num_devices % tensor == 0:
    mesh = dataclasses.replace(config.mesh, data=1, fsdp=-1, tensor=tensor)
    flag = f"--mesh.data 1 --mesh.fsdp -1 --mesh.tensor {tensor}"
    yield flag, _with(mesh=mesh)


def _with(**fields) -> Callable[[Config], Config]:
  return lambda config: dataclasses.replace(config, **fields)


def _teacher(
  name: str, weights: config_lib.Weights
) -> tuple[str, Callable[[Config], Config]]:
  def change(config: Config) -> Config:
    teacher = dataclasses.replace(config.teachers[name], weights=weights)
    return dataclasses.replace(
      config, teachers=config.teachers | {name: teacher}
    )

  return f"--teachers.{name}.weights {weights}", change
