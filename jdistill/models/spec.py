# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The numbers that say what a decoder computes."""

import dataclasses
import itertools
from typing import Literal

from jdistill.models.low_rank import LowRank
from jdistill.models.rope import Rope
from jdistill.types import HEADS_AXIS, UserError

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
  the whole document. `ropes` are indices into `LayerSpec.ropes`. Layers that
  are `sparse` have `LayerSpec.experts` in place of one MLP.
  """

  windows: tuple[int, ...]
  ropes: tuple[int, ...]
  sparse: bool = False

  @classmethod
  def uniform(
    cls,
    num_layers: int,
    window: int = 0,
    rope: int = 0,
    *,
    sparse: bool = False,
  ) -> "Segment":
    """Layers that are all the same."""
    return cls((window,) * num_layers, (rope,) * num_layers, sparse)

  @property
  def num_layers(self) -> int:
    return len(self.windows)

  def keep(self, layers: tuple[int, ...]) -> "Segment":
    """The segment of these of its layers."""
    return Segment(
      windows=tuple(self.windows[i] for i in layers),
      ropes=tuple(self.ropes[i] for i in layers),
      sparse=self.sparse,
    )


@dataclasses.dataclass(frozen=True)
class Mixture:
  """A mixture of experts in place of an MLP, as in Qwen3-MoE.

  Each token takes the `per_token` experts that its router finds likeliest of
  the `num_experts`, MLPs of this `width`, and adds them up by their
  probabilities, which `renormalise` makes sum to one first.
  """

  num_experts: int
  per_token: int
  width: int
  renormalise: bool = True

  def __post_init__(self):
    if self.width < 1:
      raise UserError(f"width of experts is {self.width}; expected at least 1")
    if not 1 <= self.per_token <= self.num_experts:
      raise UserError(
        f"per_token is {self.per_token} and num_experts {self.num_experts}: a"
        " token takes at least one expert, and each at most once"
      )

  def check_division(self, parts: int) -> None:
    """Refuses a mesh axis that does not divide the experts evenly.

    Args:
      parts: size of the axis.
    Raises: UserError naming the sizes that would.
    """
    if self.num_experts % parts:
      sizes = [
        n for n in range(1, self.num_experts + 1) if not self.num_experts % n
      ]
      raise UserError(
        f"mesh axis expert is {parts}, which does not divide"
        f" {self.num_experts} experts evenly; it can be"
        f" {', '.join(map(str, sizes))}"
      )


@dataclasses.dataclass(frozen=True)
class LayerSpec:
  """The layers of Llama, Mistral, Qwen 2 and 3 (with experts or without),
  Gemma 2 and 3, and what lies between them.

  The defaults are those of SmolLM2-135M. `norm_plus_one` means that norms
  multiply by 1 + scale. `post_norms` normalises what attention and MLP return
  as well as what they receive. `query_scale` multiplies the scores; None is
  1 / sqrt(head_dim). `dtype` is what matmuls compute in; norms, softmax and
  rotations are at least float32 whatever it is. `heads_axis` is the mesh axis
  over which the flash kernel divides heads, as the compiler cannot.
  `mlp_width` is that of layers without experts; if there are `experts`, they
  are those of the segments that say `sparse`.
  """

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
  query_scale: float | None = None
  attention_soft_cap: float | None = None
  dtype: Literal["float32", "bfloat16"] = "float32"
  remat: Remat = "elementwise"
  attention: Attend = "auto"
  heads_axis: str | None = HEADS_AXIS
  experts: Mixture | None = None

  def __post_init__(self):
    for field in ("width", "mlp_width", "num_heads", "head_dim"):
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

    if segment.sparse and self.experts is None:
      raise UserError(
        "a segment is sparse but the decoder has no experts; give it `experts`"
      )

  def adapters(self, target: str) -> LowRank | None:
    """The adapters of one of a layer's products, if it has any."""
    del target
    return None

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
  def sparse_layers(self) -> tuple[bool, ...]:
    """For each layer whether it has experts."""
    return tuple(s.sparse for s in self.segments for _ in s.windows)

  @property
  def mixture(self) -> Mixture | None:
    """The experts, if any layer has them."""
    return self.experts if any(self.sparse_layers) else None

  @property
  def score_scale(self) -> float:
    """What attention scores are multiplied by."""
    if self.query_scale is not None:
      return self.query_scale
    return self.head_dim**-0.5


@dataclasses.dataclass(frozen=True)
class DecoderSpec(LayerSpec):
  """Layers between a table of tokens and a head.

  `embed_scale` multiplies what the table has for a token. A `tied` head is the
  table. `context_length` bounds nothing here, it is written into exported
  models. `kernels` is how those of the layers are kept: floats, or int8 that
  nothing can train (`jdistill.models.quantised`). With `low_rank`, adapters
  train and the rest stays.
  """

  vocab_size: int = 49_152
  tied: bool = True
  embed_scale: float = 1.0
  final_soft_cap: float | None = None
  context_length: int = 8192
  kernels: Literal["float", "int8"] = "float"
  low_rank: LowRank | None = None

  def __post_init__(self):
    super().__post_init__()
    if self.vocab_size < 1:
      raise UserError(
        f"vocab_size is {self.vocab_size}; a decoder needs at least 1"
      )

  def adapters(self, target: str) -> LowRank | None:
    low_rank = self.low_rank
    return low_rank if low_rank and target in low_rank.targets else None
