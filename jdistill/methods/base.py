# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a method is: a frozen dataclass with a pure `loss`."""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from jdistill import losses, types


@runtime_checkable
class Speaker(Protocol):
  """A bound model, memoised per view.

  With `when`, [], its hidden states are computed only where that is true.
  `tables` are what `Needs.tables` asks to know of its ids, [V] each.
  """

  @property
  def tables(self) -> Mapping[str, types.Leaf]: ...

  def __call__(
    self,
    view: str = "student",
    want: tuple[str, ...] = (),
    *,
    when: jax.Array | None = None,
  ) -> types.Outputs: ...


Teachers = Mapping[str, Speaker]


@dataclasses.dataclass(frozen=True)
class Needs:
  """What a method asks of a run; checked when the config loads.

  `views` and `data` are names in the batch. What writes text itself adds to
  `data` what methods of on-policy text are made of, each for the view
  "student":

  - "log_probs" [B, T]: of the targets, by the model that wrote them, as it was
    then, at temperature 1; 0 where no model wrote them.
  - "sampling_log_probs" [B, T]: the same of what they were drawn from: with
    its temperature, cut, or mixed with the teacher.
  - "age" [B] int32: updates of the student since the writing.
  - "source" [B] int32: which writer.
  - "reward" [B], "group" [B] int32: of each answer; those to one prompt share
    their group.

  Text in the tokens of two tokenizers (`data.Aligned`) has a view "teacher",
  and in `data` the chunks that both views' targets belong to. `tables` are
  what a method must know of the ids of such a pair, in `Speaker.tables`:

  - "boundary" bool, of student and teachers: whether what an id stands for
    begins with a space, tab or new line, or is a special token.
  - "nearest" int32, of the student: the teacher's id whose string is closest.
  - "same" int32, of the student: the teacher's id that stands for the same, or
    -1.

  `sparse` says of which teachers with a few ids the loss is right, see
  `losses.coarse`; none, where it asks for each id's own probability.

  `domains` is how many domains "domain" [B] may tell apart, None for any.
  """

  views: tuple[str, ...] = ("student",)
  teachers: tuple[str, ...] = ("teacher",)
  same_vocabulary: bool = True
  data: tuple[str, ...] = ()
  sparse: tuple[types.Rest, ...] = ()
  tables: tuple[str, ...] = ()
  domains: int | None = None


@types.pytree
class Context:
  """What a loss may know beside the batch.

  `step` is the number of finished updates; `keys` [B] are one per example,
  folded from the step and the example's id, so noise follows the example
  whatever the mesh; `norms` are `Method.norms` of the global batch.
  """

  step: types.Leaf
  keys: types.Leaf
  norms: dict[str, types.Leaf]


COARSE: tuple[types.Rest, ...] = ("bucket", "renormalise_both")
"""For what is defined for any two distributions that are positive everywhere.
"""

FORWARD: tuple[types.Rest, ...] = (*COARSE, "renormalise", "gold")
"""For what is finite where the teacher has no mass."""

LINEAR: tuple[types.Rest, ...] = (*FORWARD, "drawn")
"""For what is linear in the teacher's probabilities, but for its entropy."""


def at_temperature(
  rests: tuple[types.Rest, ...], tau: float
) -> tuple[types.Rest, ...]:
  """Those that are right at a temperature: merged ids do not say what their
  mass would be at another one than 1."""
  return rests if tau == 1 else ("renormalise_both",)


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

  def prepare(
    self, arrays: types.PyTree, batch: types.Batch, keys: jax.Array
  ) -> types.Batch:
    """Puts what needs the whole global batch into `batch.data`.

    Args:
      arrays: what `survey` found.
      batch: the global batch.
      keys: [B], as in `Context`.
    """
    del arrays, keys
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


@types.pytree(static=("norm",))
class Term:
  """One named part of a token-local loss, for the tokens of one chunk."""

  value: types.Leaf  # [C] nats
  scale: types.Leaf | float = 1.0  # [] its share in the total; 0: a metric only
  weight: types.Leaf | None = None  # [C], default: the view's mask
  norm: str = "tokens"  # which of `Method.norms` divides it


@dataclasses.dataclass(frozen=True)
class TokenMethod(Method):
  """A method that looks at one token's distributions at a time.

  It needs no more than `terms`; the logits of a whole batch never exist.
  """

  def view(self) -> str:
    """The view of the batch whose targets and mask count."""
    return "student"

  def norms(self, batch: types.Batch) -> dict[str, jax.Array]:
    return {"tokens": batch[self.view()].mask.sum()}

  def streams(
    self, student: Speaker, teachers: Teachers, batch: types.Batch
  ) -> dict[str, Any]:
    """Outputs whose logits `terms` sees; all but "student" are frozen.

    A `types.Sparse` of a teacher makes both sides' logits `losses.coarse`.
    """
    del batch
    speakers = {name: teachers[name] for name in self.needs().teachers}
    outputs = {k: speaker(self.view()) for k, speaker in speakers.items()}
    return {"student": student(self.view()), **outputs}

  def data(self, batch: types.Batch) -> dict[str, jax.Array]:
    """Per-token arrays [*B, ...] that `terms` sees."""
    view = batch[self.view()]
    return {"targets": view.targets, "mask": view.mask}

  @abc.abstractmethod
  def terms(
    self,
    logits: Mapping[str, jax.Array],
    data: Mapping[str, jax.Array],
    params: types.PyTree,
    step: jax.Array,
  ) -> dict[str, Term]:
    """The loss of one chunk of tokens.

    Args:
      logits: [C, V] float32 for each of `streams`.
      data: [C, ...] for each of `data`.
      params: the method's own parameters.
      step: [] finished updates.
    Returns: named terms; their names become metric names.
    """

  def loss(
    self,
    params: types.PyTree,
    student: Speaker,
    teachers: Teachers,
    batch: types.Batch,
    ctx: Context,
  ) -> types.Loss:
    return walk_methods({"": (self, 1.0)}, {"": params}, student, teachers,
                        batch, ctx)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class WrittenTextMethod(TokenMethod):
  """A token method of text that a model wrote, in the view "student".

  Rows that no model wrote, whose "log_probs" are all 0, do not count: what is
  true of draws from the student is not true of them.
  """

  def arrays(self) -> tuple[str, ...]:
    """Names in `batch.data`, [B] or [B, T], that `terms` sees per token."""
    return self.needs().data

  def written(self, batch: types.Batch) -> jax.Array:
    """[B, T] the mask, 0 in rows that no model wrote."""
    mask = batch["student"].mask
    rows = has_targets(per_token(batch, "log_probs"))
    return mask * rows.reshape(-1, *(1,) * (mask.ndim - 1))

  def norms(self, batch: types.Batch) -> dict[str, jax.Array]:
    return {"tokens": self.written(batch).sum()}

  def data(self, batch: types.Batch) -> dict[str, jax.Array]:
    arrays = {name: per_token(batch, name) for name in self.arrays()}
    return {**super().data(batch), **arrays, "mask": self.written(batch)}


def walk_methods(
  parts: Mapping[str, tuple[TokenMethod, types.Scalar]],
  params: Mapping[str, types.PyTree],
  student: Speaker,
  teachers: Teachers,
  batch: types.Batch,
  ctx: Context,
) -> types.Loss:
  """One walk for any number of token methods: logits are computed once.

  Args:
    parts: method and weight by name; the weight may be traced.
    params: the methods' own parameters by the same names.
    student, teachers, batch, ctx: as in `Method.loss`; norms are looked up
      as `name/norm`, or `norm` for the part named "".
  """
  streams: dict[str, types.Dense] = {}
  seen: dict[str, dict[str, str]] = {}  # part -> its stream -> key in streams
  sparse: dict[str, dict[str, Any]] = {}  # part -> its stream's `Sparse`
  for name, (method, _) in parts.items():
    outputs = method.streams(student, teachers, batch)
    said = {k: o for k, o in outputs.items() if isinstance(o, types.Sparse)}
    if said:
      sparse[name] = said
    dense = {k: o for k, o in outputs.items() if k not in said}
    vocab = min(o.head.vocab_size for o in dense.values())
    seen[name] = {}
    for stream, output in dense.items():
      key, head = stream, output.head
      if method.needs().same_vocabulary and head.vocab_size != vocab:
        key, head = f"{stream}[:{vocab}]", head.cut(vocab)
      # Speakers remember what they said, so what is equal is the same object.
      while key in streams and streams[key].hidden is not output.hidden:
        key += "'"
      streams[key] = types.Dense(output.hidden, head)
      seen[name][stream] = key
  data = {name: method.data(batch) for name, (method, _) in parts.items()}

  scales = {name: jnp.asarray(w, jnp.float32) for name, (_, w) in parts.items()}
  inputs = {
    "method": dict(params),
    "scales": scales,
    "norms": ctx.norms,
    "step": ctx.step,
  }

  def fn(logits, arrays, inputs):
    data, sparse = arrays
    total, metrics = jnp.zeros(()), {}
    for name, (method, _) in parts.items():
      own = {stream: logits[key] for stream, key in seen[name].items()}
      for stream, said in sparse.get(name, {}).items():
        own["student"], own[stream] = losses.coarse(
          own["student"], said, data[name].get("targets")
        )
      terms = method.terms(
        own, data[name], inputs["method"][name], inputs["step"]
      )
      for term_name, term in terms.items():
        weight = data[name]["mask"] if term.weight is None else term.weight
        value = jnp.where(weight != 0, term.value * weight, 0)
        norm = inputs["norms"][join(name, term.norm)]
        total = total + inputs["scales"][name] * term.scale * value / norm
        metrics[join(name, term_name)] = (value, weight)
    return total, metrics

  live = {keys["student"] for keys in seen.values()}
  frozen = tuple(k for k in streams if k not in live)
  total, sums = losses.walk(fn, streams, (data, sparse), inputs, frozen=frozen)
  return types.Loss(total, {k: types.Mean(*v) for k, v in sums.items()})


def same_ids(outputs: Mapping[str, types.Outputs]) -> dict[str, types.Dense]:
  """Each output's distributions, cut to the ids that all of them have."""
  vocab = min(o.head.vocab_size for o in outputs.values())
  return {
    k: types.Dense(o.hidden, o.head.cut(vocab)) for k, o in outputs.items()
  }


def look(
  fn: Callable[[Mapping[str, jax.Array], jax.Array], types.PyTree],
  streams: Mapping[str, types.Dense],
  data: types.PyTree,
) -> types.PyTree:
  """Values of `fn(logits, data)` at every token, without gradient: a survey.

  Args:
    fn: from the logits [C, V] of each stream and the chunk's data [C, ...] to
      a pytree of [C] arrays.
    streams: as from `same_ids`.
    data: pytree of [*B, ...] arrays.
  Returns: the same pytree of [*B] arrays.
  """
  return losses.walk_tokens(
    lambda logits, data, _: fn(logits, data),
    streams,
    data,
    frozen=tuple(streams),
  )


def log_probs(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """[C] of the targets [C], from logits [C, V]."""
  return -losses.cross_entropy(logits, targets)


def text(batch: types.Batch, view: str, who: str) -> types.Tokens:
  """A view of text.

  Raises: UserError if the view has one label for each example instead.
  """
  found = batch[view]
  if not isinstance(found, types.Tokens):
    raise types.UserError(
      f"{who}: the batch has examples with a label each; expected text"
    )
  return found


def per_token(batch: types.Batch, name: str) -> jax.Array:
  """An array of `batch.data`, [B] or [B, T], at each of the student's targets.

  It is 0 where the mask is, so that whatever is there stays outside.
  """
  mask, values = batch["student"].mask, batch.data[name]
  if values.ndim < mask.ndim:
    values = values[:, None]
  return jnp.where(mask != 0, values, jnp.zeros((), values.dtype))


def has_targets(mask: jax.Array) -> jax.Array:
  """[B] 1 for rows with any target, from a mask [B] or [B, T]."""
  rows = (mask != 0).reshape(mask.shape[0], -1).any(-1)
  return rows.astype(mask.dtype)


def join(part: str, name: str) -> str:
  return f"{part}/{name}" if part else name


def within(norms: Mapping[str, jax.Array], part: str) -> dict[str, jax.Array]:
  """Those of one part, by its own names."""
  prefix = f"{part}/"
  return {
    k.removeprefix(prefix): v for k, v in norms.items() if k.startswith(prefix)
  }


def chunks_of(batch: types.Batch, view: str) -> jax.Array:
  """[B, T] the chunk of each of a view's targets, 0 where none counts."""
  found = batch.data[f"{view}_chunks"]
  return jnp.where(batch[view].mask != 0, found, 0)


def num_chunks(batch: types.Batch) -> int:
  """The most chunks that a row can have: each has a target on both sides."""
  return min(batch[view].mask.shape[1] for view in ("student", "teacher"))


def chunk_tokens(batch: types.Batch, num: int) -> jax.Array:
  """[B, C] how many of the teacher's tokens each chunk has.

  It is 0 where there is no such chunk on both sides.
  """
  counts = [
    losses.chunk_sums((chunks > 0).astype(jnp.int32), chunks, num=num)
    for chunks in (chunks_of(batch, view) for view in ("student", "teacher"))
  ]
  return jnp.where(counts[0] > 0, counts[1], 0)


def first_of_chunks(batch: types.Batch, view: str, num: int) -> jax.Array:
  """[B, C] the position at which the first token of each chunk is a target."""
  chunks = chunks_of(batch, view)
  return losses.chunk_places(losses.chunk_starts(chunks), chunks, num=num)


def behind_chunks(batch: types.Batch, view: str, num: int) -> jax.Array:
  """[B, C] the position that has read all of each chunk; 0 where none has."""
  chunks, segments = chunks_of(batch, view), text(batch, view, "").segment_ids
  goes_on = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
  ends = losses.chunk_ends(chunks)[:, :-1] & goes_on
  # The place of the target is that of the token one further on.
  ends = jnp.pad(ends, ((0, 0), (1, 0)))
  behind = jnp.pad(chunks[:, :-1], ((0, 0), (1, 0)))
  return losses.chunk_places(ends, behind, num=num)


def paired_by_place(batch: types.Batch) -> tuple[jax.Array, jax.Array]:
  """The teacher's position for each of the student's, [B, T], and whether
  there is one: the same number among the learnt targets of a document."""
  views = [text(batch, view, "pairs") for view in ("student", "teacher")]
  masks = [(view.mask != 0).astype(jnp.int32) for view in views]
  place = [
    losses.place_in_document(view.mask, view.segment_ids)[0].astype(jnp.int32)
    for view in views
  ]
  size = masks[1].shape[1]
  num = max(mask.shape[1] for mask in masks)  # documents are no more than that
  # Which learnt target of the row each is, from 1, on the teacher's side.
  rank = jnp.cumsum(masks[1], axis=1) * masks[1]
  at = losses.chunk_places(masks[1] > 0, rank, num=size)
  segments = jnp.where(masks[1] > 0, views[1].segment_ids, 0)
  counts = losses.chunk_sums(masks[1], segments, num=num)
  before = jnp.cumsum(counts, axis=1) - counts
  own = jnp.where(masks[0] > 0, views[0].segment_ids, 0)
  paired = (masks[0] > 0) & (place[0] <= losses.at_chunks(counts, own))
  which = losses.at_chunks(before, own) + place[0]
  index = losses.at_chunks(at, jnp.where(paired, which, 0))
  return index, paired.astype(views[0].mask.dtype)
