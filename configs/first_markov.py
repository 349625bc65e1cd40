# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""FIRST: five ids of a teacher who is too sure, recalibrated.

jdistill train configs/first_teacher.py
jdistill cache configs/first_markov.py --to runs/cache/first \\
  --format top_k:5 --calibrate
jdistill train configs/first_markov.py

The second command finds the temperature. Judged by the calibration error
`eval/ece` and by `eval/trust`, accuracy less this. Arms by the weights of
`--method.parts`: cross entropy, and KD, which with `--teachers.teacher.cache
None --teachers.teacher.rest None` sees the whole teacher.
"""

import dataclasses

from jdistill import beds, config, methods, optim, schedules

CHAIN = beds.MarkovChain(vocab_size=16, order=2, concentration=0.1)
DATA = beds.BedData(CHAIN, num_documents=1024, seq_len=32, batch_size=32)


def get_config() -> config.Config:
  student = beds.small_decoder(CHAIN.vocab_size, width=32, num_layers=1)
  teacher = config.Teacher(
    "runs/first_teacher", cache="runs/cache/first", rest="renormalise_both"
  )
  return config.Config(
    student=config.Fresh(student),
    teachers={"teacher": teacher},
    method=methods.Sum(
      {
        "first": methods.Part(methods.FIRST(temperature=1.427)),
        "kd": methods.Part(methods.KD(), 0.0),
        "ce": methods.Part(methods.CrossEntropy(), 0.0),
      }
    ),
    data=DATA,
    evals={"eval": dataclasses.replace(DATA, part="heldout", batch_size=128)},
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=1e-2, warmup=20)),
    steps=400,
    eval_every=400,
    save_every=400,
  )
