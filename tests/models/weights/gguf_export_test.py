# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""GGUF files out and in again, and through transformers' own reader."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import gguf_file, refs, types
from jdistill.models import DecoderConfig, Mixture, Rope, Segment, weights
from jdistill.types import UserError

VOCAB = 64
TOKENIZER = {
  "tokenizer.ggml.model": "gpt2",
  "tokenizer.ggml.pre": "smollm",
  "tokenizer.ggml.tokens": [f"<{n}>" for n in range(VOCAB)],
  "tokenizer.ggml.token_type": np.ones(VOCAB, np.int32),
  "tokenizer.ggml.merges": ["a b", "c d"],
  "tokenizer.ggml.eos_token_id": 2,
  "tokenizer.ggml.add_bos_token": False,
  "general.name": "another model",
}
LLAMA = DecoderConfig(
  vocab_size=VOCAB,
  width=32,
  mlp_width=64,
  num_heads=4,
  num_kv_heads=2,
  head_dim=8,
  segments=(Segment.uniform(3),),
  context_length=128,
)
GEMMA2 = dataclasses.replace(
  LLAMA,
  activation="gelu_tanh",
  norm_plus_one=True,
  norm_eps=1e-6,
  post_norms=True,
  embed_scale=32**0.5,
  attention_soft_cap=2.0,
  final_soft_cap=3.0,
  segments=(Segment((4, 0, 4), (0, 0, 0)),),
)
QWEN3MOE = dataclasses.replace(
  LLAMA,
  qk_norm=True,
  tied=False,
  segments=(Segment.uniform(3, sparse=True),),
  experts=Mixture(6, 2, 32),
)
CONFIGS = {
  "llama": LLAMA,
  "llama3": dataclasses.replace(
    LLAMA,
    tied=False,
    head_dim=16,
    ropes=(Rope(500_000.0, "llama3", 8.0),),
  ),
  "qwen2": dataclasses.replace(LLAMA, qkv_bias=True),
  "qwen3": dataclasses.replace(LLAMA, qk_norm=True, tied=False),
  "qwen3moe": QWEN3MOE,
  "gemma2": GEMMA2,
  "gemma3": dataclasses.replace(
    GEMMA2,
    qk_norm=True,
    attention_soft_cap=None,
    final_soft_cap=None,
    segments=(Segment((4, 4, 4, 4, 4, 0, 4), (1, 1, 1, 1, 1, 0, 1)),),
    ropes=(Rope(1000.0, "linear", 8.0), Rope(10_000.0)),
  ),
}
each_config = pytest.mark.parametrize("name", CONFIGS)


def random_params(config):
  """Parameters away from their initial values, so that none is a no-op."""
  leaves, tree = jax.tree.flatten(config.shapes())
  rng = np.random.RandomState(0)
  one = 0.0 if config.norm_plus_one else 1.0
  return jax.tree.unflatten(
    tree,
    [
      jnp.asarray(
        0.3 * rng.standard_normal(leaf.shape) + one * (leaf.ndim < 3),
        jnp.float32,
      )
      for leaf in leaves
    ],
  )


def located(path):
  return refs.Located(str(path), "gguf", pathlib.Path(path))


@each_config
def test_round_trip(name, tmp_path):
  config, path = CONFIGS[name], tmp_path / "model.gguf"
  params = random_params(config)
  weights.save_gguf(path, config, params, TOKENIZER, kind="f32")
  again, back = weights.load(located(path))
  assert (again.windows, again.layer_ropes) == (
    config.windows,
    config.layer_ropes,
  )
  # Norms of Gemma gain and lose a one; everything else comes back as it was.
  tolerance = 1e-6 if config.norm_plus_one else 0
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance, rtol=0),
    params,
    back,
  )


@pytest.mark.parametrize(
  ("kind", "tolerance"), [("f16", 2**-11), ("q8_0", 1 / 127)]
)
def test_smaller_kinds(kind, tolerance, tmp_path):
  path = tmp_path / "model.gguf"
  params = random_params(LLAMA)
  weights.save_gguf(path, LLAMA, params, TOKENIZER, kind=kind)
  _, back = weights.load(located(path))

  def close(a, b):
    assert np.abs(a - b).max() <= tolerance * np.abs(a).max()

  jax.tree.map(close, params, back)
  np.testing.assert_array_equal(params["norm"]["scale"], back["norm"]["scale"])


def test_file_is_well_formed(tmp_path):
  """The library's own reader, which shares nothing with ours, reads it."""
  import gguf

  path = tmp_path / "model.gguf"
  weights.save_gguf(path, LLAMA, random_params(LLAMA), TOKENIZER, kind="q8_0")
  reader = gguf.GGUFReader(path)
  assert reader.fields["general.architecture"].contents() == "llama"
  assert reader.fields["llama.attention.head_count_kv"].contents() == 2
  assert reader.fields["tokenizer.ggml.merges"].contents() == ["a b", "c d"]
  assert reader.fields["tokenizer.ggml.add_bos_token"].contents() is False
  assert "general.name" not in reader.fields
  kinds = {t.name: t.tensor_type.name for t in reader.tensors}
  assert kinds["blk.0.attn_q.weight"] == "Q8_0"
  assert kinds["blk.2.attn_norm.weight"] == "F32"
  assert path.stat().st_size % gguf_file.read_header(path).alignment == 0


def test_experts_of_a_layer_are_one_tensor(tmp_path):
  import gguf

  path, params = tmp_path / "model.gguf", random_params(QWEN3MOE)
  weights.save_gguf(path, QWEN3MOE, params, TOKENIZER, kind="q8_0")
  names = gguf.MODEL_TENSORS[gguf.MODEL_ARCH.QWEN3MOE]
  known = {gguf.TENSOR_NAMES[n].format(bid=1) + ".weight" for n in names}
  reader = gguf.GGUFReader(path)
  found = {t.name: t for t in reader.tensors}
  assert {n for n in found if n.startswith("blk.1.")} <= known
  gate = found["blk.1.ffn_gate_exps.weight"]
  assert (gate.tensor_type.name, gate.shape.tolist()) == ("Q8_0", [32, 32, 6])
  assert found["blk.1.ffn_gate_inp.weight"].tensor_type.name == "F32"
  for key, value in (
    (gguf.Keys.LLM.EXPERT_COUNT, 6),
    (gguf.Keys.LLM.EXPERT_USED_COUNT, 2),
    (gguf.Keys.LLM.EXPERT_FEED_FORWARD_LENGTH, 32),
  ):
    assert reader.fields[key.format(arch="qwen3moe")].contents() == value
  _, back = weights.load(located(path))
  kernel = params["segment_0"]["mlp"]["down"]["kernel"]
  gap = np.abs(kernel - back["segment_0"]["mlp"]["down"]["kernel"])
  assert gap.max() <= np.abs(kernel).max() / 127


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (
      {
        "segments": (Segment.uniform(1), Segment.uniform(2, sparse=True)),
        "experts": Mixture(4, 2, 16),
      },
      "sparse_layers",
    ),
    (
      {
        "qk_norm": True,
        "segments": (Segment.uniform(3, sparse=True),),
        "experts": Mixture(4, 2, 16, renormalise=False),
      },
      "qwen3moe, differs in mixture",
    ),
    ({"segments": (Segment.uniform(3, window=4),)}, "windows"),
    ({"post_norms": True}, "post_norms"),
    ({"query_scale": 0.5}, "score_scale"),
    ({"qkv_bias": True, "qk_norm": True}, "qk"),
    ({"ropes": (Rope(1e4, "llama3", 8.0, 1.0, 2.0),)}, "Llama 3"),
  ],
)
def test_refuses_what_gguf_cannot_say(change, message, tmp_path):
  config = dataclasses.replace(LLAMA, head_dim=16, **change)
  with pytest.raises(UserError, match=message):
    weights.save_gguf(
      tmp_path / "model.gguf", config, random_params(config), TOKENIZER
    )
  assert not list(tmp_path.iterdir())


def test_refuses_to_overwrite_and_bad_input(tmp_path):
  path, params = tmp_path / "model.gguf", random_params(LLAMA)
  with pytest.raises(UserError, match="0 tokens and the model 64"):
    weights.save_gguf(path, LLAMA, params, {})
  params["embedding"]["weight"] = params["embedding"]["weight"] * 1e6
  with pytest.raises(UserError, match=r"token_embd\.weight.*float16"):
    weights.save_gguf(path, LLAMA, params, TOKENIZER)
  assert not list(tmp_path.iterdir())
  path.touch()
  with pytest.raises(UserError, match="exists already"):
    weights.save_gguf(path, LLAMA, params, TOKENIZER, kind="f32")


# The reader of transformers knows nothing of rope factors and of linear
# scaling, and takes what a family's best-known model has for the query scale,
# the caps, the size of a head and the width of experts.
READABLE = {
  "llama": {},
  "qwen2": {},
  "qwen3": {"head_dim": 128},
  "qwen3moe": {"head_dim": 128, "experts": Mixture(6, 2, 768)},
  "gemma2": {
    "head_dim": 256,
    "attention_soft_cap": 50.0,
    "final_soft_cap": 30.0,
  },
  "gemma3": {"head_dim": 256, "ropes": (Rope(1000.0), Rope(10_000.0))},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", READABLE)
def test_transformers_reads_it(name, tmp_path):
  torch = pytest.importorskip("torch")
  pytest.importorskip("accelerate")
  import transformers

  config = dataclasses.replace(CONFIGS[name], **READABLE[name])
  params = random_params(config)
  weights.save_gguf(
    tmp_path / "model.gguf", config, params, TOKENIZER, kind="f32"
  )
  model = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path,
    gguf_file="model.gguf",
    dtype=torch.float32,
    attn_implementation="eager",
  )
  ids = np.random.RandomState(1).randint(0, VOCAB, (1, 24))
  with torch.no_grad():
    expected = model(torch.from_numpy(ids)).logits.numpy()
  view = types.Tokens(
    tokens=jnp.asarray(ids, jnp.int32),
    targets=jnp.asarray(ids, jnp.int32),
    mask=jnp.ones((1, 24)),
    positions=jnp.arange(24)[None],
    segment_ids=jnp.ones((1, 24), jnp.int32),
  )
  found = config.bind(params)(view).logits
  np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-5)
