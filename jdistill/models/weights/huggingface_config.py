# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Reading config.json of Hugging Face transformers.

Both spellings are understood: `rope_theta` with `rope_scaling` (transformers 4)
and `rope_parameters` (transformers 5).
"""

from collections.abc import Mapping
from typing import Any, Literal

from jdistill.models.decoder import DecoderConfig
from jdistill.models.rope import Rope
from jdistill.models.spec import Mixture, Segment
from jdistill.types import UserError

CLASSES = {
  "llama": "LlamaForCausalLM",
  "mistral": "MistralForCausalLM",
  "qwen2": "Qwen2ForCausalLM",
  "qwen3": "Qwen3ForCausalLM",
  "qwen3_moe": "Qwen3MoeForCausalLM",
  "gemma2": "Gemma2ForCausalLM",
  "gemma3_text": "Gemma3ForCausalLM",
}
"""Supported model types, and the classes of transformers that hold them."""

GEMMAS = ("gemma2", "gemma3_text")

# What transformers assumes where a config is silent.
_COMMON = {
  "rms_norm_eps": 1e-6,
  "rope_theta": 10_000.0,
  "tie_word_embeddings": False,
}
_GEMMA = {"head_dim": 256, "tie_word_embeddings": True, "sliding_window": 4096}
_DEFAULTS: dict[str, dict[str, Any]] = {
  "llama": {"max_position_embeddings": 2048},
  "mistral": {"max_position_embeddings": 131_072, "sliding_window": 4096},
  "qwen2": {"max_position_embeddings": 32_768, "sliding_window": 4096},
  "qwen3": {
    "max_position_embeddings": 32_768,
    "sliding_window": 4096,
    "head_dim": 128,
  },
  "qwen3_moe": {
    "max_position_embeddings": 32_768,
    "sliding_window": 4096,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts_per_tok": 8,
    "norm_topk_prob": False,
    "decoder_sparse_step": 1,
  },
  "gemma2": {
    **_GEMMA,
    "max_position_embeddings": 8192,
    "query_pre_attn_scalar": 256,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "sliding_window_pattern": 2,
  },
  # The multi-modal checkpoints leave out whatever equals these.
  "gemma3_text": {
    **_GEMMA,
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131_072,
    "query_pre_attn_scalar": 256,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
    "sliding_window_pattern": 6,
  },
}

LOCAL, GLOBAL = "sliding_attention", "full_attention"


_MOST = 1 << 31  # of any size
_MOST_LAYERS = 10_000


class _Reader:
  """A config.json with its family's defaults and one way to complain."""

  def __init__(self, fields: Mapping[str, Any], where: str):
    self.where = where
    if fields.get("model_type") == "gemma3" and "text_config" in fields:
      inside = fields["text_config"]
      if not isinstance(inside, Mapping):
        raise UserError(f"{where}: text_config is {inside!r}; expected fields")
      fields = {"model_type": "gemma3_text", **inside}
    self.family = str(fields.get("model_type"))
    if self.family not in CLASSES:
      raise UserError(
        f"{where}: model_type {self.family!r} is not supported; a decoder can"
        f" be one of {', '.join(CLASSES)}"
      )
    self.fields = {**_COMMON, **_DEFAULTS[self.family], **fields}

  def get(self, name: str, default: Any = None) -> Any:
    value = self.fields.get(name)
    return default if value is None else value

  def number(self, name: str, kinds: tuple[type, ...] = (int,)) -> Any:
    value = self.get(name)
    if not isinstance(value, kinds) or isinstance(value, bool):
      expected = " or ".join(kind.__name__ for kind in kinds)
      found = "is missing" if value is None else f"is {value!r}"
      raise UserError(f"{self.where}: {name} {found}; expected {expected}")
    return value

  def whole(self, name: str, low: int = 1, high: int = _MOST) -> int:
    """An int that a size can be."""
    value = self.number(name)
    if not low <= value <= high:
      raise UserError(
        f"{self.where}: {name} is {value}; expected {low} to {high}"
      )
    return value

  def either(self, name: str, default: int) -> int:
    """A size, or what follows from others where it is not given."""
    return default if self.get(name) is None else self.whole(name)

  def real(self, name: str) -> float | None:
    """A float, None where it is not given."""
    if self.get(name) is None:
      return None
    return float(self.number(name, (float, int)))

  def refuse(self, name: str, allowed: tuple[Any, ...]) -> None:
    """Refuses a switch that changes what a model computes."""
    if self.get(name, allowed[0]) not in allowed:
      raise UserError(
        f"{self.where}: {name} is {self.fields[name]!r}, which is not"
        f" supported; expected {' or '.join(map(repr, allowed))}"
      )


def parse(fields: Mapping[str, Any], where: str) -> DecoderConfig:
  """The architecture that a config.json describes.

  Args:
    fields: the parsed file.
    where: the file's name, for messages.
  Raises:
    UserError: naming the field that is missing, malformed or not supported.
  """
  reader = _Reader(fields, where)
  for name in (
    "attention_bias",
    "mlp_bias",
    "use_bidirectional_attention",
    "partial_rotary_factor",
  ):
    reader.refuse(name, (1.0,) if name.startswith("partial") else (False,))
  if reader.get("quantization_config"):
    raise UserError(
      f"{where}: the weights are quantised (quantization_config); expected"
      " plain float32, float16 or bfloat16 tensors, or a GGUF file"
    )
  gemma = reader.family in GEMMAS
  activation = reader.get("hidden_activation", reader.get("hidden_act")) or (
    "gelu_pytorch_tanh" if gemma else "silu"
  )
  known: dict[str, Literal["silu", "gelu_tanh"]] = {
    "silu": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
  }
  if not isinstance(activation, str) or activation not in known:
    raise UserError(
      f"{where}: activation {activation!r} is not supported; expected"
      f" {' or '.join(known)}"
    )
  width = reader.whole("hidden_size")
  num_heads = reader.whole("num_attention_heads")
  windows = _windows(reader)
  experts, sparse = _experts(reader, len(windows))
  ropes, local = _ropes(reader)
  scalar = reader.real("query_pre_attn_scalar") if gemma else None
  if scalar is not None and not scalar > 0:
    raise UserError(
      f"{where}: query_pre_attn_scalar is {scalar}; expected more than 0"
    )
  fields = dict(
    vocab_size=reader.whole("vocab_size"),
    width=width,
    mlp_width=reader.whole("intermediate_size"),
    num_heads=num_heads,
    num_kv_heads=reader.either("num_key_value_heads", num_heads),
    head_dim=reader.either("head_dim", width // num_heads),
    segments=tuple(
      Segment(
        windows[run.start : run.stop],
        tuple(local if windows[n] else 0 for n in run),
        sparse[run.start],
      )
      for run in _runs(sparse)
    ),
    ropes=ropes,
    activation=known[activation],
    norm_eps=reader.real("rms_norm_eps"),
    norm_plus_one=gemma,
    post_norms=gemma,
    qk_norm=reader.family in ("qwen3", "qwen3_moe", "gemma3_text"),
    qkv_bias=reader.family == "qwen2",
    tied=bool(reader.get("tie_word_embeddings")),
    embed_scale=width**0.5 if gemma else 1.0,
    query_scale=None if scalar is None else scalar**-0.5,
    attention_soft_cap=reader.real("attn_logit_softcapping") if gemma else None,
    final_soft_cap=reader.real("final_logit_softcapping") if gemma else None,
    context_length=reader.whole("max_position_embeddings"),
    experts=experts,
  )
  try:
    return DecoderConfig(**fields)
  except UserError as error:
    raise UserError(f"{where}: {error}") from None


def _experts(
  reader: _Reader, num_layers: int
) -> tuple[Mixture | None, tuple[bool, ...]]:
  """The experts of a family that has them, and for each layer if it does."""
  if reader.family != "qwen3_moe":
    return None, (False,) * num_layers
  # transformers 4 and 5 spell it differently; 128 is the default of both.
  names = [n for n in ("num_experts", "num_local_experts") if reader.get(n)]
  num_experts = reader.whole(names[0]) if names else 128
  mixture = Mixture(
    num_experts=num_experts,
    per_token=reader.whole("num_experts_per_tok", high=num_experts),
    width=reader.whole("moe_intermediate_size"),
    renormalise=bool(reader.get("norm_topk_prob")),
  )
  step = reader.whole("decoder_sparse_step")
  dense = reader.get("mlp_only_layers", ())
  if not isinstance(dense, list | tuple):
    raise UserError(
      f"{reader.where}: mlp_only_layers is {dense!r}; expected a list"
    )
  return mixture, tuple(
    n not in dense and (n + 1) % step == 0 for n in range(num_layers)
  )


def _runs(sparse: tuple[bool, ...]) -> list[range]:
  """Neighbouring layers that are alike."""
  starts = [n for n, s in enumerate(sparse) if n == 0 or sparse[n - 1] != s]
  return [
    range(a, b) for a, b in zip(starts, [*starts[1:], len(sparse)], strict=True)
  ]


def _windows(reader: _Reader) -> tuple[int, ...]:
  """Each layer's window, 0 for the whole document."""
  num_layers = reader.whole("num_hidden_layers", high=_MOST_LAYERS)
  window = reader.either("sliding_window", 0)
  if reader.family == "llama":
    return (0,) * num_layers
  if reader.family == "mistral":
    return (window,) * num_layers
  if reader.family.startswith("qwen") and not reader.get("use_sliding_window"):
    window = 0
  if reader.family == "qwen3_moe":
    return (window,) * num_layers
  kinds = reader.get("layer_types")
  if kinds is not None and not isinstance(kinds, list | tuple):
    raise UserError(
      f"{reader.where}: layer_types is {kinds!r}; expected a list"
    )
  if kinds is None:
    kinds = [
      LOCAL if _is_local(reader, layer) else GLOBAL
      for layer in range(num_layers)
    ]
  named = sorted({str(kind) for kind in kinds})
  if len(kinds) != num_layers or not set(named) <= {LOCAL, GLOBAL}:
    raise UserError(
      f"{reader.where}: layer_types has {len(kinds)} entries of"
      f" {named}; expected {num_layers} of {LOCAL!r} and"
      f" {GLOBAL!r}"
    )
  if LOCAL in kinds and not window:
    raise UserError(
      f"{reader.where}: some layers slide but sliding_window is missing;"
      " expected int"
    )
  return tuple(window if kind == LOCAL else 0 for kind in kinds)


def _is_local(reader: _Reader, layer: int) -> bool:
  """Whether a layer slides where `layer_types` does not say."""
  if reader.family in GEMMAS:
    return (layer + 1) % reader.whole("sliding_window_pattern") != 0
  if reader.get("max_window_layers") is None:
    return layer >= 28
  return layer >= reader.whole("max_window_layers", low=0)


def _ropes(reader: _Reader) -> tuple[tuple[Rope, ...], int]:
  """The ropes, and the index of the one that sliding layers use."""
  given = reader.get("rope_parameters") or reader.get("rope_scaling") or {}
  theta = reader.get("rope_theta")
  _check_rope(reader, given)
  nested = GLOBAL in given or LOCAL in given
  whole = given.get(GLOBAL) or {} if nested else given
  _check_rope(reader, whole)
  rope = _rope(reader, whole, theta)
  if reader.family != "gemma3_text":
    if nested and (given.get(LOCAL) or whole) != whole:
      raise UserError(
        f"{reader.where}: rope_parameters differ between kinds of layers,"
        f" which {reader.family} does not do"
      )
    return (rope,), 0
  local = given.get(LOCAL) or {} if nested else {}
  _check_rope(reader, local)
  return (rope, _rope(reader, local, reader.get("rope_local_base_freq"))), 1


def _check_rope(reader: _Reader, given: Any) -> None:
  if not isinstance(given, Mapping):
    raise UserError(
      f"{reader.where}: rope_parameters or rope_scaling has {given!r}; expected"
      " fields"
    )


def _rope(reader: _Reader, given: Mapping[str, Any], theta: Any) -> Rope:
  def number(name: str, default: Any = None) -> float:
    value = given.get(name, default)
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not known or not 0 < value < float("inf"):
      found = "is missing" if value is None else f"is {value!r}"
      raise UserError(
        f"{reader.where}: {name} of the rope {found}; expected a number above 0"
      )
    return float(value)

  kind = given.get("rope_type", given.get("type", "default"))
  base = number("rope_theta", theta)
  if given.get("partial_rotary_factor", 1.0) != 1.0:
    raise UserError(
      f"{reader.where}: partial_rotary_factor is not supported; expected 1"
    )
  if kind == "default":
    return Rope(base)
  if kind not in ("linear", "llama3"):
    raise UserError(
      f"{reader.where}: rope scaling {kind!r} is not supported; expected"
      " default, linear or llama3"
    )
  if kind == "linear":
    return Rope(base, "linear", number("factor"))
  low, high = number("low_freq_factor"), number("high_freq_factor")
  if low >= high:
    raise UserError(
      f"{reader.where}: low_freq_factor of the rope is {low} and"
      f" high_freq_factor {high}; expected the former to be smaller"
    )
  length = reader.whole("max_position_embeddings")
  length = int(number("original_max_position_embeddings", length))
  return Rope(base, "llama3", number("factor"), low, high, length)
