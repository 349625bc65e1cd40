# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a writer is: a frozen dataclass with a pure `write`."""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jdistill import losses, types
from jdistill.models.base import Architecture

Encode: TypeAlias = Callable[[str], np.ndarray]
"""The ids of a text, int32 [n], by the tokenizer of the run."""


class Pen(NamedTuple):
  """A model that can be asked to write."""

  architecture: Architecture
  params: types.PyTree


class Scene(NamedTuple):
  """What a writer may know beside the batch.

  `pens` are the models by name, "student" among them. `step` is the number of
  finished updates. `fixed` is a key of the run and `fresh` one of the run and
  the step; a row's own noise is a key folded with its `example_id`. `ends` are
  the tokens that end an answer.
  """

  pens: Mapping[str, Pen]
  step: jax.Array
  fixed: jax.Array
  fresh: jax.Array
  ends: tuple[int, ...]

  def row_keys(self, batch: types.Batch, *, fresh: bool = True) -> jax.Array:
    """A key for each row, [B]: new at each step, or the same for ever."""
    key = self.fresh if fresh else self.fixed
    fold = lambda i: jax.random.fold_in(key, i)  # noqa: E731
    return jax.vmap(fold)(batch.example_id.astype(jnp.uint32))

  def apart(self, number: int) -> "Scene":
    """The same scene with noise of its own."""
    return self._replace(
      fixed=jax.random.fold_in(self.fixed, number),
      fresh=jax.random.fold_in(self.fresh, number),
    )


@dataclasses.dataclass(frozen=True)
class Writer(abc.ABC):
  """Who writes the answers of a batch.

  A batch that has been written has in `data`, beside `prompt` [B, P] and
  `prompt_length` [B]: `source` [B] int32, an index into `sources()`; `age` [B]
  int32, updates since it was written; `reference` [B, T], the data's own answer
  and -1 elsewhere; and, in the places of the targets [B, T] and 0 elsewhere,
  `log_probs` of the answer's tokens under the full softmax of the model that
  writes (of several, the student's) and `sampling_log_probs` under the
  distribution that they were drawn from. `write` keeps all shapes, so that
  writers can stand for one another.
  """

  def sources(self) -> tuple[str, ...]:
    """Names of those who may have written a row."""
    return (type(self).__name__.lower(),)

  def teachers(self) -> tuple[str, ...]:
    """The teachers that write, or help to."""
    return ()

  def needs(self) -> tuple[str, ...]:
    """Arrays of `batch.data` that it reads beside the prompts."""
    return ()

  def metrics(self) -> tuple[str, ...]:
    """Metrics of evaluations that `on_eval` goes by."""
    return ()

  def max_new_tokens(self) -> int:
    """The longest answer that a model may write; 0 if none does."""
    return 0

  def blank(self, batch: types.Batch) -> types.Batch:
    """A batch of the data in the form in which `write` gives it."""
    return answered(batch)

  def init(self, batch: types.Batch) -> types.PyTree:
    """What is kept between steps, from a batch as `write` gives it.

    Numbers, and arrays with rows in front, which lie like those of a batch
    where their number allows it.
    """
    del batch
    return {}

  @abc.abstractmethod
  def write(
    self, batch: types.Batch, kept: types.PyTree, scene: Scene
  ) -> tuple[types.Batch, types.PyTree]:
    """The batch with answers, and what is kept."""

  def on_eval(
    self, kept: types.PyTree, row: Mapping[str, float]
  ) -> types.PyTree:
    """What is kept after an evaluation whose metrics are `row`."""
    del row
    return kept

  def feedback_size(self) -> int:
    """The most tokens of a reward's feedback that `tell` reads."""
    return 0

  def tell(
    self, batch: types.Batch, keys: jax.Array, encode: Encode
  ) -> tuple[types.Batch, dict[str, types.Mean]]:
    """What follows from how the answers were judged.

    Args:
      batch: as `write` gives it, and in its data `reward` [B] and, if there is
        a `feedback_size` F, `feedback` [B, F] and `feedback_length` [B].
      keys: [B] new at each step.
      encode: for texts of the writer's own.
    Returns: the batch with what is added to it, and metrics.
    """
    del keys, encode
    return batch, {}


@dataclasses.dataclass(frozen=True)
class Around(Writer):
  """A writer that does something with what another one writes."""

  writer: Writer

  def sources(self) -> tuple[str, ...]:
    return self.writer.sources()

  def teachers(self) -> tuple[str, ...]:
    return self.writer.teachers()

  def needs(self) -> tuple[str, ...]:
    return self.writer.needs()

  def metrics(self) -> tuple[str, ...]:
    return self.writer.metrics()

  def max_new_tokens(self) -> int:
    return self.writer.max_new_tokens()

  def blank(self, batch: types.Batch) -> types.Batch:
    return self.writer.blank(batch)

  def init(self, batch: types.Batch) -> types.PyTree:
    return self.writer.init(batch)

  def write(
    self, batch: types.Batch, kept: types.PyTree, scene: Scene
  ) -> tuple[types.Batch, types.PyTree]:
    return self.writer.write(batch, kept, scene)

  def on_eval(
    self, kept: types.PyTree, row: Mapping[str, float]
  ) -> types.PyTree:
    return self.writer.on_eval(kept, row)

  def feedback_size(self) -> int:
    return self.writer.feedback_size()

  def tell(
    self, batch: types.Batch, keys: jax.Array, encode: Encode
  ) -> tuple[types.Batch, dict[str, types.Mean]]:
    return self.writer.tell(batch, keys, encode)


def answered(batch: types.Batch) -> types.Batch:
  """The batch with its own answers, as a written batch."""
  view = batch["student"]
  rows = view.mask.shape[0]
  nothing = jnp.zeros(view.mask.shape, jnp.float32)
  reference = jnp.where(view.mask > 0, view.targets, -1)
  data = {
    "reference": reference.astype(jnp.int32),
    **batch.data,
    "source": jnp.zeros((rows,), jnp.int32),
    "age": jnp.zeros((rows,), jnp.int32),
    "log_probs": nothing,
    "sampling_log_probs": nothing,
  }
  return dataclasses.replace(batch, data=data)


def lay_out(
  batch: types.Batch,
  answers: jax.Array,
  counts: jax.Array,
  log_probs: jax.Array,
  sampling_log_probs: jax.Array,
) -> types.Batch:
  """The batch with other answers behind its prompts.

  Args:
    batch: with `prompt` [B, P] and `prompt_length` [B] in its data; rows whose
      prompt has no token only fill the batch.
    answers: [B, N] tokens.
    counts: [B] how many of them there are; what does not fit is cut off.
    log_probs, sampling_log_probs: [B, N] of the tokens.
  """
  length, width = batch.data["prompt_length"], batch["student"].mask.shape[1]
  view = joined(batch.data["prompt"], length, answers, counts, width)
  at = jnp.arange(1, width + 1)[None] - length[:, None]
  at = jnp.clip(at, 0, answers.shape[1] - 1)
  of_target = lambda x: jnp.where(view.mask > 0, _take(x, at), 0)  # noqa: E731
  data = {
    **answered(batch).data,
    "log_probs": of_target(log_probs).astype(jnp.float32),
    "sampling_log_probs": of_target(sampling_log_probs).astype(jnp.float32),
  }
  return types.Batch(batch.views | {"student": view}, data, batch.example_id)


def joined(
  prompt: jax.Array,
  length: jax.Array,
  answers: jax.Array,
  counts: jax.Array,
  width: int,
) -> types.Tokens:
  """Prompts [B, P] of `length` [B] and answers [B, N] of `counts` [B] behind
  them, in rows of `width` places; only the answers are learnt."""
  length = length[:, None]
  places = jnp.arange(width + 1, dtype=jnp.int32)[None]  # of the text
  at = jnp.clip(places - length, 0, answers.shape[1] - 1)
  from_prompt = jnp.clip(places, 0, prompt.shape[1] - 1)
  text = jnp.where(
    places < length, _take(prompt, from_prompt), _take(answers, at)
  )
  last = length + counts[:, None]
  inside = (places[:, 1:] < last) & (length > 0)  # target t is the text's t + 1
  learnt = inside & (places[:, 1:] >= length)
  return types.Tokens(
    tokens=jnp.where(inside, text[:, :-1], 0),
    targets=jnp.where(inside, text[:, 1:], 0),
    mask=learnt.astype(jnp.float32),
    positions=jnp.where(inside, places[:, :-1], 0),
    segment_ids=inside.astype(jnp.int32),
  )


def spliced(
  pieces: Sequence[tuple[jax.Array, jax.Array]], width: int
) -> tuple[jax.Array, jax.Array]:
  """Pieces of text behind each other.

  Args:
    pieces: tokens [B, N] and how many there are [B], of each.
    width: of the rows.
  Returns: [B, width] tokens, filled with 0, and how many there would be if
    there were room for all, [B].
  """
  places = jnp.arange(width, dtype=jnp.int32)[None]
  text, start = jnp.zeros((1, width), jnp.int32), jnp.zeros((1, 1), jnp.int32)
  for tokens, counts in pieces:
    at = places - start
    end = start + counts[:, None]
    own = _take(tokens, jnp.clip(at, 0, tokens.shape[1] - 1))
    text = jnp.where((at >= 0) & (places < end), own, text)
    start = end
  return text, start[:, 0]


def stored(batch: types.Batch) -> dict[str, Any]:
  """A batch as part of the state, of which nothing is empty."""
  return {
    "views": batch.views,
    "data": batch.data,
    "example_id": batch.example_id,
  }


def of_answers(batch: types.Batch, of_targets: jax.Array) -> jax.Array:
  """[B, T] of the answers' tokens in order, from what lies at the targets."""
  width = of_targets.shape[1]
  first = jnp.maximum(batch.data["prompt_length"] - 1, 0)
  at = jnp.arange(width)[None] + first[:, None]
  return _take(of_targets, jnp.minimum(at, width - 1))


def student_log_probs(batch: types.Batch, scene: Scene) -> jax.Array:
  """[B, T] of the targets by the student as it is, 0 elsewhere."""
  pen, view = scene.pens["student"], batch["student"]
  said = pen.architecture.for_evaluation().bind(pen.params)(view)
  found = losses.walk_tokens(
    lambda logits, targets, _: -losses.cross_entropy(logits["it"], targets),
    {"it": said.dense},
    view.targets,
    frozen=("it",),
  )
  return jnp.where(view.mask > 0, found, 0).astype(jnp.float32)


def select_rows(
  chosen: jax.Array, yes: types.PyTree, no: types.PyTree
) -> types.PyTree:
  """Rows of `yes` where `chosen` [B] is true, of `no` elsewhere."""

  def one(a, b):
    return jnp.where(jnp.expand_dims(chosen, tuple(range(1, a.ndim))), a, b)

  return jax.tree.map(one, yes, no)


def _take(rows: jax.Array, places: jax.Array) -> jax.Array:
  """Each row's entries at its own places; what lies outside is cut."""
  places = jnp.broadcast_to(places, (rows.shape[0], places.shape[1]))
  return jnp.take_along_axis(rows, places, axis=1)
