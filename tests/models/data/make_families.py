# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Makes families.json and families.npz: logits of tiny random models.

Run with torch and transformers (made with 2.13.0 and 5.23.0; qwen3_moe
with 5.24.0):

    python tests/models/data/make_families.py

families.json has, for each family, its config.json and the names and shapes of
its tensors, as transformers writes them. families.npz has token ids and, for
each family, float32 logits of eager attention. Weights are drawn by NumPy from
the tensor's name, so that they need not be stored.
"""

import json
import pathlib
import zlib

import numpy as np
import torch
import transformers

HERE = pathlib.Path(__file__).parent
SMALL = {
  "vocab_size": 64,
  "hidden_size": 32,
  "intermediate_size": 48,
  "num_hidden_layers": 3,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "head_dim": 8,
  "max_position_embeddings": 64,
  "attn_implementation": "eager",
}
FAMILIES = {
  "llama": transformers.LlamaConfig(**SMALL, tie_word_embeddings=True),
  "llama3": transformers.LlamaConfig(
    **{**SMALL, "head_dim": 16},
    rope_parameters={
      "rope_type": "llama3",
      "rope_theta": 500.0,
      "factor": 8.0,
      "low_freq_factor": 1.0,
      "high_freq_factor": 4.0,
      "original_max_position_embeddings": 32,
    },
  ),
  "mistral": transformers.MistralConfig(**SMALL, sliding_window=5),
  "qwen2": transformers.Qwen2Config(
    **SMALL, use_sliding_window=True, sliding_window=6, max_window_layers=1
  ),
  "qwen3": transformers.Qwen3Config(
    **{**SMALL, "head_dim": 12}, tie_word_embeddings=True
  ),
  "qwen3_moe": transformers.Qwen3MoeConfig(
    **{**SMALL, "num_hidden_layers": 4},
    num_experts=6,
    num_experts_per_tok=3,
    moe_intermediate_size=20,
    norm_topk_prob=True,
    decoder_sparse_step=2,
    mlp_only_layers=[1],
  ),
  "qwen3_moe_all": transformers.Qwen3MoeConfig(
    **SMALL, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16
  ),
  # Caps and query scale so low that leaving one out shows.
  "gemma2": transformers.Gemma2Config(
    **SMALL,
    sliding_window=4,
    query_pre_attn_scalar=12,
    attn_logit_softcapping=2.0,
    final_logit_softcapping=3.0,
  ),
  "gemma3": transformers.Gemma3TextConfig(
    **{**SMALL, "num_hidden_layers": 7},
    sliding_window=4,
    query_pre_attn_scalar=10,
    rope_parameters={
      "full_attention": {
        "rope_type": "linear",
        "factor": 8.0,
        "rope_theta": 1000.0,
      },
      "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
    },
  ),
}


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """The values of a tensor; the test draws the same ones."""
  rng = np.random.RandomState(zlib.crc32(name.encode()))
  values = 0.3 * rng.standard_normal(shape)
  return (values + name.endswith("norm.weight")).astype(np.float32)


def as_written(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
  """Views of the tensors that are written, one for each expert."""
  found = {}
  for key, value in state.items():
    prefix, _, kind = key.rpartition(".")
    if not prefix.endswith(".mlp.experts"):
      found[key] = value
      continue
    for expert, part in enumerate(value):
      names = ("gate", "up") if kind == "gate_up_proj" else ("down",)
      for name, tensor in zip(names, part.chunk(len(names)), strict=True):
        found[f"{prefix}.{expert}.{name}_proj.weight"] = tensor
  return found


def main() -> None:
  ids = np.random.RandomState(0).randint(0, SMALL["vocab_size"], (1, 24))
  described, arrays = {}, {"ids": ids.astype(np.int32)}
  for name, config in FAMILIES.items():
    model = transformers.AutoModelForCausalLM.from_config(
      config, attn_implementation="eager"
    ).eval()
    state = as_written(model.state_dict())
    if config.tie_word_embeddings:
      del state["lm_head.weight"]
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    with torch.no_grad():
      for key, value in state.items():
        value.copy_(torch.from_numpy(draw(key, shapes[key])))
      logits = model(torch.from_numpy(ids)).logits
    described[name] = {"config": config.to_dict(), "tensors": shapes}
    arrays[name] = logits[0].numpy().astype(np.float32)
  text = json.dumps(described, indent=1, sort_keys=True)
  (HERE / "families.json").write_text(text + "\n")
  np.savez_compressed(HERE / "families.npz", **arrays)


if __name__ == "__main__":
  main()
