# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Two stages: an assistant learns from the teacher, a small student from it.

jdistill train configs/assistant.py
jdistill train configs/assistant.py --seed 1 --small.steps 800

Teacher assistants: Mirzadeh et al., 2020, arXiv:1902.03393. The teacher is a
Markov chain, which is the first teacher of both: `eval/kl` is the distance to
the truth. `jdistill evaluate runs/assistant/assistant` judges the assistant.
"""

import dataclasses

from jdistill import beds, config, methods, models, optim, schedules

CHAIN = beds.MarkovChain(vocab_size=16, order=2, concentration=0.3)
DATA = beds.BedData(CHAIN, num_documents=512, seq_len=64, batch_size=16)


def decoder(width: int, layers: int) -> models.DecoderConfig:
  return models.DecoderConfig(
    vocab_size=CHAIN.vocab_size,
    width=width,
    mlp_width=4 * width,
    num_heads=2,
    num_kv_heads=2,
    head_dim=width // 2,
    segments=(models.Segment.uniform(layers),),
    ropes=(models.Rope(theta=10_000.0),),
  )


def get_config() -> config.Stages:
  assistant = config.Config(
    student=config.Fresh(decoder(32, 2)),
    teachers={"teacher": config.Teacher(architecture=CHAIN)},
    method=methods.KD(),
    data=DATA,
    evals={"eval": dataclasses.replace(DATA, part="heldout")},
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=3e-3, warmup=20)),
    steps=400,
    eval_every=100,
    save_every=200,
    select="eval/kl",
  )
  small = dataclasses.replace(
    assistant,
    student=config.Fresh(decoder(16, 1)),
    teachers={
      "truth": config.Teacher(architecture=CHAIN),
      "teacher": config.Teacher("stage:assistant"),
    },
  )
  return config.Stages({"assistant": assistant, "small": small})
