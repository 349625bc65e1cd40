# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A small decoder begins to learn sums: the student of other runs.

jdistill train configs/sums_beginner.py

It is often wrong. Then configs/kdrl_sums.py goes on.
"""

from jdistill import beds, config, methods, optim, rollout, schedules

SUMS = beds.Arithmetic()
LESSON = beds.Lesson(
  SUMS,
  prompt_tokens=6,
  max_new_tokens=4,
  num_documents=6_000,
  batch_size=64,
)


def get_config() -> config.Config:
  decoder = beds.small_decoder(SUMS.vocab_size, width=48, num_layers=2)
  return config.Config(
    student=config.Fresh(decoder),
    method=methods.CrossEntropy(),
    data=LESSON.prompts(),
    evals={"own": LESSON.heldout()},
    eval_rollouts={"own": rollout.Student(LESSON.greedy)},
    reward=rollout.ExactMatch(),
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=3e-3, warmup=20)),
    steps=500,
    eval_every=250,
    save_every=500,
  )
