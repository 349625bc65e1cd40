# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Numbers that change during a run, as frozen dataclasses.

They survive JSON and the command line, and are functions of the traced step,
so that a run compiles once whatever they do.
"""

import abc
import dataclasses
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jdistill import types

Shape = Literal["cosine", "linear", "constant"]


@dataclasses.dataclass(frozen=True)
class Schedule(abc.ABC):
  """A float that depends on the number of finished updates."""

  @abc.abstractmethod
  def __call__(self, step: jax.Array) -> jax.Array:
    """The value, [] float32, at the traced `step`."""


@dataclasses.dataclass(frozen=True)
class Constant(Schedule):
  """A number as a schedule; None where a field may be left out."""

  value: float | None

  def __call__(self, step: jax.Array) -> jax.Array:
    if self.value is None:
      raise ValueError("Constant.value is None: there is nothing to schedule")
    return jnp.full_like(step, self.value, jnp.float32)


@dataclasses.dataclass(frozen=True)
class Linear(Schedule):
  """From `start` to `end` over `steps` updates, constant after."""

  start: float
  end: float
  steps: int

  def __call__(self, step: jax.Array) -> jax.Array:
    part = jnp.clip(step / max(self.steps, 1), 0.0, 1.0)
    return self.start + (self.end - self.start) * part


@dataclasses.dataclass(frozen=True)
class Cosine(Schedule):
  """From `start` to `end` along half a cosine over `steps` updates."""

  start: float
  end: float
  steps: int

  def __call__(self, step: jax.Array) -> jax.Array:
    part = jnp.clip(step / max(self.steps, 1), 0.0, 1.0)
    return self.end + (self.start - self.end) * (1 + jnp.cos(jnp.pi * part)) / 2


@dataclasses.dataclass(frozen=True)
class WarmupDecay(Schedule):
  """Linear warm-up to `peak`, then decay to `peak * final` by the last step.

  `steps` counts the whole run, warm-up included; None stands for the steps of
  the run it is used in.
  """

  peak: float
  steps: int | None = None
  warmup: int = 0
  final: float = 0.0
  shape: Shape = "cosine"

  def __post_init__(self):
    if self.shape not in get_args(Shape):
      raise types.UserError(
        f"WarmupDecay.shape is {self.shape!r}; choose one of "
        f"{', '.join(get_args(Shape))}"
      )

  def __call__(self, step: jax.Array) -> jax.Array:
    if self.steps is None:
      raise ValueError("WarmupDecay.steps is unset: use schedules.resolve")
    rise = jnp.minimum((step + 1) / max(self.warmup, 1), 1.0)
    span = max(self.steps - self.warmup, 1)
    part = jnp.clip((step - self.warmup) / span, 0.0, 1.0)
    fall = {
      "cosine": (1 + jnp.cos(jnp.pi * part)) / 2,
      "linear": 1 - part,
      "constant": jnp.ones_like(part),
    }[self.shape]
    return self.peak * rise * (self.final + (1 - self.final) * fall)


def at(value: "float | Schedule", step: jax.Array) -> jax.Array:
  """The value of a number or schedule at a step, [] float32."""
  if isinstance(value, Schedule):
    return value(step)
  return jnp.asarray(value, jnp.float32)


def resolve(tree: Any, steps: int) -> Any:
  """The same tree of frozen dataclasses, open `WarmupDecay`s given `steps`."""
  if isinstance(tree, WarmupDecay):
    return (
      dataclasses.replace(tree, steps=steps) if tree.steps is None else tree
    )
  if isinstance(tree, dict):
    new = {k: resolve(v, steps) for k, v in tree.items()}
    return new if any(new[k] is not tree[k] for k in tree) else tree
  if isinstance(tree, tuple) and not hasattr(tree, "_fields"):
    items = tuple(resolve(v, steps) for v in tree)
    same = all(a is b for a, b in zip(items, tree, strict=True))
    return tree if same else items
  if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
    fields = {f.name: getattr(tree, f.name) for f in dataclasses.fields(tree)}
    new = {k: resolve(v, steps) for k, v in fields.items()}
    moved = {k: v for k, v in new.items() if v is not fields[k]}
    return dataclasses.replace(tree, **moved) if moved else tree
  return tree
