# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Losses of a language model without its `[B, T, V]` logits.

A token-local loss sees the logits of a few tokens at a time. `walk` takes
value and gradient of a chunk together (four matmuls for a student and a
frozen teacher) and sums; `walk_tokens` hands out the values of every position
and recomputes the logits on the way back (six matmuls), for losses that are
not linear in sums of tokens.

Where a mesh with the batch axes `types.BATCH_AXES` or the axis
`types.CONTEXT_AXIS` is set (`jax.set_mesh`), each device walks its own rows
and its own positions of them under `shard_map`: the head's gradient is summed
over devices once, after the loop. The vocabulary may stay sharded over any
other axis.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdistill import types
from jdistill.losses import budget
from jdistill.losses.division import Args, Streams, on_mesh

TokenFn = Callable[[dict[str, jax.Array], Any, Any], tuple[jax.Array, Any]]
"""`fn(logits, data, params) -> (loss, metrics)`.

`logits` maps each stream to [C, V] ([C, 2, V] under a `types.PairHead`);
`data` holds the chunk's per-token arrays [C, ...]; `params` is passed through.
`loss` is [C], every weight and denominator applied; `metrics` is a pytree of
[C] arrays.
"""


def walk(
  fn: TokenFn,
  streams: Streams,
  data: Any,
  params: Any = None,
  *,
  frozen: tuple[str, ...] = (),
  chunk_bytes: int | None = None,
) -> tuple[jax.Array, Any]:
  """Sums a token-local loss over all tokens, value and gradient in one pass.

  Args:
    fn: see `TokenFn`.
    streams: hidden states [*B, D] with a head each; all share the leading
      axes. The first, rows, is divided over the mesh, and so is a second,
      positions, where its size allows.
    data: pytree of [*B, ...] arrays that travel with the tokens; no gradient.
    params: pytree that `fn` differentiates with respect to; arrays a schedule
      drives may travel here too.
    frozen: names of streams that receive no gradient.
    chunk_bytes: budget for one stream's float32 logits; the tokens of a chunk
      are `chunk_bytes / (4 V)`. By default 32 MiB on a CPU and 512 MiB on an
      accelerator.
  Returns: (total, metrics): the summed loss [], differentiable once with
    respect to live streams and params, in float32 or wider; and the summed
    metrics, which carry no gradient.
  References: Hsu et al., 2024 (Liger), arXiv:2410.10989 (gradients of a
    chunk in the forward pass, for cross entropy); Wijmans et al., 2024,
    arXiv:2411.09009.
  Example:
    >>> from jdistill import losses, types
    >>> head = types.Head(jnp.eye(3))  # [V, D]
    >>> student = types.Dense(jnp.zeros((2, 4, 3)), head)
    >>> teacher = types.Dense(jnp.ones((2, 4, 3)).at[..., 0].set(2), head)
    >>> def fn(logits, mask, params):
    ...   kl = losses.forward_kl(logits["student"], logits["teacher"])
    ...   return kl * mask, {"kl": kl * mask, "tokens": mask}
    >>> streams = {"student": student, "teacher": teacher}
    >>> mask = jnp.ones((2, 4))
    >>> total, metrics = walk(fn, streams, mask, frozen=("teacher",))
    >>> print(f"{total / metrics['tokens']:.4f}")
    0.1233
  """
  live = {k: v for k, v in streams.items() if k not in frozen}
  return _walk(
    fn, chunk_bytes, live, params, {k: streams[k] for k in frozen}, data
  )


def walk_tokens(
  fn: Callable[[dict[str, jax.Array], Any, Any], Any],
  streams: Streams,
  data: Any,
  params: Any = None,
  *,
  frozen: tuple[str, ...] = (),
  chunk_bytes: int | None = None,
) -> Any:
  """Values of a token-local function at every position, differentiable.

  Args:
    fn: `fn(logits, data, params) -> values`, a pytree of [C, ...] arrays.
    streams, data, params, frozen, chunk_bytes: as in `walk`.
  Returns: the same pytree of [*B, ...] arrays.
  References: Hsu et al., 2024 (Liger), arXiv:2410.10989 (gradients of a
    chunk in the forward pass, for cross entropy); Wijmans et al., 2024,
    arXiv:2411.09009.
  Example:
    >>> from jdistill import losses, types
    >>> dense = types.Dense(jnp.zeros((2, 4, 3)), types.Head(jnp.eye(3)))
    >>> def fn(logits, targets, params):
    ...   return losses.cross_entropy(logits["student"], targets)
    >>> targets = jnp.zeros((2, 4), int)
    >>> print(walk_tokens(fn, {"student": dense}, targets).sum(-1).round(4))
    [4.3944 4.3944]
  """
  live = {k: v for k, v in streams.items() if k not in frozen}
  return _walk_tokens(
    fn, chunk_bytes, live, params, {k: streams[k] for k in frozen}, data
  )


# ---------------------------------------------------------------- one pass


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _walk(fn, chunk_bytes, live, params, frozen, data):
  def body(carry, chunk: Args):
    loss, metrics = _call(fn, chunk)
    return _add(carry, (loss.sum(), _sums(metrics))), ()

  def local(args: Args):
    chunks, restore, _ = _split(args, chunk_bytes)
    return _scan_sums(body, chunks, restore)

  return on_mesh(local, Args(live, params, frozen, data))[0]


def _walk_fwd(fn, chunk_bytes, live, params, frozen, data):
  def summed(rows: _Rows, params):
    loss, metrics = _apply(fn, rows, params)
    return loss.sum(), _sums(metrics)

  def body(carry, chunk: Args):
    total, metrics, (d_hidden, d_heads, d_params) = _gradients(summed, chunk)
    return _add(carry, (total, metrics, d_heads, d_params)), d_hidden

  def local(args: Args):
    chunks, restore, join = _split(args, chunk_bytes)
    sums, d_hidden = _scan_sums(body, chunks, restore)
    return sums, jax.tree.map(join, d_hidden)

  args = Args(live, params, frozen, data)
  (total, metrics, d_heads, d_params), d_hidden = on_mesh(local, args)
  return (total, metrics), (live, params, d_hidden, d_heads, d_params)


def _walk_bwd(fn, chunk_bytes, saved, cotangents):
  del fn, chunk_bytes
  live, params, d_hidden, d_heads, d_params = saved
  scale, _ = cotangents  # metrics carry no gradient
  return (
    *_cotangents(live, params, d_hidden, d_heads, d_params, scale),
    None,
    None,
  )


_walk.defvjp(_walk_fwd, _walk_bwd)


# --------------------------------------------------------------- recompute


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _walk_tokens(fn, chunk_bytes, live, params, frozen, data):
  def local(args: Args):
    chunks, restore, join = _split(args, chunk_bytes)

    def body(carry, chunk):
      return carry, _call(fn, restore(chunk))

    _, values = jax.lax.scan(body, (), chunks)
    return (), jax.tree.map(join, values)

  return on_mesh(local, Args(live, params, frozen, data))[1]


def _walk_tokens_fwd(fn, chunk_bytes, live, params, frozen, data):
  values = _walk_tokens(fn, chunk_bytes, live, params, frozen, data)
  return values, (live, params, frozen, data)


def _walk_tokens_bwd(fn, chunk_bytes, saved, cotangents):
  live, params, frozen, data = saved

  def summed(rows: _Rows, params):
    data, cotangent = rows.data
    values = _apply(fn, rows._replace(data=data), params)
    products = jax.tree.map(lambda v, c: (v * c).sum(), values, cotangent)
    return sum(jax.tree.leaves(products)), ()

  def body(carry, chunk: Args):
    _, _, (d_hidden, d_heads, d_params) = _gradients(summed, chunk)
    return _add(carry, (d_heads, d_params)), d_hidden

  def local(args: Args):
    chunks, restore, join = _split(args, chunk_bytes)
    sums, d_hidden = _scan_sums(body, chunks, restore)
    return sums, jax.tree.map(join, d_hidden)

  args = Args(live, params, frozen, (data, cotangents))
  (d_heads, d_params), d_hidden = on_mesh(local, args)
  return (
    *_cotangents(live, params, d_hidden, d_heads, d_params, 1.0),
    None,
    None,
  )


_walk_tokens.defvjp(_walk_tokens_fwd, _walk_tokens_bwd)


# ------------------------------------------------------------------ pieces


class _Rows(NamedTuple):
  """What the token function sees of some tokens."""

  logits: dict[str, jax.Array]
  data: Any
  real: Any  # [C] or None


def _apply(fn, rows: _Rows, params):
  """The token function's values, 0 where a chunk is only filled up."""
  out = fn(rows.logits, rows.data, params)
  if rows.real is None:
    return out
  real = lambda x: rows.real.reshape(-1, *(1,) * (x.ndim - 1))  # noqa: E731
  return jax.tree.map(lambda x: jnp.where(real(x), x, 0), out)


def _call(fn, chunk: Args):
  """Calls the token function on the logits of one chunk."""
  rows = _Rows(_logits(chunk.live | chunk.frozen), chunk.data, chunk.real)
  size = _block_size(rows.logits)
  if size is None:
    return _apply(fn, rows, chunk.params)
  _, values = jax.lax.scan(
    lambda _, block: ((), _apply(fn, block, chunk.params)),
    (),
    _cut(rows, size),
  )
  return _joined(values)


def _gradients(summed, chunk: Args):
  """`summed(rows, params) -> (total, metrics)` over one chunk.

  Returns: total, metrics, and the gradients of the total with respect to hidden
    states, heads and params. The logits of a chunk are there as a whole for the
    products before and after; what lies between goes block by block.
  """
  hidden, heads = _parts(chunk.live)
  live, pull = jax.vjp(
    lambda hidden, heads: {k: heads[k](x) for k, x in hidden.items()},
    hidden, heads,
  )  # fmt: skip

  def of(live, params, rows: _Rows):
    return summed(rows._replace(logits=live | rows.logits), params)

  def block(carry, part):
    live, rows = part
    grad = _value_and_grad(lambda live, params: of(live, params, rows))
    (total, metrics), (d_live, d_params) = grad(live, chunk.params)
    return _add(carry, (total, metrics, d_params)), d_live

  rows = _Rows(_logits(chunk.frozen), chunk.data, chunk.real)
  size = _block_size(live | rows.logits)
  if size is None:
    (total, metrics, d_params), d_live = block(None, (live, rows))
  else:
    (total, metrics, d_params), d_live = _scan_sums(
      block, _cut((live, rows), size), lambda part: part
    )
    d_live = _joined(d_live)
  d_hidden, d_heads = jax.tree.map(_no_float0, pull(d_live))
  return total, metrics, (d_hidden, d_heads, d_params)


def _logits(streams: Streams) -> dict[str, jax.Array]:
  return {k: s.head(s.hidden) for k, s in streams.items()}


def _block_size(logits: dict[str, jax.Array]) -> int | None:
  """Tokens of a block of these logits [C, V]; None for the whole chunk."""
  count = next(iter(logits.values())).shape[0]
  size = budget.block_rows(max(x.size // count for x in logits.values()))
  return None if size is None or count <= size else size


def _cut(tree, size: int):
  """[C, ...] -> [C / size, size, ...]"""
  return jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), tree)


def _joined(tree):
  """The inverse of `_cut`."""
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)


def _no_float0(x):
  """None for the cotangents of integers (of a quantised head)."""
  return None if x.dtype == jax.dtypes.float0 else x


def _parts(streams):
  hidden = {k: v.hidden for k, v in streams.items()}
  return hidden, {k: v.head for k, v in streams.items()}


def _cotangents(live, params, d_hidden, d_heads, d_params, scale):
  """Cotangents of live streams and params, shaped like them."""
  d_live = {
    k: types.Dense(
      _scaled(d_hidden[k], v.hidden, scale), _scaled(d_heads[k], v.head, scale)
    )
    for k, v in live.items()
  }
  return d_live, _scaled(d_params, params, scale)


def _split(args: Args, chunk_bytes: int | None):
  """Cuts the tokens into chunks.

  Returns: the arrays that are scanned, [N, C, ...] each; a function that puts
    heads and params back beside one chunk of them; one that joins scanned
    results [N, C, ...] into [*B, ...].
  """
  streams = {**args.live, **args.frozen}
  first = next(iter(streams.values()))
  lead = first.hidden.shape[:-1]
  num = max(1, functools.reduce(lambda a, b: a * b, lead, 1))
  width = max(budget.width(s.head) for s in streams.values())
  if chunk_bytes is None:
    chunk_bytes = budget.chunk_bytes()
  size = max(1, chunk_bytes // (4 * width))
  chunks = -(-num // size)
  size = -(-num // chunks)
  rows = budget.block_rows(width)
  if rows is not None and rows < size:
    size = -(-size // rows) * rows
  pad = chunks * size - num

  def cut(x):
    x = x.reshape(num, *x.shape[len(lead) :])
    if pad:
      x = jnp.pad(x, [(0, pad)] + [(0, 0)] * (x.ndim - 1))
    return x.reshape(chunks, size, *x.shape[1:])

  def join(x):
    return x.reshape(-1, *x.shape[2:])[:num].reshape(*lead, *x.shape[2:])

  scanned = (
    cut(jnp.ones(lead, bool)) if pad else None,
    {k: cut(s.hidden) for k, s in streams.items()},
    jax.tree.map(cut, args.data),
  )

  def restore(chunk) -> Args:
    real, hidden, data = chunk
    return Args(
      live={k: types.Dense(hidden[k], s.head) for k, s in args.live.items()},
      params=args.params,
      frozen={
        k: types.Dense(hidden[k], s.head) for k, s in args.frozen.items()
      },
      data=data,
      real=real,
    )

  return scanned, restore, join


def _scan_sums(body, scanned, restore):
  """Scans `body(carry, chunk)`, its first sums starting from zero."""

  def step(carry, chunk):
    return body(carry, restore(chunk))

  first = jax.tree.map(lambda x: x[0], scanned)
  shapes, _ = jax.eval_shape(lambda c: body(None, restore(c)), first)
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, _wide(s.dtype)), shapes)
  return jax.lax.scan(step, zeros, scanned)


def _value_and_grad(fn):
  """`jax.value_and_grad` over the inexact leaves of three arguments.

  Other leaves (integers of a quantised head) have no gradient: None.
  """

  def wrapped(*args):
    leaves, tree = jax.tree.flatten(args)
    live = [jnp.issubdtype(jnp.result_type(x), jnp.inexact) for x in leaves]

    def of(moving):
      moving = iter(moving)
      full = [
        next(moving) if m else x for m, x in zip(live, leaves, strict=True)
      ]
      return fn(*jax.tree.unflatten(tree, full))

    moving = [x for m, x in zip(live, leaves, strict=True) if m]
    out, grads = jax.value_and_grad(of, has_aux=True)(moving)
    grads = iter(grads)
    full = [next(grads) if m else None for m in live]
    return out, jax.tree.unflatten(tree, full)

  return wrapped


def _add(carry, sums):
  if carry is None:
    return sums
  return jax.tree.map(lambda c, x: c + x.astype(c.dtype), carry, sums)


def _sums(metrics):
  return jax.tree.map(lambda m: jax.lax.stop_gradient(m).sum(), metrics)


def _wide(dtype):
  return jnp.promote_types(dtype, jnp.float32)


def _scaled(grads, like, scale):
  """Gradients times the cotangent, in their parameters' dtypes."""

  def one(x, g):
    if not jnp.issubdtype(x.dtype, jnp.inexact):
      return jnp.zeros(x.shape, jax.dtypes.float0)
    return (g * scale).astype(x.dtype)

  leaves, tree = jax.tree.flatten(like)
  grads = tree.flatten_up_to(grads)
  return tree.unflatten([one(x, g) for x, g in zip(leaves, grads, strict=True)])
