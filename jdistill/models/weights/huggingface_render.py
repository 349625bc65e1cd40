# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Writing config.json of Hugging Face transformers.

`rope_theta` and `rope_scaling` are spelled as in transformers 4: version 5 and
other programs understand that too.
"""

from typing import Any

from jdistill.models.decoder import DecoderConfig
from jdistill.models.weights.compare import differences
from jdistill.models.weights.huggingface_config import (
  CLASSES,
  GEMMAS,
  GLOBAL,
  LOCAL,
  parse,
)
from jdistill.types import UserError


def render(config: DecoderConfig) -> dict[str, Any]:
  """The config.json that gives this architecture back.

  Returns: the fields, with the first model type that can express them all.
  Raises:
    UserError: no model type of transformers computes this; the message says
      what the nearest one would do otherwise.
  """
  nearest: tuple[str, list[str]] | None = None
  for family in CLASSES:
    fields = _fields(config, family)
    differing = differences(config, parse(fields, family))
    # These refuse in transformers what the others accept.
    even = family in ("llama", *GEMMAS)
    if even and config.width % config.num_heads:
      differing.append(
        f"width {config.width} is not a multiple of {config.num_heads} heads"
      )
    if not differing:
      return fields
    if nearest is None or len(differing) < len(nearest[1]):
      nearest = family, differing
  family, differing = nearest or ("", [])
  raise UserError(
    "no model type of Hugging Face computes what this config says; the nearest,"
    f" {family}, differs in {'; '.join(differing)}"
  )


def _fields(config: DecoderConfig, family: str) -> dict[str, Any]:
  """config.json of a family, right where the family can express the config."""
  fields: dict[str, Any] = {
    "architectures": [CLASSES[family]],
    "model_type": family,
    "vocab_size": config.vocab_size,
    "hidden_size": config.width,
    "intermediate_size": config.mlp_width,
    "num_hidden_layers": config.num_layers,
    "num_attention_heads": config.num_heads,
    "num_key_value_heads": config.num_kv_heads,
    "head_dim": config.head_dim,
    "rms_norm_eps": config.norm_eps,
    "tie_word_embeddings": config.tied,
    "max_position_embeddings": config.context_length,
    "attention_bias": False,
  }
  activation = {"silu": "silu", "gelu_tanh": "gelu_pytorch_tanh"}
  name = "hidden_activation" if family in GEMMAS else "hidden_act"
  fields[name] = activation[config.activation]
  if family == "llama":
    fields["mlp_bias"] = False
  if family == "qwen3_moe":
    fields |= _expert_fields(config)
  if family in GEMMAS:
    fields |= {
      "query_pre_attn_scalar": round(config.score_scale**-2),
      "attn_logit_softcapping": config.attention_soft_cap,
      "final_logit_softcapping": config.final_soft_cap,
    }
  return fields | _window_fields(config, family) | _rope_fields(config, family)


def _expert_fields(config: DecoderConfig) -> dict[str, Any]:
  mixture, sparse = config.experts, config.sparse_layers
  if mixture is None:  # the nearest that this family can say
    return {"mlp_only_layers": list(range(len(sparse)))}
  return {
    # transformers 4 reads the first name, 5 writes the second.
    "num_experts": mixture.num_experts,
    "num_local_experts": mixture.num_experts,
    "num_experts_per_tok": mixture.per_token,
    "moe_intermediate_size": mixture.width,
    "norm_topk_prob": mixture.renormalise,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [n for n, s in enumerate(sparse) if not s],
  }


def _window_fields(config: DecoderConfig, family: str) -> dict[str, Any]:
  if family == "llama":
    return {}
  local = max(config.windows)
  fields: dict[str, Any] = {"sliding_window": local or None}
  if family == "mistral":
    return fields
  if family.startswith("qwen"):
    fields["use_sliding_window"] = bool(local)
    if family == "qwen3_moe":
      return fields
  elif not local:
    fields["sliding_window"] = 4096  # no layer reads it, but it must be there
  kinds = [LOCAL if window else GLOBAL for window in config.windows]
  return fields | {"layer_types": kinds}


def _rope_fields(config: DecoderConfig, family: str) -> dict[str, Any]:
  pairs = list(zip(config.windows, config.layer_ropes, strict=True))
  whole = [rope for window, rope in pairs if not window]
  local = [rope for window, rope in pairs if window]
  rope = (whole or local)[0]
  fields: dict[str, Any] = {"rope_theta": rope.theta}
  if rope.scaling != "none":
    fields["rope_scaling"] = {"rope_type": rope.scaling, "factor": rope.factor}
  if rope.scaling == "llama3":
    fields["rope_scaling"] |= {
      "low_freq_factor": rope.low_freq_factor,
      "high_freq_factor": rope.high_freq_factor,
      "original_max_position_embeddings": rope.original_length,
    }
  if family == "gemma3_text":
    fields["rope_local_base_freq"] = (local or whole)[0].theta
  return fields
