# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Three stages, of whose first teacher nothing is there but its shape."""

import dataclasses

from jdistill import beds, config, methods, models

CHAIN = beds.MarkovChain(vocab_size=8, order=1)


def decoder(layers: int) -> models.DecoderConfig:
  return models.DecoderConfig(
    vocab_size=8,
    width=16,
    mlp_width=32,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    segments=(models.Segment.uniform(layers),),
  )


def get_config() -> config.Stages:
  first = config.Config(
    student=config.Cut(4),
    teachers={
      "teacher": config.Teacher("hf:no/where", architecture=decoder(6))
    },
    method=methods.KD(),
    data=beds.BedData(CHAIN, num_documents=64, seq_len=16, batch_size=8),
    steps=4,
  )
  adapted = dataclasses.replace(
    first,
    student=config.Lora(config.Pretrained("stage:first"), rank=2),
    teachers={
      "teacher": config.Teacher("stage:first"),
      "before": config.Teacher("init"),
    },
  )
  last = dataclasses.replace(
    first,
    student=config.Cut(2, ref="stage:adapted"),
    teachers={"teacher": config.Teacher("stage:adapted", weights="int8")},
  )
  return config.Stages({"first": first, "adapted": adapted, "last": last})
