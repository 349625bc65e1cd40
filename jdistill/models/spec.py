# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The numbers that say what a decoder computes."""

import dataclasses
import itertools
from typing import Literal

from jdistill.models.low_rank import LowRank
from jdistill.models.rope import Rope
from jdistill.types import UserError

Remat = Literal["none", "elementwise", "dots", "full"]
"""What a backward pass computes again: nothing; all but products; all but
products of activations with parameters; each layer from its input."""

Attend = Literal["auto", "xla", "flash"]
"""What computes attention without a cache: the flash kernel on a TPU where it
can be used; plain products and a softmax; the kernel, or an error."""


@dataclasses.dataclass(frozen=True)
class Segment:
  """Like layers that are stacked and scanned, one entry of each field a layer.

  `windows` says how many positions back a layer sees, its own included; 0 is
  the whole document. `ropes` are indices into `DecoderSpec.ropes`.
  """

  windows: tuple[int, ...]
  ropes: tuple[int, ...]

  @classmethod
  def uniform(
    cls, num_layers: int, window: int = 0, rope: int = 0
  ) -> "Segment":
    """Layers that are all the same."""
    return cls((window,) * num_layers, (rope,) * num_layers)

  @property
  def num_layers(self) -> int:
    return len(self.windows)

  def keep(self, layers: tuple[int, ...]) -> "Segment":
    """The segment of these of its layers."""
    return Segment(
      windows=tuple(self.windows[i] for i in layers),
      ropes=tuple(self.ropes[i] for i in layers),
    )


@dataclasses.dataclass(frozen=True)
class DecoderSpec:
  """Llama, Mistral, Qwen 2 and 3, Gemma 2 and 3, and what lies between them.

  The defaults are those of SmolLM2-135M. `norm_plus_one` means that norms
  multiply by 1 + scale. `post_norms` normalises what attention and MLP return
  as well as what they receive. `query_scale` multiplies the scores; None is
  1 / sqrt(head_dim). `context_length` bounds nothing here, it is written into
  exported models. `dtype` is what matmuls compute in; norms, softmax and
  rotations are at least float32 whatever it is. `kernels` is how those of the
  layers are kept: floats, or int8 that nothing can train
  (`jdistill.models.quantised`). With `low_rank`, adapters train and the rest
  stays.
  """

  vocab_size: int = 49_152
  width: int = 576
  mlp_width: int = 1536
  num_heads: int = 9
  num_kv_heads: int = 3
  head_dim: int = 64
  segments: tuple[Segment, ...] = (Segment.uniform(30),)
  ropes: tuple[Rope, ...] = (Rope(theta=100_000.0),)
  activation: Literal["silu", "gelu_tanh"] = "silu"
  norm_eps: float = 1e-5
  norm_plus_one: bool = False
  post_norms: bool = False
  qk_norm: bool = False
  qkv_bias: bool = False
  tied: bool = True
  embed_scale: float = 1.0
  query_scale: float | None = None
  attention_soft_cap: float | None = None
  final_soft_cap: float | None = None
  context_length: int = 8192
  dtype: Literal["float32", "bfloat16"] = "float32"
  remat: Remat = "elementwise"
  attention: Attend = "auto"
  kernels: Literal["float", "int8"] = "float"
  low_rank: LowRank | None = None

  def __post_init__(self):
    for field in ("vocab_size", "width", "mlp_width", "num_heads", "head_dim"):
      if getattr(self, field) < 1:
        raise UserError(
          f"{field} is {getattr(self, field)}; a decoder needs at least 1"
        )
    if self.num_kv_heads < 1 or self.num_heads % self.num_kv_heads:
      raise UserError(
        f"num_heads is {self.num_heads} and num_kv_heads {self.num_kv_heads}:"
        " query heads are shared out evenly over key/value heads, so the"
        " former must be a multiple of the latter"
      )
    if self.head_dim % 2:
      raise UserError(
        f"head_dim is {self.head_dim}; rotary positions need an even one"
      )
    if not self.segments:
      raise UserError("segments is empty; a decoder needs at least one segment")
    for segment in self.segments:
      self._check(segment)

  def _check(self, segment: Segment) -> None:
    if not segment.windows or len(segment.windows) != len(segment.ropes):
      raise UserError(
        f"a segment has {len(segment.windows)} windows and"
        f" {len(segment.ropes)} ropes; it needs one of each for every layer,"
        " and at least one layer"
      )
    if min(segment.windows) < 0:
      raise UserError(
        f"windows are {segment.windows}; a window is a number of positions,"
        " or 0 for the whole document"
      )
    if not all(0 <= rope < len(self.ropes) for rope in segment.ropes):
      raise UserError(
        f"ropes of a segment are {segment.ropes}, but `ropes` has"
        f" {len(self.ropes)} entries to point at"
      )

  def adapters(self, target: str) -> LowRank | None:
    """The adapters of one of a layer's products, if it has any."""
    low_rank = self.low_rank
    return low_rank if low_rank and target in low_rank.targets else None

  @property
  def num_layers(self) -> int:
    return sum(segment.num_layers for segment in self.segments)

  @property
  def offsets(self) -> tuple[int, ...]:
    """The number of each segment's first layer, counted over the model."""
    counts = (segment.num_layers for segment in self.segments)
    return tuple(itertools.accumulate(counts, initial=0))[:-1]

  @property
  def windows(self) -> tuple[int, ...]:
    """Every layer's window, 0 for the whole document."""
    return tuple(w for segment in self.segments for w in segment.windows)

  @property
  def layer_ropes(self) -> tuple[Rope, ...]:
    """Every layer's rope."""
    return tuple(self.ropes[i] for s in self.segments for i in s.ropes)

  @property
  def score_scale(self) -> float:
    """What attention scores are multiplied by."""
    if self.query_scale is not None:
      return self.query_scale
    return self.head_dim**-0.5
