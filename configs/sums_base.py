# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A decoder learns sums, and to read demonstrations: the base of other runs.

jdistill train configs/sums_base.py

Half of the documents are sums, half are sums or differences whose prompt shows
the answer. So the base adds, does not subtract, and copies what it is shown.
Then configs/sdft_sums.py teaches it to subtract.
"""

import dataclasses

from jdistill import beds, config, methods, optim, rollout, schedules

SUMS = beds.Arithmetic()
SHOWN = beds.Demonstrated(beds.Arithmetic(operations="+-"))
BED = beds.Mixed({"sums": SUMS, "shown": SHOWN})
LESSON = beds.Lesson(
  BED,
  prompt_tokens=16,
  max_new_tokens=4,
  num_documents=20_000,
  batch_size=128,
)


def get_config() -> config.Config:
  decoder = beds.small_decoder(BED.vocab_size, width=64, num_layers=2)
  written = rollout.Student(LESSON.greedy)
  judged = {
    "sums": SUMS,
    "shown": beds.Demonstrated(beds.Arithmetic(operations="-")),
    "unseen": beds.Arithmetic(operations="-"),
  }
  return config.Config(
    student=config.Fresh(decoder),
    method=methods.CrossEntropy(),
    data=LESSON.prompts(),
    evals={
      name: dataclasses.replace(LESSON, bed=bed).heldout()
      for name, bed in judged.items()
    },
    eval_rollouts=dict.fromkeys(judged, written),
    reward=rollout.ExactMatch(),
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=3e-3, warmup=100)),
    steps=1500,
    eval_every=500,
    save_every=1500,
  )
