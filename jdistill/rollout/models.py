# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The data's own answers, and those that models write."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jdistill import sampling, types
from jdistill.rollout import base
from jdistill.sampling import Sampling


@dataclasses.dataclass(frozen=True)
class Dataset(base.Writer):
  """The answers that the data came with (off-policy)."""

  def write(self, batch, kept, scene):
    del scene
    return base.answered(batch), kept


@dataclasses.dataclass(frozen=True)
class ModelWriter(base.Writer):
  """A writer that draws one token after another from some distribution."""

  sampling: Sampling = dataclasses.field(default_factory=Sampling)

  def max_new_tokens(self) -> int:
    return self.sampling.max_new_tokens

  def memory(self, scene: base.Scene) -> tuple[Any, types.PyTree]:
    """How the next token's logits are asked for, and of which parameters."""
    raise NotImplementedError

  def fresh(self) -> bool:
    """Whether a prompt gets another answer each time."""
    return True

  def write(self, batch, kept, scene):
    memory, params = self.memory(scene)
    length = batch.data["prompt_length"]
    written = sampling.write(
      memory,
      params,
      sampling.Prompts(batch.data["prompt"], jnp.maximum(length, 1)),
      scene.row_keys(batch, fresh=self.fresh()),
      self.sampling,
      ends=scene.ends,
    )
    written = jax.lax.stop_gradient(written)
    answers = base.lay_out(
      batch,
      written.tokens,
      written.counts,
      written.log_probs,
      written.sampling_log_probs,
    )
    return answers, kept


@dataclasses.dataclass(frozen=True)
class Student(ModelWriter):
  """The student as it is at this step (on-policy).

  References: Agarwal et al., 2023, arXiv:2306.13649 (GKD).
  """

  def memory(self, scene):
    return _memory(scene, "student")


@dataclasses.dataclass(frozen=True)
class Teacher(ModelWriter):
  """A teacher (sequence-level distillation).

  Attributes:
    name: which teacher.
    anew: another answer each time that a prompt comes up; off, a prompt always
      gets the same one, as if all had been written before the run.

  References: Kim and Rush, 2016, arXiv:1606.07947.
  """

  name: str = "teacher"
  anew: bool = True

  def sources(self) -> tuple[str, ...]:
    return (self.name,)

  def teachers(self) -> tuple[str, ...]:
    return (self.name,)

  def fresh(self) -> bool:
    return self.anew

  def memory(self, scene):
    return _memory(scene, self.name)


@dataclasses.dataclass(frozen=True)
class _Mixed(ModelWriter):
  """Several models write one text; `log_probs` are the student's."""

  def write(self, batch, kept, scene):
    batch, kept = super().write(batch, kept, scene)
    own = base.student_log_probs(batch, scene)
    data = batch.data | {"log_probs": own}
    return dataclasses.replace(batch, data=data), kept


@dataclasses.dataclass(frozen=True)
class Blend(_Mixed):
  """Each token is drawn from a weighted mean of models' distributions.

  With a little of the teacher the student's samples stay out of texts that
  only deceive the objective, `p~ = 0.2 p + 0.8 q`.

  Attributes:
    weights: by model, "student" or a teacher; positive, summing to 1.

  References: Gu et al., 2023, arXiv:2306.08543 (MiniLLM), section 2.2.
  """

  weights: dict[str, float] = dataclasses.field(
    default_factory=lambda: {"student": 0.8, "teacher": 0.2}
  )

  def __post_init__(self):
    total = sum(self.weights.values())
    if not self.weights or min(self.weights.values()) <= 0 or (
      abs(total - 1) > 1e-6
    ):  # fmt: skip
      raise types.UserError(
        f"Blend.weights: found {self.weights}, expected positive numbers that "
        "sum to 1"
      )

  def teachers(self) -> tuple[str, ...]:
    return tuple(name for name in self.weights if name != "student")

  def memory(self, scene):
    found = [_memory(scene, name) for name in self.weights]
    memories, params = zip(*found, strict=True)
    return sampling.Blend(memories, tuple(self.weights.values())), params


@dataclasses.dataclass(frozen=True)
class Interleaved(_Mixed):
  """The student writes, and the teacher replaces what it finds unlikely.

  A token of the student stays where it is among the teacher's `top_k`;
  otherwise the teacher draws one in its place.

  References: Xu et al., 2024, arXiv:2410.11325 (speculative knowledge
    distillation).
  """

  teacher: str = "teacher"
  top_k: int = 25

  def teachers(self) -> tuple[str, ...]:
    return (self.teacher,)

  def memory(self, scene):
    student, own = _memory(scene, "student")
    teacher, other = _memory(scene, self.teacher)
    memory = sampling.Interleaved(student, teacher, self.top_k)
    return memory, (own, other)


def _memory(scene: base.Scene, name: str) -> tuple[Any, types.PyTree]:
  pen = scene.pens[name]
  return sampling.memory.of(pen.architecture.for_evaluation()), pen.params
