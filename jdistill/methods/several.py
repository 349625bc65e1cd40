# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Several teachers as one: their hidden states side by side, and one head.

The head parts them again and averages what each says, a chunk of tokens at a
time, so a method sees the logits of one teacher and `[B, T, V]` never exists.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jdistill import types
from jdistill.methods import base

Average = Literal["probability", "logit", "log_prob"]

TEACHER = "teacher"
"""The name that a method knows the several by."""


def average(
  logits: list[jax.Array], weights: jax.Array, kind: Average
) -> jax.Array:
  """What several say together.

  Args:
    logits: [*B, V] of each.
    weights: [n], or [*B, n] of their own for each row; they sum to 1. What one
      of weight 0 says does not matter.
    kind: of the average.
  Returns: [*B, V], for "probability" the log of `sum_i w_i p_i`, for "logit"
    `sum_i w_i z_i`, for "log_prob" `sum_i w_i log p_i` less what makes it sum
    to 1. The last two differ by a number for each row alone.
  """
  said = list(logits)
  if kind != "logit":
    said = [jax.nn.log_softmax(x, axis=-1) for x in said]
  shares = [
    jnp.broadcast_to(weights[..., i, None], x.shape).astype(x.dtype)
    for i, x in enumerate(said)
  ]
  if kind == "probability":
    found = jnp.log(shares[0]) + said[0]
    for share, x in zip(shares[1:], said[1:], strict=True):
      found = jnp.logaddexp(found, jnp.log(share) + x)
    return found
  parts = [
    jnp.where(share == 0, 0, share * x)
    for share, x in zip(shares, said, strict=True)
  ]
  found = functools.reduce(jnp.add, parts)
  return found if kind == "logit" else jax.nn.log_softmax(found, axis=-1)


@types.pytree(static=("widths", "dtypes", "average"))
class SeveralHeads:
  """Heads of models whose hidden states [*B, D] lie side by side.

  `weights` are [n], or None where those of each token lie behind its hidden
  states. A head whose `asked` is False is left out.
  """

  heads: tuple[Any, ...]
  weights: types.Leaf | None  # [n]
  asked: types.Leaf | None  # [n] bool; None: all are
  widths: tuple[int, ...]
  dtypes: tuple[str, ...]
  average: Average

  @property
  def vocab_size(self) -> int:
    return min(head.vocab_size for head in self.heads)

  @property
  def logits_per_token(self) -> int:
    """Of all heads together, which chunks of tokens are measured by."""
    return sum(head.vocab_size for head in self.heads)

  def cut(self, vocab_size: int) -> "SeveralHeads":
    heads = tuple(head.cut(vocab_size) for head in self.heads)
    return dataclasses.replace(self, heads=heads)

  def narrow(self, dtype: Any) -> "SeveralHeads":
    """The same heads, each no wider than its own hidden states."""
    del dtype
    heads = []
    for head, own in zip(self.heads, self.dtypes, strict=True):
      narrow = getattr(head, "narrow", None)
      heads.append(head if narrow is None else narrow(own))
    return dataclasses.replace(self, heads=tuple(heads))

  def __call__(self, hidden: jax.Array) -> jax.Array:
    dtype = jnp.promote_types(hidden.dtype, jnp.float32)
    weights = self.weights
    if weights is None:
      weights = hidden[..., sum(self.widths) :]
    said, begin, vocab = [], 0, self.vocab_size
    for i, head in enumerate(self.heads):
      own = hidden[..., begin : begin + self.widths[i]].astype(self.dtypes[i])
      begin += self.widths[i]
      head = head if head.vocab_size == vocab else head.cut(vocab)
      if self.asked is None:
        said.append(head(own))
        continue
      # The same on all devices: tokens of each would differ, and products of a
      # head that is divided over some need them all.
      said.append(jax.lax.cond(self.asked[i], _say, _nothing, head, own))
    said = [x.astype(dtype) for x in said]
    return average(said, weights, self.average)


def _say(head: Any, hidden: jax.Array) -> jax.Array:
  return head(hidden)


def _nothing(head: Any, hidden: jax.Array) -> jax.Array:
  said = jax.eval_shape(_say, head, hidden)
  return jnp.zeros(said.shape, said.dtype)


@dataclasses.dataclass(frozen=True)
class Blend:
  """How much each teacher counts.

  `weights` are [n], or [B, n] for each row, small whole numbers; `skips` says
  that some may be 0, so that these teachers need not be asked.
  """

  weights: jax.Array
  average: Average
  skips: bool

  @property
  def asked(self) -> jax.Array | None:
    """[n] which teachers count for any row; None: all do."""
    if not self.skips:
      return None
    return (self.weights != 0).reshape(-1, self.weights.shape[-1]).any(0)


@dataclasses.dataclass(frozen=True)
class Voice:
  """Several speakers as one, which remembers what it said."""

  members: Mapping[str, base.Speaker]
  blend: Callable[[], Blend]
  said: dict[str, types.Outputs] = dataclasses.field(default_factory=dict)

  @property
  def tables(self) -> Mapping[str, types.Leaf]:
    return {}  # refused by `Several.needs`

  def __call__(
    self,
    view: str = "student",
    want: tuple[str, ...] = (),
    *,
    when: jax.Array | None = None,
  ) -> types.Outputs:
    del want, when  # refused by `Several.wants`; nobody asks it so
    if view not in self.said:
      blend = self.blend()
      fixed = jax.lax.stop_gradient(blend.weights)  # the method moves none
      blend = dataclasses.replace(blend, weights=fixed)
      asked = blend.asked
      outputs = [
        speaker(view) if asked is None else speaker(view, when=asked[i])
        for i, speaker in enumerate(self.members.values())
      ]
      self.said[view] = join(outputs, blend)
    return self.said[view]


def join(outputs: list[types.Outputs], blend: Blend) -> types.Outputs:
  """The outputs of several models of one view as those of one."""
  hidden = [output.hidden for output in outputs]
  dtype = jnp.result_type(*(x.dtype for x in hidden))
  weights = blend.weights
  if weights.ndim > 1:  # of rows: they travel with the tokens
    lead = hidden[0].shape[:-1]
    weights = weights.reshape(lead[0], *(1,) * (len(lead) - 1), -1)
    own = jnp.broadcast_to(weights, (*lead, weights.shape[-1]))
    hidden, weights = [*hidden, own], None
  head = SeveralHeads(
    heads=tuple(output.head for output in outputs),
    weights=weights,
    asked=blend.asked,
    widths=tuple(output.hidden.shape[-1] for output in outputs),
    dtypes=tuple(str(output.hidden.dtype) for output in outputs),
    average=blend.average,
  )
  joined = jnp.concatenate([x.astype(dtype) for x in hidden], axis=-1)
  return types.Outputs(joined, head, {}, {})


@dataclasses.dataclass(frozen=True)
class Several(base.Method):
  """A method whose one teacher is made of several: see `Ensemble`, `Routed`.

  Attributes:
    method: any method with a teacher named "teacher"; of a sum all parts.
  """

  method: base.Method

  @abc.abstractmethod
  def members(self) -> tuple[str, ...]:
    """The teachers that count, by their names in the run."""

  @abc.abstractmethod
  def blend(
    self,
    params: types.PyTree,
    batch: types.Batch,
    step: jax.Array | None,
  ) -> Blend:
    """How much each counts for these rows; `step` is None in a survey."""

  @property
  def batch_coupled(self) -> bool:  # pyrefly: ignore[bad-override]
    return self.method.batch_coupled

  def needs(self) -> base.Needs:
    own = self.method.needs()
    if TEACHER not in own.teachers:
      raise types.UserError(
        f"method: {type(self).__name__} gives {type(self.method).__name__} a "
        f"teacher named {TEACHER!r}, which that does not ask for"
      )
    if own.tables:
      raise types.UserError(
        f"method: {type(self.method).__name__} compares the tokens of its "
        f"teacher with the student's, and {type(self).__name__} takes teachers "
        "that share the student's; take it alone"
      )
    others = tuple(name for name in own.teachers if name != TEACHER)
    teachers = tuple(dict.fromkeys((*self.members(), *others)))
    # An average of a few ids of each is not that of the distributions.
    return dataclasses.replace(
      own, teachers=teachers, same_vocabulary=True, sparse=()
    )

  def wants(self) -> Mapping[str, tuple[str, ...]]:
    found = dict(self.method.wants())
    if found.pop(TEACHER, ()):
      raise types.UserError(
        f"method: {type(self.method).__name__} reads features of its teacher, "
        f"and several teachers of {type(self).__name__} have none in common; "
        "take a method of what they predict"
      )
    return found

  def init(
    self, key: jax.Array, shapes: Mapping[str, types.Outputs]
  ) -> types.PyTree:
    outputs = [shapes[name] for name in self.members()]
    kind = Blend(jnp.zeros(len(outputs)), "logit", skips=False)
    joined = jax.eval_shape(lambda outputs: join(outputs, kind), outputs)
    return {"method": self.method.init(key, {**shapes, TEACHER: joined})}

  def norms(self, batch: types.Batch) -> dict[str, jax.Array]:
    return self.method.norms(batch)

  def survey(
    self,
    params: types.PyTree,
    student: base.Speaker,
    teachers: base.Teachers,
    batch: types.Batch,
  ) -> types.PyTree:
    inner = self._told(params, teachers, batch, None)
    return self.method.survey(params["method"], student, inner, batch)

  def prepare(
    self, arrays: types.PyTree, batch: types.Batch, keys: jax.Array
  ) -> types.Batch:
    return self.method.prepare(arrays, batch, keys)

  def loss(
    self,
    params: types.PyTree,
    student: base.Speaker,
    teachers: base.Teachers,
    batch: types.Batch,
    ctx: base.Context,
  ) -> types.Loss:
    inner = self._told(params, teachers, batch, ctx.step)
    return self.method.loss(params["method"], student, inner, batch, ctx)

  def _told(
    self,
    params: types.PyTree,
    teachers: base.Teachers,
    batch: types.Batch,
    step: jax.Array | None,
  ) -> base.Teachers:
    """The speakers that the method hears."""
    members = {name: teachers[name] for name in self.members()}
    voice = Voice(members, lambda: self.blend(params, batch, step))
    return {**teachers, TEACHER: voice}
