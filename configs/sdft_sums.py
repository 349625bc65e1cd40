# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""SDFT: a decoder that adds learns to subtract from itself, shown the answers.

jdistill train configs/sums_base.py
jdistill train configs/sdft_sums.py

The student writes from the prompt alone; the teacher is the base, which reads
the answer's prompt after a demonstration. Arms: cross entropy on the
demonstrations (SFT: `--method.parts.sdft.weight 0 --method.parts.ce.weight 1`
and `--rollout.parts.told.share 0 --rollout.parts.dataset.share 1`).
`new/reward` is the share of right greedy differences, `old/reward` that of
sums, which nothing reminds it of.
"""

import dataclasses

from jdistill import beds, config, methods, optim, rollout, schedules

NEW = beds.Lesson(
  beds.Arithmetic(operations="-"),
  prompt_tokens=6,
  max_new_tokens=4,
  num_documents=6_000,
  batch_size=128,
)
OLD = dataclasses.replace(NEW, bed=beds.Arithmetic())


def get_config() -> config.Config:
  told = rollout.Privileged(rollout.Student(NEW.sampling))
  writers = {
    "told": rollout.Part(told, share=1.0),
    "dataset": rollout.Part(rollout.Dataset(), share=0.0),
  }
  method = methods.SelfDistillation(divergence="reverse_kl", support="full")
  parts = {
    "sdft": methods.Part(method, 1.0),
    "ce": methods.Part(methods.CrossEntropy(), 0.0),
  }
  written = rollout.Student(NEW.greedy)
  return config.Config(
    student=config.Pretrained("runs/sums_base@last"),
    teachers={"teacher": config.Teacher("init")},
    method=methods.Sum(parts),
    data=NEW.prompts(
      privileged="{prompt}{answer}{prompt}", privileged_tokens=16
    ),
    rollout=rollout.Mixture(writers),
    evals={"new": NEW.heldout(), "old": OLD.heldout()},
    eval_rollouts={"new": written, "old": written},
    reward=rollout.ExactMatch(),
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=1e-3, warmup=20)),
    steps=400,
    eval_every=100,
    save_every=400,
  )
