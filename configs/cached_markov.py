# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A chain of many ids is learnt from a teacher who has spoken before.

jdistill cache configs/cached_markov.py --teacher teacher \\
  --to runs/cache/top_8 --format top_k:8
jdistill train configs/cached_markov.py --teachers.teacher.cache \\
  runs/cache/top_8 --teachers.teacher.rest renormalise

Without a cache the teacher is asked in the step. The teacher is right, as
`oracle` is, which `eval/kl` compares with; `eval/ece` says how far the
student's confidence is from its accuracy.
"""

import dataclasses

from jdistill import beds, config, methods, optim, schedules

CHAIN = beds.MarkovChain(vocab_size=64, order=1, concentration=0.3)
DATA = beds.BedData(CHAIN, num_documents=1024, seq_len=32, batch_size=32)


def get_config() -> config.Config:
  student = beds.small_decoder(CHAIN.vocab_size, width=64, num_layers=1)
  return config.Config(
    student=config.Fresh(student),
    teachers={
      "oracle": config.Teacher(architecture=CHAIN),
      "teacher": config.Teacher(architecture=CHAIN),
    },
    method=methods.KD(),
    data=DATA,
    evals={"eval": dataclasses.replace(DATA, part="heldout", batch_size=128)},
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=1e-2, warmup=20)),
    steps=400,
    eval_every=400,
    save_every=400,
  )
