# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A decoder that has read little text too often: more sure than it is right.

jdistill train configs/first_teacher.py

The teacher of configs/first_markov.py.
"""

import dataclasses

from jdistill import beds, config, methods, optim, schedules

CHAIN = beds.MarkovChain(vocab_size=16, order=2, concentration=0.1)
DATA = beds.BedData(CHAIN, num_documents=1024, seq_len=32, batch_size=32)


def get_config() -> config.Config:
  student = beds.small_decoder(CHAIN.vocab_size, width=64, num_layers=2)
  return config.Config(
    student=config.Fresh(student),
    teachers={"teacher": config.Teacher(architecture=CHAIN)},
    method=methods.CrossEntropy(),
    data=DATA,
    evals={"eval": dataclasses.replace(DATA, part="heldout")},
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=3e-3, warmup=20)),
    steps=600,
    eval_every=200,
    save_every=600,
  )
