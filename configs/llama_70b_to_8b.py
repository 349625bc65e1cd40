# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Llama 3.1 70B teaches Llama 3.1 8B on web text, on 256 TPU v5p chips.

jdistill plan configs/llama_70b_to_8b.py --topology v5p:4x8x8
jdistill train configs/llama_70b_to_8b.py --workdir gs://BUCKET/llama_70b_to_8b

Rows of 4,096 tokens, 1,048,576 tokens a step; teacher in bfloat16, student
computed in bfloat16 with float32 weights and AdamW moments. The models are
gated: accept their licence and set HF_TOKEN.
"""

from jdistill import config, data, methods, optim, schedules, sharding
from jdistill.models import DecoderConfig, Rope, Segment

TEXT = "hf:HuggingFaceFW/fineweb-edu/sample/10BT/*.parquet"
VOCAB, CONTEXT = 128_256, 4096


ROPE = Rope(theta=500_000.0, scaling="llama3", factor=8.0)
TEACHER = DecoderConfig(
  vocab_size=VOCAB,
  width=8192,
  mlp_width=28_672,
  num_heads=64,
  num_kv_heads=8,
  head_dim=128,
  segments=(Segment.uniform(80),),
  ropes=(ROPE,),
  tied=False,
  context_length=131_072,
)
STUDENT = DecoderConfig(
  vocab_size=VOCAB,
  width=4096,
  mlp_width=14_336,
  num_heads=32,
  num_kv_heads=8,
  head_dim=128,
  segments=(Segment.uniform(32),),
  ropes=(ROPE,),
  tied=False,
  context_length=131_072,
)


def get_config() -> config.Config:
  return config.Config(
    student=config.Pretrained("hf:meta-llama/Llama-3.1-8B", STUDENT),
    teachers={
      "teacher": config.Teacher(
        "hf:meta-llama/Llama-3.1-70B", dtype="bfloat16", architecture=TEACHER
      )
    },
    method=methods.KD(),
    data=data.TextData(
      (data.Source(TEXT, split="[:99%]"),), seq_len=CONTEXT, batch_size=256
    ),
    evals={
      "eval": data.TextData(
        (data.Source(TEXT, split="[99%:]"),),
        seq_len=CONTEXT,
        batch_size=256,
        epochs=1,
      )
    },
    optimizer=optim.AdamW(
      lr=schedules.WarmupDecay(peak=1e-4, warmup=500), weight_decay=0.1
    ),
    dtype="bfloat16",
    remat="full",
    # With fsdp 256 alone the TPU compiler sums where it could gather, and sends
    # 2.5 times the bytes between chips.
    mesh=sharding.MeshShape(data=1, fsdp=64, tensor=4),
    steps=20_000,
    eval_every=1000,
    save_every=500,
  )
