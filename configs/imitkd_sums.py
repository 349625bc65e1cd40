# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""ImitKD on sums: the teacher's distributions on more and more student text.

jdistill train configs/sums_teacher.py
jdistill train configs/imitkd_sums.py

30 % of the documents have a wrong answer. The share of batches that the student
writes grows from none to all over the run. Arms: the documents alone
(`--rollout.parts.student.share 0`, word-level KD). `own/reward` is the share of
right greedy answers to prompts that nobody has seen.
"""

from jdistill import beds, config, methods, optim, rollout, schedules

SUMS = beds.Arithmetic(label_noise=0.3)
LESSON = beds.Lesson(
  SUMS, prompt_tokens=6, max_new_tokens=4, num_documents=6_000, batch_size=64
)


def get_config() -> config.Config:
  student = beds.small_decoder(SUMS.vocab_size, width=48, num_layers=2)
  writers = {
    "dataset": rollout.Part(
      rollout.Dataset(), share=schedules.Linear(1.0, 0.0, steps=800)
    ),
    "student": rollout.Part(
      rollout.Student(LESSON.sampling),
      share=schedules.Linear(0.0, 1.0, steps=800),
    ),
  }
  return config.Config(
    student=config.Fresh(student),
    teachers={"teacher": config.Teacher("runs/sums_teacher@last")},
    method=methods.KD(),
    data=LESSON.prompts(),
    rollout=rollout.Mixture(writers),
    evals={"own": LESSON.heldout()},
    eval_rollouts={"own": rollout.Student(LESSON.greedy)},
    reward=rollout.ExactMatch(),
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=3e-3, warmup=20)),
    steps=800,
    eval_every=800,
    save_every=800,
  )
