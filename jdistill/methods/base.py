# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a method is: a frozen dataclass with a pure `loss`."""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jdistill import losses, types

Speaker = Callable[..., types.Outputs]
"""`speaker(view=None, want=()) -> Outputs`: a bound model, memoised per call."""

Teachers = Mapping[str, Speaker]


@dataclasses.dataclass(frozen=True)
class Needs:
  """What a method asks of a run; checked when the config loads."""

  views: tuple[str, ...] = ("student",)
  teachers: tuple[str, ...] = ("teacher",)
  same_vocabulary: bool = True


@types.pytree
class Context:
  """What a loss may know beside the batch.

  `step` is the number of finished updates; `keys` [B] are one per example,
  folded from the step and the example's id, so noise follows the example
  whatever the mesh; `norms` are `Method.norms` of the global batch.
  """

  step: jax.Array
  keys: jax.Array
  norms: dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Method(abc.ABC):
  """How the difference between student and teachers is measured."""

  batch_coupled: ClassVar[bool] = False
  """True where examples of a batch enter each other's loss: such a method
  depends on the batch it sees and refuses gradient accumulation."""

  def needs(self) -> Needs:
    return Needs()

  def init(
    self, key: jax.Array, shapes: Mapping[str, types.Outputs]
  ) -> types.PyTree:
    """Draws the method's own parameters.

    Args:
      key: a PRNG key.
      shapes: for "student" and each teacher, the shapes of its outputs on
        one batch (`want` as in `wants`).
    Returns: a nested dict of arrays; {} for most methods.
    """
    del key, shapes
    return {}

  def wants(self) -> Mapping[str, tuple[str, ...]]:
    """Features by model name that `loss` will ask for, so `init` sees them."""
    return {}

  def norms(self, batch: types.Batch) -> dict[str, jax.Array]:
    """Denominators from data alone, over the whole global batch."""
    return {"tokens": batch["student"].mask.sum()}

  def survey(
    self,
    params: types.PyTree,
    student: Speaker,
    teachers: Teachers,
    batch: types.Batch,
  ) -> types.PyTree:
    """Arrays [B, ...] that need a forward pass, gathered over microbatches
    without gradients before `prepare`; None when there is nothing to do."""
    del params, student, teachers, batch
    return None

  def prepare(self, arrays: types.PyTree, batch: types.Batch) -> types.Batch:
    """Puts what needs the whole global batch into `batch.data`."""
    del arrays
    return batch

  @abc.abstractmethod
  def loss(
    self,
    params: types.PyTree,
    student: Speaker,
    teachers: Teachers,
    batch: types.Batch,
    ctx: Context,
  ) -> types.Loss:
    """The loss of one microbatch, divided by the global batch's norms."""
