# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The data that flows between the parts: batches, outputs, signals, losses.

Axis letters, the same everywhere: `B` batch, `T` positions, `V` vocabulary (or
classes), `D` width, `L` layers, `H` heads, `K` kept entries, `C` the tokens of
one chunk, `S`/`R` student and teacher positions when their tokenizers differ.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, dataclass_transform

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

Logits: TypeAlias = Float[Array, "*B V"]
LogProbs: TypeAlias = Float[Array, "*B V"]
Ids: TypeAlias = Int[Array, "*B"]
Nats: TypeAlias = Float[Array, "*B"]
Scalar: TypeAlias = float | int | Num[Array, ""]
PyTree: TypeAlias = Any

Leaf: TypeAlias = Any
"""A field of a pytree: an array, or in its place a shape, sharding or spec."""

BATCH_AXES = ("data", "fsdp", "expert")
"""Mesh axes over which the rows of a batch are divided."""

CONTEXT_AXIS = "context"
"""Mesh axis over which the positions of a row are divided."""

HEADS_AXIS = "tensor"
"""Mesh axis over which the heads of attention are divided by default."""

EXPERT_AXIS = "expert"
"""Mesh axis over which the experts of a mixture are divided."""


def axis_size(name: str) -> int:
  """Devices along an axis of the mesh in context; 1 where there is none."""
  mesh = jax.sharding.get_abstract_mesh()
  return 1 if mesh.empty else mesh.shape.get(name, 1)


def target_platform() -> str | None:
  """What the mesh in context is made of ("cpu", "tpu", ...); None without one.

  Not what this process has: a step may be compiled for chips elsewhere.
  """
  mesh = jax.sharding.get_abstract_mesh()
  device = None if mesh.empty else mesh.abstract_device
  return None if device is None else device.platform


class UserError(Exception):
  """Something that the user can mend: one message, exit code 2, no traceback.

  The message names the thing at fault (file, field, shape), what was found,
  what was expected and, where there is one, the way out.
  """


@dataclass_transform(frozen_default=True)
def pytree(cls=None, *, static: tuple[str, ...] = ()):
  """Makes a class a frozen dataclass that is a pytree.

  Args:
    cls: the class.
    static: names of fields that are part of the structure, not leaves.
  """
  if cls is None:
    return lambda c: pytree(c, static=static)
  cls = dataclasses.dataclass(frozen=True)(cls)
  names = [f.name for f in dataclasses.fields(cls)]
  return jax.tree_util.register_dataclass(
    cls,
    data_fields=[n for n in names if n not in static],
    meta_fields=list(static),
  )


@pytree
class Tokens:
  """One view of a batch of text.

  `targets[b, t]` is the token that follows `tokens[b, t]`, and `mask[b, t]` is
  1 where predicting it counts. Padding has segment 0; packed documents count
  from 1 and never attend to each other.
  """

  tokens: Leaf  # [B, T] ids, or [B, T, D] embeddings
  targets: Leaf  # [B, T] int32
  mask: Leaf  # [B, T] float32
  positions: Leaf  # [B, T] int32, from 0 in each document
  segment_ids: Leaf  # [B, T] int32


@pytree
class Examples:
  """One view of a batch of inputs that carry one label each."""

  inputs: Leaf  # [B, ...]
  targets: Leaf  # [B] int32
  mask: Leaf  # [B] float32, 0 for rows that only fill the batch


View: TypeAlias = Tokens | Examples


@pytree
class Batch:
  """Named views of the same rows, further named arrays, and the rows' ids.

  `said` is what teachers on devices of their own, or before this run, said of
  them, by teacher and view: `Outputs` without heads, which are the same for all
  batches, or `Sparse`.
  """

  views: dict[str, View]
  data: dict[str, Leaf]  # each [B, ...]
  example_id: Leaf  # [B] int32, the same whatever the mesh
  said: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

  def __getitem__(self, view: str) -> View:
    return self.views[view]


@pytree(static=("soft_cap",))
class Head:
  """The map from hidden states to logits, `soft_cap(scale * h W^T + bias)`.

  Logits are at least float32, whatever the dtype of the matmul's inputs.
  """

  weight: Leaf  # [V, D]
  bias: Leaf | None = None  # [V]
  scale: Leaf | None = None  # []
  soft_cap: float | None = None

  @property
  def vocab_size(self) -> int:
    return self.weight.shape[0]

  def cut(self, vocab_size: int) -> "Head":
    """The same head for the first `vocab_size` ids only."""
    bias = None if self.bias is None else self.bias[:vocab_size]
    return dataclasses.replace(self, weight=self.weight[:vocab_size], bias=bias)

  def narrow(self, dtype: Any) -> "Head":
    """The same head, its weight no wider than the hidden states' dtype."""
    if jnp.promote_types(self.weight.dtype, dtype) == dtype:
      return self
    return dataclasses.replace(self, weight=self.weight.astype(dtype))

  def __call__(self, hidden: jax.Array) -> jax.Array:
    dtype = jnp.promote_types(hidden.dtype, jnp.float32)
    weight = self.narrow(hidden.dtype).weight
    logits = jnp.einsum(
      "...d,vd->...v", hidden, weight, preferred_element_type=dtype
    )
    if self.scale is not None:
      logits = logits * self.scale
    if self.bias is not None:
      bias = self.bias.astype(logits.dtype)
      logits = logits + jnp.expand_dims(bias, tuple(range(logits.ndim - 1)))
    if self.soft_cap is not None:
      logits = self.soft_cap * jnp.tanh(logits / self.soft_cap)
    return logits


@pytree(static=("size",))
class IdentityHead:
  """The head of a model that hands out logits: its hidden states are they."""

  size: int

  @property
  def vocab_size(self) -> int:
    return self.size

  def cut(self, vocab_size: int) -> "IdentityHead":
    return IdentityHead(vocab_size)

  def __call__(self, hidden: jax.Array) -> jax.Array:
    dtype = jnp.promote_types(hidden.dtype, jnp.float32)
    return hidden[..., : self.size].astype(dtype)


@pytree
class ChosenHead:
  """The head of a model for chosen ids, in their order; `chosen` makes one."""

  head: Any
  ids: Leaf | None  # [V] of the head's logits; None: they are the chosen ones
  missing: Leaf  # [V] bool, where no id was chosen: the logit is -inf

  @property
  def vocab_size(self) -> int:
    return self.missing.shape[0]

  def cut(self, vocab_size: int) -> "ChosenHead":
    ids = None if self.ids is None else self.ids[:vocab_size]
    head = self.head.cut(vocab_size) if ids is None else self.head
    return ChosenHead(head, ids, self.missing[:vocab_size])

  def __call__(self, hidden: jax.Array) -> jax.Array:
    logits = self.head(hidden)
    if self.ids is not None:
      logits = jnp.take(logits, self.ids, axis=-1)
    missing = jnp.expand_dims(self.missing, tuple(range(logits.ndim - 1)))
    return jnp.where(missing, -jnp.inf, logits)


def chosen(head: Any, ids: jax.Array) -> ChosenHead:
  """The head for these ids [V] of its vocabulary; -1 stands for none.

  Of a matrix the rows are taken, so that no others are multiplied by.
  """
  missing, ids = ids < 0, jnp.maximum(ids, 0)
  if not isinstance(head, Head):
    return ChosenHead(head, ids, missing)
  bias = None if head.bias is None else head.bias[ids]
  rows = dataclasses.replace(head, weight=head.weight[ids], bias=bias)
  return ChosenHead(rows, None, missing)


@pytree
class PairHead:
  """One head for two positions at a time, such as neighbours in the text.

  Hidden states [*B, 2 D] are two side by side, and logits are [*B, 2, V].
  """

  head: Any

  @property
  def vocab_size(self) -> int:
    """Logits of one pair, twice those of the head."""
    return 2 * self.head.vocab_size

  def cut(self, vocab_size: int) -> "PairHead":
    return PairHead(self.head.cut(vocab_size // 2))

  def narrow(self, dtype: Any) -> "PairHead":
    narrow = getattr(self.head, "narrow", None)
    return self if narrow is None else PairHead(narrow(dtype))

  def __call__(self, hidden: jax.Array) -> jax.Array:
    return self.head(hidden.reshape(*hidden.shape[:-1], 2, -1))


@pytree
class Dense:
  """A full distribution per position, kept as hidden states and a head."""

  hidden: Leaf  # [*B, D]
  head: Any  # Head, IdentityHead, or any pytree callable with their methods


Rest: TypeAlias = Literal[
  "bucket", "renormalise", "renormalise_both", "gold", "drawn"
]
"""What a `Sparse` says of the ids that it does not list."""


@pytree(static=("rest",))
class Sparse:
  """What a teacher said of a few ids per position.

  `log_probs` are natural logarithms; -inf marks a place without an id. `rest`
  says how the other ids are understood, see `losses.coarse`: "drawn" for ids
  that were drawn from the teacher, whose `log_probs` are those of their shares
  among the draws.
  """

  ids: Leaf  # [*B, K] int32
  log_probs: Leaf  # [*B, K]
  log_rest: Leaf | None  # [*B] of all other ids together; None: not known
  rest: Rest

  def with_head(self, head: Any) -> "Sparse":
    """Itself: there is nothing left for a head to do."""
    del head
    return self


@pytree
class Outputs:
  """What a model says of one view."""

  hidden: Leaf  # [*B, D], ready for `head`
  head: Any
  features: dict[str, Leaf]  # what `want` named
  updates: dict[str, Any]  # caches, EMA codebooks, batch statistics

  @property
  def dense(self) -> Dense:
    return Dense(self.hidden, self.head)

  @property
  def logits(self) -> jax.Array:
    """[*B, V]; for classifiers, evaluation on small batches, and tests."""
    return self.head(self.hidden)

  def with_head(self, head: Any) -> "Outputs":
    """The outputs of a model that said them without its head."""
    return dataclasses.replace(self, head=head)

  def at(self, index: jax.Array) -> "Outputs":
    """The outputs at other positions, `index` [B, S] into the T axis."""
    hidden = jnp.take_along_axis(self.hidden, index[..., None], axis=-2)
    return dataclasses.replace(self, hidden=hidden)

  def with_next(self) -> "Outputs":
    """Each position [B, T] beside the one after it; the last beside itself."""
    after = jnp.concatenate([self.hidden[:, 1:], self.hidden[:, -1:]], axis=1)
    hidden = jnp.concatenate([self.hidden, after], axis=-1)
    return dataclasses.replace(self, hidden=hidden, head=PairHead(self.head))


Model: TypeAlias = Callable[..., Outputs]
"""`model(view, want=()) -> Outputs`, closed over its parameters."""


@pytree
class Mean:
  """A mean in two parts, so that it can be summed over microbatches."""

  sum: Leaf
  weight: Leaf


@pytree
class Loss:
  """What a method returns for one microbatch.

  `total` is already divided by the denominators of the *global* batch, so
  totals of microbatches and devices add up; it alone carries gradients.
  `updates` are the student's own, such as batch statistics; the step adds them.
  """

  total: Leaf  # []
  metrics: dict[str, Mean]
  updates: dict[str, Any] = dataclasses.field(default_factory=dict)


@pytree
class TrainState:
  """Everything that a run needs to go on, data position apart."""

  step: Leaf  # [] int32
  params: PyTree  # {"student": ..., "method": ...}
  opt_state: PyTree
  extra: PyTree  # {name: ...} kept, not trained: EMA weights, buffers


Metrics: TypeAlias = Mapping[str, Mean]
