# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A Markov chain, known exactly, is learnt from a teacher that errs.

jdistill train configs/markov.py

The teacher is the chain with a share of another one mixed in. `eval/kl` is the
KL to the first teacher, which here is the chain itself: the distance to the
truth, not to what the student is taught.
"""

import dataclasses

from jdistill import beds, config, methods, models, optim, schedules

ORACLE = beds.MarkovChain(vocab_size=16, order=2, concentration=0.3)
NOISY = dataclasses.replace(ORACLE, noise=0.2)
DATA = beds.BedData(ORACLE, num_documents=512, seq_len=64, batch_size=16)


def get_config() -> config.Config:
  student = models.DecoderConfig(
    vocab_size=ORACLE.vocab_size,
    width=32,
    mlp_width=128,
    num_heads=2,
    num_kv_heads=2,
    head_dim=16,
    segments=(models.Segment.uniform(2),),
    ropes=(models.Rope(theta=10_000.0),),
  )
  return config.Config(
    student=config.Fresh(student),
    teachers={
      "oracle": config.Teacher(architecture=ORACLE),
      "teacher": config.Teacher(architecture=NOISY),
    },
    method=methods.KD(),
    data=DATA,
    evals={"eval": dataclasses.replace(DATA, part="heldout")},
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=3e-3, warmup=20)),
    steps=400,
    eval_every=100,
    save_every=200,
  )
