# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A method tried on a bed: one student, so many steps, on one device."""

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdistill import data, methods, step, types
from jdistill.models import base, decoder, spec

Teachers = Mapping[str, tuple[base.Architecture, types.PyTree]]


@dataclasses.dataclass(frozen=True)
class Budget:
  """What every arm of a trial gets alike."""

  steps: int
  lr: float = 3e-3


def small_decoder(
  vocab_size: int, *, width: int, num_layers: int, num_heads: int = 2
) -> decoder.DecoderConfig:
  """A decoder without frills, of a size for beds."""
  return decoder.DecoderConfig(
    vocab_size=vocab_size,
    width=width,
    mlp_width=4 * width,
    num_heads=num_heads,
    num_kv_heads=num_heads,
    head_dim=width // num_heads,
    segments=(spec.Segment.uniform(num_layers),),
    ropes=(spec.Rope(theta=10_000.0),),
  )


def to_batch(arrays: Mapping[str, np.ndarray]) -> types.Batch:
  """What a bed's loader yields, as a batch of one view."""
  fields: dict[str, Any] = dict(arrays)
  ids = fields.pop("example_id")
  return types.Batch({"student": types.Tokens(**fields)}, {}, ids)


class Trial:
  """Trains students of one architecture by one method, compiled once.

  Args:
    student: what is trained.
    method: how.
    teachers: architectures and parameters by name.
    budget: steps and the like.
  """

  def __init__(
    self,
    student: base.Architecture,
    method: methods.Method,
    budget: Budget,
    teachers: Teachers | None = None,
  ):
    teachers = teachers or {}
    self.student, self.budget = student, budget
    self.frozen = {name: params for name, (_, params) in teachers.items()}
    self.optimizer = optax.chain(
      optax.clip_by_global_norm(1.0),
      optax.adamw(
        optax.warmup_cosine_decay_schedule(
          0.0, budget.lr, budget.steps // 20, budget.steps
        ),
        weight_decay=0.01,
      ),
    )
    train_step = step.make_train_step(
      student,
      {name: architecture for name, (architecture, _) in teachers.items()},
      method,
      self.optimizer,
    )
    self.train_step = jax.jit(train_step, donate_argnums=0)

  def run(self, learnt: data.Data, *, seed: int) -> types.PyTree:
    """The student's parameters after the budget's steps.

    Args:
      learnt: what is learnt from, again and again.
      seed: of the student's start and of the order of the documents.
    """
    params = {"student": self.student.init(jax.random.key(seed)), "method": {}}
    state = types.TrainState(
      jnp.zeros((), jnp.int32), params, self.optimizer.init(params), {}
    )
    loader = data.load(learnt, seed=seed)
    try:
      for _ in range(self.budget.steps):
        batch = to_batch(next(loader))
        state, _ = self.train_step(state, self.frozen, batch)
    finally:
      loader.close()
    return state.params["student"]


def summary(values: Sequence[float]) -> dict[str, Any]:
  """Mean and standard deviation over seeds, and the values."""
  return {
    "mean": round(float(np.mean(values)), 4),
    "std": round(float(np.std(values, ddof=1)), 4),
    "seeds": [round(float(v), 4) for v in values],
  }


def tell(what: str, found: Any) -> None:
  """A line for people on standard error, with the CPU seconds so far."""
  line = f"{time.process_time():.0f} CPU s  {what}: {found}"
  print(line, file=sys.stderr, flush=True)
