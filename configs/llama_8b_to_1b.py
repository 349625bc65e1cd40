# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Llama 3.1 8B teaches Llama 3.2 1B on web text, on 16 TPU v5e chips.

jdistill plan configs/llama_8b_to_1b.py --topology v5e:4x4
jdistill train configs/llama_8b_to_1b.py --workdir gs://BUCKET/llama_8b_to_1b

Rows of 4,096 tokens, 131,072 tokens a step; teacher in bfloat16, student
computed in bfloat16 with float32 weights and AdamW moments. The models are
gated: accept their licence and set HF_TOKEN.
"""

from jdistill import config, data, methods, optim, schedules, sharding
from jdistill.models import DecoderConfig, Rope, Segment

TEXT = "hf:HuggingFaceFW/fineweb-edu/sample/10BT/*.parquet"
VOCAB, CONTEXT = 128_256, 4096


def rope(factor: float) -> Rope:
  return Rope(theta=500_000.0, scaling="llama3", factor=factor)


TEACHER = DecoderConfig(
  vocab_size=VOCAB,
  width=4096,
  mlp_width=14_336,
  num_heads=32,
  num_kv_heads=8,
  head_dim=128,
  segments=(Segment.uniform(32),),
  ropes=(rope(8.0),),
  tied=False,
  context_length=131_072,
)
STUDENT = DecoderConfig(
  vocab_size=VOCAB,
  width=2048,
  mlp_width=8192,
  num_heads=32,
  num_kv_heads=8,
  head_dim=64,
  segments=(Segment.uniform(16),),
  ropes=(rope(32.0),),
  context_length=131_072,
)


def get_config() -> config.Config:
  return config.Config(
    student=config.Pretrained("hf:meta-llama/Llama-3.2-1B", STUDENT),
    teachers={
      "teacher": config.Teacher(
        "hf:meta-llama/Llama-3.1-8B", dtype="bfloat16", architecture=TEACHER
      )
    },
    method=methods.KD(),
    data=data.TextData(
      (data.Source(TEXT, split="[:99%]"),), seq_len=CONTEXT, batch_size=32
    ),
    evals={
      "eval": data.TextData(
        (data.Source(TEXT, split="[99%:]"),),
        seq_len=CONTEXT,
        batch_size=16,
        epochs=1,
      )
    },
    optimizer=optim.AdamW(
      lr=schedules.WarmupDecay(peak=1e-4, warmup=500), weight_decay=0.1
    ),
    dtype="bfloat16",
    remat="full",
    mesh=sharding.MeshShape(data=1, fsdp=16, tensor=1),
    steps=20_000,
    eval_every=1000,
    save_every=500,
  )
