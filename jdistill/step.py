# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""One update as one pure function: `(state, teacher_params, batch) -> ...`."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdistill import bad_steps, balance, losses, optim, schedules, types
from jdistill.methods import base, grad_mag
from jdistill.models.base import Architecture
from jdistill.speaker import HEARD as HEARD
from jdistill.speaker import Speaker as Speaker
from jdistill.speaker import Tables as Tables
from jdistill.speaker import speakers as speakers
from jdistill.speaker import wants as wants

BINS = 10
"""Of confidence, for `calibration` of evaluations."""

GUESSES = 4
"""Of a draft, in a row, for `block_efficiency` of evaluations."""

Step = Callable[
  [types.TrainState, types.PyTree, types.Batch],
  tuple[types.TrainState, dict[str, types.Mean]],
]


def make_loss(
  student: Architecture,
  teachers: Mapping[str, Architecture],
  method: base.Method,
  tables: Tables | None = None,
):
  """`loss(params, teacher_params, batch, ctx) -> types.Loss` of one method."""

  def loss(params, teacher_params, batch, ctx):
    models = student, teachers, params, teacher_params
    learner, voices = speakers(method, models, batch, ctx.keys, tables)
    loss = method.loss(params["method"], learner, voices, batch, ctx)
    said = learner.said.values()
    return dataclasses.replace(
      loss, updates={k: v for o in said for k, v in o.updates.items()}
    )

  return loss


def make_gradient(
  student: Architecture,
  teachers: Mapping[str, Architecture],
  method: base.Method,
  *,
  microbatches: int = 1,
  mask: types.PyTree | None = None,
  seed: int = 0,
  tables: Tables | None = None,
):
  """`gradient(params, teacher_params, batch, step) -> (grads, loss)`.

  The same gradient whatever the number of microbatches: denominators come
  from the global batch before the first of them runs. Zero where `mask` is,
  and not computed for parameters that stay as a whole.
  """
  loss_fn = make_loss(student, teachers, method, tables)
  run_key = jax.random.key(seed)

  def gradient(params, teacher_params, batch, step):
    key = jax.random.fold_in(run_key, step)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(batch.example_id)
    models = student, teachers, params, teacher_params
    batch = _prepare(method, models, batch, keys, microbatches, tables)
    norms = {
      k: jnp.maximum(v, jnp.finfo(v.dtype).tiny)
      for k, v in method.norms(batch).items()
    }

    if isinstance(method, grad_mag.GradMag):
      norms |= _balance(
        method, models, batch, keys, step, norms, microbatches, tables, mask
      )

    def one(batch, keys):
      ctx = base.Context(step=step, keys=keys, norms=norms)

      def of(params):
        if mask is not None:
          params = _choose(mask, params, jax.lax.stop_gradient(params))
        loss = loss_fn(params, teacher_params, batch, ctx)
        return loss.total, loss

      return jax.grad(of, has_aux=True)(params)

    grads, loss = _sum_parts(one, (batch, keys), microbatches)
    if microbatches > 1 and loss.updates:
      raise types.UserError(
        f"microbatches={microbatches}: the student keeps "
        f"{', '.join(loss.updates)} of each batch, so splitting it would "
        "change the result; use microbatches=1"
      )
    return _masked(grads, mask), loss

  return gradient


def make_train_step(
  student: Architecture,
  teachers: Mapping[str, Architecture],
  method: base.Method,
  optimizer: optax.GradientTransformation,
  *,
  microbatches: int = 1,
  mask: types.PyTree | None = None,
  ema: float | schedules.Schedule | None = None,
  living: Mapping[str, str] | None = None,
  seed: int = 0,
  tables: Tables | None = None,
) -> Step:
  """The train step; jit it with the state donated.

  Args:
    student, teachers, method: what is trained, towards whom, and how.
    optimizer: an optax transformation of `state.params`.
    microbatches: the batch is worked off in so many parts.
    mask: `optim.trainable` over `state.params`, or None.
    ema: decay of an average of the student's weights in
      `state.extra["ema"]`, or None.
    living: teachers whose weights are those of the state, by name: "student"
      or "ema".
    seed: of the noise that methods may draw.
    tables: what the method needs to know of ids.
  Returns: `train_step(state, teacher_params, batch) -> (state, metrics)`. An
    update whose loss or gradient is not finite changes nothing but the step,
    and the counts of `bad_steps` where `state.extra` has them.
  Raises: UserError if a batch-coupled method meets several microbatches.
  """
  if method.batch_coupled and microbatches > 1:
    raise types.UserError(
      f"microbatches={microbatches}: {type(method).__name__} couples the "
      "examples of a batch, so splitting it would change the loss; use "
      "microbatches=1 and a smaller batch or a larger mesh"
    )
  gradient = make_gradient(
    student,
    teachers,
    method,
    microbatches=microbatches,
    mask=mask,
    seed=seed,
    tables=tables,
  )

  def update(grads, own_updates, step, params, opt_state, extra):
    updates, opt_state = optimizer.update(grads, opt_state, params)
    new: Any = optax.apply_updates(params, _masked(updates, mask))
    if mask is not None:
      new = _choose(mask, new, params)
    new["student"] = {**new["student"], **own_updates}
    extra: dict[str, types.PyTree] = dict(extra)
    if ema is not None:
      rate = schedules.at(ema, step)
      extra["ema"] = jax.tree.map(
        lambda old, new: (rate * old + (1 - rate) * new).astype(old.dtype),
        extra["ema"],
        new["student"],
      )
    return new, opt_state, extra

  def train_step(state, teacher_params, batch):
    own = {"student": state.params["student"], **state.extra}
    teacher_params = dict(teacher_params)
    for name, which in (living or {}).items():
      teacher_params[name] = own[which]
    grads, loss = gradient(state.params, teacher_params, batch, state.step)
    norm, one = optax.global_norm(grads), jnp.ones(())
    metrics = {
      **loss.metrics,
      "loss": types.Mean(loss.total, one),
      "grad_norm": types.Mean(norm, one),
    }
    good = jnp.isfinite(loss.total) & jnp.isfinite(norm)
    params, opt_state, extra = bad_steps.update_if(
      good, lambda old: update(grads, loss.updates, state.step, *old), state
    )
    if bad_steps.KEY in extra:
      extra[bad_steps.KEY] = bad_steps.count(good, extra[bad_steps.KEY])
      metrics |= bad_steps.metrics(extra[bad_steps.KEY])
    return types.TrainState(state.step + 1, params, opt_state, extra), metrics

  return train_step


def make_eval_step(
  student: Architecture,
  teacher: Architecture | None,
  *,
  others: Mapping[str, Architecture] | None = None,
  token_bytes: np.ndarray | None = None,
  token_classes: np.ndarray | None = None,
):
  """What held-out text or examples say of a student, beside its teacher.

  Args:
    student: the model that is judged.
    teacher: the model it is compared with, of the same vocabulary, or None; if
      it hears one, that. Where the batch has what a teacher said, that and its
      head, which is then all of its parameters, take its place.
    others: further such models by name.
    token_bytes: [V] bytes that each token stands for, to count bits per byte.
    token_classes: [V] the class of each token, to tell them apart.
  Returns: `eval_step(student_params, teacher_params, batch, others_params=None)
    -> values`, sums and weights of per-token values at temperature 1: `ce` and
    `teacher_ce` (nats), `kl` (teacher || student, nats), `reverse_kl` (student
    || teacher), `jsd` (at beta 1/2), `kl_NAME`, `reverse_kl_NAME` and
    `jsd_NAME` of the others, `agreement` and `accuracy` (top-1), `acceptance`
    of the student's guesses by the teacher and `block_efficiency` of `GUESSES`
    in a row (of text that the teacher wrote: `losses.block_efficiency`),
    `confidence` (of the likeliest id), `calibration` [BINS] (accuracy less
    confidence where confidence is in each of as many equal parts of [0, 1]),
    `coarse_kl` instead of the distances to a teacher of whom a few ids are
    known (over these ids and one for all others: never more than `kl`),
    `bits` (per byte), each [] but `by_position/kl` [T] and `tokens/kl` [B, T];
    `classes/ce`, `classes/kl` and `classes/agreement` by the targets' class
    [classes], and `spread/ce` and `spread/kl`, from which
    `heldout.standard_error` is found.
  """

  def values(logits, data, params):
    del params
    q = logits["student"]
    best = q.argmax(-1)
    out = {
      "ce": losses.cross_entropy(logits["student"], data["targets"]),
      "accuracy": (best == data["targets"]).astype(q.dtype),
      "confidence": jnp.exp(jax.nn.log_softmax(q).max(-1)),
    }
    if "teacher" in logits:
      p = logits["teacher"]
      out |= _distances(q, p)
      out["agreement"] = (best == p.argmax(-1)).astype(q.dtype)
      out["acceptance"] = losses.acceptance(logits["student"], p)
      out["teacher_ce"] = losses.cross_entropy(p, data["targets"])
    elif "teacher" in data["sparse"]:
      said = data["sparse"]["teacher"]
      out["coarse_kl"] = _coarse_kl(q, said)
      if said.rest != "drawn":
        out["agreement"] = (best == said.ids[..., 0]).astype(q.dtype)
    for name in others or {}:
      if name in data["sparse"]:
        said = data["sparse"][name]
        out[f"coarse_kl_{name}"] = _coarse_kl(q, said)
        continue
      p = logits[f"other/{name}"]
      out |= {f"{k}_{name}": v for k, v in _distances(q, p).items()}
    return out

  def eval_step(params, teacher_params, batch, others_params=None):
    view = batch["student"]
    outputs, told, sparse = {}, {}, {}
    said = dict(batch.said)
    for name, other in (others or {}).items():
      own = (others_params or {})[name]
      found = _heard(other, own, view, said.pop(name, None))
      if isinstance(found, types.Sparse):
        sparse[name] = found
      else:
        outputs[f"other/{name}"] = found
    if teacher is not None:
      [first] = said.values() or [None]
      want = () if student.hears is None else HEARD
      found = _heard(teacher, teacher_params, view, first, want)
      (sparse if isinstance(found, types.Sparse) else outputs)["teacher"] = (
        found
      )
    if student.hears is not None:
      told["heard"] = outputs.get("teacher")
    learner = student.for_evaluation().bind(params)
    outputs["student"] = learner(view, **told)
    vocab = min(o.head.vocab_size for o in outputs.values())
    streams = {
      k: types.Dense(o.hidden, o.head.cut(vocab)) for k, o in outputs.items()
    }
    data = {"targets": view.targets, "sparse": sparse}
    found = losses.walk_tokens(values, streams, data, frozen=tuple(streams))
    mask = view.mask
    found = {k: jnp.where(mask != 0, v * mask, 0) for k, v in found.items()}
    return _eval_sums(found, view, token_bytes, token_classes)

  return eval_step


def _eval_sums(
  found: Mapping[str, jax.Array],
  view: Any,
  token_bytes: np.ndarray | None,
  token_classes: np.ndarray | None,
) -> types.Metrics:
  """What `make_eval_step` returns, from values that are 0 where the mask is."""
  mask = view.mask
  sums = {k: types.Mean(v.sum(), mask.sum()) for k, v in found.items()}
  sums["calibration"] = _calibration(found, mask)
  if token_bytes is not None:
    table = jnp.asarray(token_bytes)
    size = table.at[view.targets].get(mode="fill", fill_value=0)
    bits = found["ce"].sum() / jnp.log(2.0)
    sums["bits"] = types.Mean(bits, (size * mask).sum())
  for name in (n for n in ("ce", "kl") if n in found):
    sums[f"spread/{name}"] = _spread(found[name], mask)
  if token_classes is not None:
    kinds = (
      jnp.asarray(token_classes)
      .at[view.targets]
      .get(mode="fill", fill_value=-1)
    )
    among = jax.nn.one_hot(kinds, token_classes.max() + 1) * mask[..., None]
    axes = tuple(range(mask.ndim))
    for name in (n for n in ("ce", "kl", "agreement") if n in found):
      sums[f"classes/{name}"] = types.Mean(
        (found[name][..., None] * among).sum(axes), among.sum(axes)
      )
  if "kl" in found and mask.ndim == 2:
    blocks, starts = losses.block_efficiency(
      found["acceptance"],
      found["teacher_ce"] - found["ce"],
      mask,
      view.segment_ids,
      guesses=GUESSES,
    )
    sums["block_efficiency"] = types.Mean(blocks.sum(), starts.sum())
    kl = types.Mean(found["kl"].sum(0), mask.sum(0))
    sums |= {"by_position/kl": kl, "tokens/kl": types.Mean(found["kl"], mask)}
  return sums


def _spread(values: jax.Array, mask: jax.Array) -> types.Mean:
  """Sums over rows [4]: of those with targets one, and of v v, v w and w w.

  v is a row's sum of the values [B, ...], 0 where the mask is, and w that of
  its mask.
  """
  axes = tuple(range(1, mask.ndim))
  v, w = values.sum(axes), mask.sum(axes)
  sums = jnp.stack([(w > 0).astype(v.dtype), v * v, v * w, w * w]).sum(1)
  return types.Mean(sums, jnp.ones(()))


def _calibration(found: Mapping[str, jax.Array], mask: jax.Array) -> types.Mean:
  """Accuracy less confidence [BINS], by confidence (Guo et al., 2017)."""
  place = jnp.minimum((found["confidence"] * BINS).astype(jnp.int32), BINS - 1)
  # Where the mask is 0 both are 0.
  bins = jax.nn.one_hot(place, BINS, dtype=mask.dtype) * mask[..., None]
  gap = found["accuracy"] - found["confidence"]
  axes = tuple(range(mask.ndim))
  return types.Mean((bins * gap[..., None]).sum(axes), bins.sum(axes))


def _distances(student: jax.Array, teacher: jax.Array) -> dict[str, jax.Array]:
  """Divergences between logits at temperature 1, by their metric."""
  return {
    "kl": losses.forward_kl(student, teacher),
    "reverse_kl": losses.reverse_kl(student, teacher),
    "jsd": losses.jsd(student, teacher),
  }


def _coarse_kl(student: jax.Array, said: types.Sparse) -> jax.Array:
  """Forward KL where the ids that are not listed are one."""
  if said.log_rest is not None:
    said = dataclasses.replace(said, rest="bucket")
  return losses.forward_kl(*losses.coarse(student, said))


def _heard(
  teacher: Architecture,
  params: types.PyTree,
  view: types.View,
  said: Mapping[str, Any] | None,
  want: tuple[str, ...] = (),
) -> Any:
  """What a teacher says, or said where its head alone is here."""
  if said is not None:
    return said["student"].with_head(params)
  return teacher.for_evaluation().bind(params)(view, want=want)


def split_rows(tree: types.PyTree, num: int) -> types.PyTree:
  """[B, ...] -> [num, B / num, ...], each part spread over all devices."""

  def split(x):
    return x.reshape(x.shape[0] // num, num, *x.shape[1:]).swapaxes(0, 1)

  return jax.tree.map(split, tree)


def join_rows(tree: types.PyTree) -> types.PyTree:
  """The inverse of `split_rows`."""
  return jax.tree.map(
    lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), tree
  )


def output_shapes(
  student: Architecture,
  teachers: Mapping[str, Architecture],
  method: base.Method,
  batch: types.Batch,
) -> dict[str, Any]:
  """Shapes of what each model says of a batch, for `Method.init`."""

  def say(params, teacher_params, batch):
    models = student, teachers, {"student": params}, teacher_params
    learner, voices = speakers(method, models, batch)
    return {name: one() for name, one in {"student": learner, **voices}.items()}

  weights = {name: teacher.shapes() for name, teacher in teachers.items()}
  return jax.eval_shape(say, student.shapes(), weights, batch)


def _prepare(method, models, batch, keys, microbatches, tables=None):
  """The batch, with what the method adds from a look at all of it."""
  params = models[2]

  def survey(batch):
    learner, voices = speakers(method, models, batch, tables=tables)
    arrays = method.survey(params["method"], learner, voices, batch)
    return jax.lax.stop_gradient(arrays)

  if microbatches == 1:
    return method.prepare(survey(batch), batch, keys)
  _, arrays = jax.lax.scan(
    lambda carry, part: (carry, survey(part)),
    (),
    split_rows(batch, microbatches),
  )
  return method.prepare(join_rows(arrays), batch, keys)


def _sum_parts(fn, rows: types.PyTree, num: int) -> types.PyTree:
  """`fn(*rows)` of so many parts of the rows, one after another, added up."""
  if num == 1:
    return fn(*rows)

  def body(carry, part):
    return jax.tree.map(jnp.add, carry, fn(*part)), None

  parts = split_rows(rows, num)
  shapes = jax.eval_shape(fn, *jax.tree.map(lambda x: x[0], parts))
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
  return jax.lax.scan(body, zeros, parts)[0]


def _balance(
  method, models, batch, keys, step, norms, microbatches, tables, mask
):
  """Norms of the parts' gradients by the student's last layer."""

  def one(batch, keys):
    ctx = base.Context(step=step, keys=keys, norms=norms)
    return balance.gradients(method, models, batch, ctx, tables)

  found = _sum_parts(one, (batch, keys), microbatches)
  return balance.norms(method, models[0], found, mask)


def _choose(mask, moving, staying):
  """Parameters of one tree, those that stay as a whole of the other."""
  return jax.tree.map(
    lambda m, a, b: a if m else b, optim.moves(mask), moving, staying
  )


def _masked(tree, mask):
  if mask is None:
    return tree
  return jax.tree.map(lambda x, m: x * m.astype(x.dtype), tree, mask)
