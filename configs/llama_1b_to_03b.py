# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Llama 3.2 1B teaches a student of 0.3 B, drawn at random, on 4 TPU v5e chips.

jdistill plan configs/llama_1b_to_03b.py --topology v5e:2x2
jdistill train configs/llama_1b_to_03b.py --workdir gs://BUCKET/llama_1b_to_03b

Rows of 4,096 tokens, 65,536 tokens a step; teacher in bfloat16, student
computed in bfloat16 with float32 weights and AdamW moments. The teacher is
gated: accept its licence and set HF_TOKEN.
"""

from jdistill import config, data, methods, optim, schedules, sharding
from jdistill.models import DecoderConfig, Rope, Segment

TEXT = "hf:HuggingFaceFW/fineweb-edu/sample/10BT/*.parquet"
VOCAB, CONTEXT = 128_256, 4096


ROPE = Rope(theta=500_000.0, scaling="llama3", factor=32.0)
TEACHER = DecoderConfig(
  vocab_size=VOCAB,
  width=2048,
  mlp_width=8192,
  num_heads=32,
  num_kv_heads=8,
  head_dim=64,
  segments=(Segment.uniform(16),),
  ropes=(ROPE,),
  context_length=131_072,
)
STUDENT = DecoderConfig(
  vocab_size=VOCAB,
  width=1024,
  mlp_width=4096,
  num_heads=16,
  num_kv_heads=4,
  head_dim=64,
  segments=(Segment.uniform(12),),
  ropes=(ROPE,),
  context_length=CONTEXT,
)


def get_config() -> config.Config:
  return config.Config(
    student=config.Fresh(STUDENT),
    teachers={
      "teacher": config.Teacher(
        "hf:meta-llama/Llama-3.2-1B", dtype="bfloat16", architecture=TEACHER
      )
    },
    method=methods.KD(),
    data=data.TextData(
      (data.Source(TEXT, split="[:99%]"),), seq_len=CONTEXT, batch_size=16
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
      lr=schedules.WarmupDecay(peak=3e-4, warmup=500), weight_decay=0.1
    ),
    dtype="bfloat16",
    remat="full",
    mesh=sharding.MeshShape(data=1, fsdp=4, tensor=1),
    steps=20_000,
    eval_every=1000,
    save_every=500,
  )
