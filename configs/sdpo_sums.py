# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""SDPO on sums: of eight answers to a prompt, those that are right teach.

jdistill train configs/sums_base.py --steps 600
jdistill train configs/sdpo_sums.py

The student is half-way to adding, and copies what it is shown. The teacher is
an average of the student itself. It reads each answer after the prompt, another
answer of the group that was right, and the prompt again. Arms: GRPO by the same
rewards (`--method.parts.rl.weight 1 --method.parts.self.weight 0`), or weights
in between, which mix the two. `own/reward` is the share of right greedy answers
to prompts that nobody has seen, `shown/reward` that of differences whose answer
is shown.
"""

import dataclasses

from jdistill import beds, config, methods, optim, rollout, schedules

SUMS = beds.Lesson(
  beds.Arithmetic(),
  prompt_tokens=6,
  max_new_tokens=4,
  num_documents=6_000,
  batch_size=32,
)
SHOWN = dataclasses.replace(
  SUMS,
  bed=beds.Demonstrated(beds.Arithmetic(operations="-")),
  prompt_tokens=16,
)


def get_config() -> config.Config:
  method = methods.SelfDistillation(rows="told", support="full")
  parts = {
    "rl": methods.Part(methods.GRPO(), 0.0),
    "self": methods.Part(method, 1.0),
  }
  written = rollout.Student(SUMS.greedy)
  return config.Config(
    student=config.Pretrained("runs/sums_base@last"),
    teachers={"teacher": config.Teacher("ema")},
    ema=0.95,
    method=methods.Sum(parts),
    data=SUMS.prompts(),
    group_size=8,
    rollout=rollout.Reprompted(
      rollout.Student(SUMS.sampling), prompt_tokens=16
    ),
    evals={"own": SUMS.heldout(), "shown": SHOWN.heldout()},
    eval_rollouts={"own": written, "shown": written},
    reward=rollout.ExactMatch(),
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=1e-3, warmup=20)),
    steps=300,
    eval_every=100,
    save_every=300,
  )
