# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Llama 3.1 8B judges what Llama 3.2 1B writes, on 16 TPU v5e chips.

jdistill plan configs/llama_8b_to_1b_on_policy.py --topology v5e:4x4
jdistill train configs/llama_8b_to_1b_on_policy.py --workdir gs://BUCKET/RUN

Prompts of up to 512 tokens from chats, answers of up to 512, reverse KL over
the whole vocabulary. 256 answers a step; teacher in bfloat16, student computed
in bfloat16 with float32 weights and AdamW moments. The models are gated: accept
their licence and set HF_TOKEN.
"""

from jdistill import config, data, methods, optim, rollout, sampling, schedules
from jdistill import sharding as sharding_lib
from jdistill.models import DecoderConfig, Rope, Segment

CHATS = "hf:HuggingFaceH4/ultrachat_200k/data/train_sft-*.parquet"
VOCAB, PROMPT, ANSWER = 128_256, 512, 512


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


def prompts(split: str) -> data.Prompts:
  chats = data.TextData(
    (data.Source(CHATS, format="chat", split=split),),
    seq_len=PROMPT + ANSWER,
    packing="pad",
  )
  return data.Prompts(chats, prompt_tokens=PROMPT, batch_size=256)


def get_config() -> config.Config:
  written = sampling.Sampling(max_new_tokens=ANSWER)
  return config.Config(
    student=config.Pretrained("hf:meta-llama/Llama-3.2-1B-Instruct", STUDENT),
    teachers={
      "teacher": config.Teacher(
        "hf:meta-llama/Llama-3.1-8B-Instruct",
        dtype="bfloat16",
        architecture=TEACHER,
      )
    },
    method=methods.KD("reverse_kl"),
    data=prompts("[:99%]"),
    rollout=rollout.Student(written),
    # Gathered once for all tokens of a batch instead of once for each.
    rollout_rules={"embed": None},
    evals={"eval": prompts("[99%:]"), "own": prompts("[99%:]")},
    eval_rollouts={"own": rollout.Student(written)},
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=2e-6, warmup=50)),
    dtype="bfloat16",
    remat="full",
    mesh=sharding_lib.MeshShape(data=1, fsdp=16, tensor=1),
    steps=2000,
    eval_every=250,
    save_every=100,
  )
