# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A decoder learns sums of two numbers: the teacher of other runs.

jdistill train configs/sums_teacher.py

`own/reward` is the share of sums that nobody has seen which it answers right,
greedily. Then configs/seqkd_sums.py, imitkd_sums.py and kdrl_sums.py distil it.
"""

from jdistill import beds, config, methods, optim, rollout, schedules

SUMS = beds.Arithmetic()
LESSON = beds.Lesson(
  SUMS,
  prompt_tokens=6,
  max_new_tokens=4,
  num_documents=20_000,
  batch_size=128,
)


def get_config() -> config.Config:
  decoder = beds.small_decoder(SUMS.vocab_size, width=64, num_layers=2)
  return config.Config(
    student=config.Fresh(decoder),
    method=methods.CrossEntropy(),
    data=LESSON.prompts(),
    evals={"own": LESSON.heldout()},
    eval_rollouts={"own": rollout.Student(LESSON.greedy)},
    reward=rollout.ExactMatch(),
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=3e-3, warmup=100)),
    steps=1500,
    eval_every=500,
    save_every=1500,
  )
