# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A pair that is small enough to plan in seconds."""

from jdistill import config, data, methods, sharding
from jdistill.models import DecoderConfig, Segment

VOCAB, T, ROWS = 16_384, 256, 8


def decoder(width: int, layers: int) -> DecoderConfig:
  return DecoderConfig(
    vocab_size=VOCAB,
    width=width,
    mlp_width=2 * width,
    num_heads=2,
    num_kv_heads=1,
    head_dim=128,
    segments=(Segment.uniform(layers),),
  )


STUDENT, TEACHER = decoder(128, 2), decoder(256, 3)


def get_config() -> config.Config:
  return config.Config(
    student=config.Fresh(STUDENT),
    teachers={
      "teacher": config.Teacher(architecture=TEACHER, dtype="bfloat16")
    },
    method=methods.KD(),
    data=data.TextData(seq_len=T, batch_size=ROWS),
    dtype="bfloat16",
    steps=1000,
    mesh=sharding.MeshShape(data=1),
  )
