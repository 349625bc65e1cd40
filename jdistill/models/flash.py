# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Attention over packed rows by jax's splash kernel for TPUs.

Scores never exist as a whole, and blocks that no query sees are skipped. The
kernel is causal by index and keeps segments apart; in a packed row, whose
positions count on within each segment, that is causal by position.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from jdistill import types
from jdistill.models import division
from jdistill.models.spec import LayerSpec, Segment
from jdistill.types import UserError

LANES = 128
"""Rows are cut into blocks of a multiple of this, the width of a register."""

BLOCKS = (512, 256, 128)
"""Positions of a block, the best first; the largest that divides a row."""

RESIDUALS = "flash"
"""Name of what the backward kernels need of the forward one, for remat."""


@dataclasses.dataclass(frozen=True)
class Plan:
  """The kernels of a segment's layers.

  `windows` are the different ones, 0 for none, and `index` says which of them
  a layer has. `heads_axis` is the mesh axis that the model's heads are divided
  over. `always` is what `attention="flash"` asks for: where there is no TPU the
  kernel is interpreted, slowly.
  """

  windows: tuple[int, ...]
  index: tuple[int, ...]
  scale: float
  soft_cap: float | None
  heads_axis: str | None
  always: bool


def plan(
  spec: LayerSpec, segment: Segment, length: int, *, probs: bool
) -> Plan | None:
  """How a segment's layers use the kernel; None if they cannot or shall not.

  Args:
    spec: the model's numbers; `attention` is what is asked for.
    segment: its windows.
    length: positions of a row.
    probs: whether somebody wants the probabilities.
  Raises:
    UserError: if "flash" is asked for and the kernel cannot.
  """
  reason = refusal(length, probs=probs, parts=division.parts(length))
  if spec.attention == "xla" or (spec.attention == "auto" and reason):
    return None
  if reason:
    raise UserError(
      f"attention is 'flash', but {reason}; 'auto' takes the kernel only where"
      " it can be used"
    )
  seen = [0 if w >= length else w for w in segment.windows]
  windows = tuple(dict.fromkeys(seen))
  return Plan(
    windows=windows,
    index=tuple(windows.index(w) for w in seen),
    scale=spec.score_scale,
    soft_cap=spec.attention_soft_cap,
    heads_axis=spec.heads_axis,
    always=spec.attention == "flash",
  )


def refusal(length: int, *, probs: bool, parts: int = 1) -> str | None:
  """Why the kernel cannot be used, or None.

  Args:
    length: positions of a row.
    probs: whether somebody wants the probabilities.
    parts: that the context axis of the mesh divides a row into.
  """
  if probs:
    return "attention probabilities are wanted, which the kernel does not keep"
  if length % (LANES * parts):
    times = f" x {parts} parts of the context axis" if parts > 1 else ""
    return (
      f"a row has {length} positions, and the kernel needs a multiple of"
      f" {LANES}{times} (seq_len)"
    )
  return None


def choose(
  made: Plan,
  dense: Callable[..., jax.Array],
  q: Float[Array, "B T H Dh"],
  k: Float[Array, "B T N Dh"],
  v: Float[Array, "B T N Dh"],
  segment_ids: Int[Array, "B T"],
  index: Int[Array, ""],
) -> Float[Array, "B T H Dh"]:
  """The kernel on a TPU, elsewhere `dense(q, k, v)` or the kernel interpreted.

  Args:
    made: which kernels there are.
    dense: the same without a kernel.
    q, k, v: queries, keys and values as in `attention.attend`.
    segment_ids: who may see whom; padding is segment 0, and sees itself.
    index: which of the plan's windows.
  """
  kernel = functools.partial(attend, made, index=index)

  def other(q, k, v, segment_ids):
    if made.always:
      return kernel(q, k, v, segment_ids, interpret=True)
    return dense(q, k, v)

  # The devices of a mesh are known while tracing, and one path is cheaper to
  # trace than two. Without a mesh the compiler's target decides.
  platform = types.target_platform()
  if platform is not None:
    run = kernel if platform == "tpu" else other
    return run(q, k, v, segment_ids)
  return jax.lax.platform_dependent(
    q, k, v, segment_ids, tpu=kernel, default=other
  )


def attend(
  made: Plan,
  q: Float[Array, "B T H Dh"],
  k: Float[Array, "B T N Dh"],
  v: Float[Array, "B T N Dh"],
  segment_ids: Int[Array, "B T"],
  index: Int[Array, ""],
  *,
  interpret: bool = False,
) -> Float[Array, "B T H Dh"]:
  """Attention by the kernel, each device its own rows, heads and queries.

  The compiler cannot divide a kernel, so whatever the mesh in context does
  not divide here is computed on every device. Keys and values of a row are
  whole on each.
  """
  # The kernel has no scale of its own.
  wide = jnp.promote_types(q.dtype, jnp.float32)
  q = (q.astype(wide) * made.scale).astype(q.dtype)
  mesh = jax.sharding.get_abstract_mesh()
  alone = mesh.empty or mesh.size == 1
  parts = _Parts() if alone else _division(made, mesh, q.shape, k.shape[2])
  if parts.copies > 1:
    k, v = (jnp.repeat(x, parts.copies, axis=2) for x in (k, v))
  kernels = tuple(
    _kernel(
      length=q.shape[1],
      parts=parts.num_contexts,
      num_heads=q.shape[2] // parts.num_heads,
      window=window,
      soft_cap=made.soft_cap,
      interpret=interpret,
    )
    for window in made.windows
  )
  args = (kernels, q, k, v, segment_ids, segment_ids, index)
  if alone:
    return _local(*args)
  queries = PartitionSpec(parts.rows, parts.context, parts.heads)
  keys = PartitionSpec(parts.rows, None, parts.heads)
  tables = NamedSharding(mesh, PartitionSpec(None, parts.context))
  return jax.shard_map(
    _local,
    in_specs=(
      tuple(kernel.manual_sharding_spec(tables) for kernel in kernels),
      queries,
      keys,
      keys,
      PartitionSpec(parts.rows, parts.context),
      PartitionSpec(parts.rows),
      PartitionSpec(),
    ),
    out_specs=queries,
    check_vma=False,
  )(*args)


class _Parts(NamedTuple):
  """Mesh axes of the rows, of the queries and of the heads, the sizes of the
  latter two, and the copies of a key/value head that let every device have
  one."""

  rows: tuple[str, ...] | None = None
  context: str | None = None
  heads: str | None = None
  num_contexts: int = 1
  num_heads: int = 1
  copies: int = 1


def _division(
  made: Plan, mesh: Any, shape: tuple[int, ...], num_kv_heads: int
) -> _Parts:
  rows = tuple(a for a in types.BATCH_AXES if a in mesh.axis_names)
  rows = tuple(a for a in rows if a != made.heads_axis)
  if shape[0] % math.prod(mesh.shape[a] for a in rows):
    rows = None
  parts = _Parts(rows)
  count = division.parts(shape[1])
  if count > 1:
    parts = parts._replace(context=types.CONTEXT_AXIS, num_contexts=count)
  axis = made.heads_axis
  size = mesh.shape.get(axis, 1)
  copies = size // math.gcd(size, num_kv_heads)
  if size == 1 or axis == parts.context or shape[2] % (num_kv_heads * copies):
    return parts
  return parts._replace(heads=axis, num_heads=size, copies=copies)


def _local(kernels, q, k, v, query_ids, key_ids, index):
  """Attention of one device, over all that it is given."""

  def one(kernel):
    def run(q, k, v, query_ids, key_ids):  # [H, T, Dh] of one row
      return kernel(q, k, v, _splash()[0].SegmentIds(query_ids, key_ids))

    return jax.vmap(run)

  args = (*(jnp.swapaxes(x, 1, 2) for x in (q, k, v)), query_ids, key_ids)
  branches = [one(kernel) for kernel in kernels]
  if len(branches) == 1:
    mixed = branches[0](*args)
  else:
    mixed = jax.lax.switch(index, branches, *args)
  return jnp.swapaxes(mixed, 1, 2)


@functools.lru_cache(maxsize=64)
def _kernel(
  *,
  length: int,
  parts: int,
  num_heads: int,
  window: int,
  soft_cap: float | None,
  interpret: bool,
) -> Any:
  """The kernel of one kind of layer, its tables of blocks in NumPy.

  jax's own `make_splash_mha` puts the tables on a device, and while compiling
  for a TPU that is not there, none can hold them. Queries are divided into
  `parts`, and so are the tables.
  """
  splash, tables = _splash()
  queries, keys = block_size(length // parts), block_size(length)
  shape, block = (length, length), (queries, keys)
  if window:
    mask = splash.mask_lib.LocalMask(shape, (window - 1, 0), offset=0)
  else:
    mask = splash.mask_lib.CausalMask(shape)
  masks = splash.mask_lib.MultiHeadMask([mask] * num_heads)
  forward, sees = tables.process_mask(masks, block, q_seq_shards=parts)
  backward, _ = tables.process_mask_dkv(masks, block, q_seq_shards=parts)
  sizes = {
    name: queries if name.startswith("block_q") else keys
    for name in (
      "block_q", "block_kv", "block_kv_compute", "block_q_dkv", "block_kv_dkv",
      "block_kv_dkv_compute", "block_q_dq", "block_kv_dq",
    )
  }  # fmt: skip
  return splash.SplashAttentionKernel(
    forward,
    forward,  # the gradient of queries goes the same way
    backward,
    block_sizes=splash.BlockSizes(**sizes),
    is_mqa=False,
    save_residuals=False,
    mask_value=splash.DEFAULT_MASK_VALUE,
    attn_logits_soft_cap=soft_cap,
    residual_checkpoint_name=RESIDUALS,
    mask_function=sees,
    interpret=interpret,
  )


def block_size(length: int) -> int:
  """Positions of a block."""
  return next(size for size in BLOCKS if length % size == 0)


def _splash() -> tuple[Any, Any]:
  # Imported where it is needed: it takes longer than the rest of a model.
  from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel,
    splash_attention_mask_info,
  )

  return splash_attention_kernel, splash_attention_mask_info
