# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""KDRL on sums: rewards say which answers are right, the teacher which tokens.

jdistill train configs/sums_teacher.py
jdistill train configs/sums_beginner.py
jdistill train configs/kdrl_sums.py

The student, which has begun to learn sums, writes eight answers to each prompt.
Arms: GRPO alone (`--method.parts.kd.weight 0`) and the teacher alone (KD-RKL,
`--method.parts.rl.weight 0`). `own/reward` is the share of right greedy answers
to prompts that nobody has seen.
"""

from jdistill import beds, config, methods, optim, rollout, schedules

SUMS = beds.Arithmetic()
LESSON = beds.Lesson(
  SUMS, prompt_tokens=6, max_new_tokens=4, num_documents=6_000, batch_size=16
)


def get_config() -> config.Config:
  parts = {
    "rl": methods.Part(methods.GRPO(), 1.0),
    "kd": methods.Part(methods.OnPolicyDistillation("k2"), 0.1),
  }
  return config.Config(
    student=config.Pretrained("runs/sums_beginner@last"),
    teachers={"teacher": config.Teacher("runs/sums_teacher@last")},
    method=methods.Sum(parts),
    data=LESSON.prompts(),
    group_size=8,
    rollout=rollout.Student(LESSON.sampling),
    evals={"own": LESSON.heldout()},
    eval_rollouts={"own": rollout.Student(LESSON.greedy)},
    reward=rollout.ExactMatch(),
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=3e-3, warmup=20)),
    steps=300,
    eval_every=300,
    save_every=300,
  )
