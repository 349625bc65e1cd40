# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""SeqKD on sums whose labels are partly wrong: the teacher's answers instead.

jdistill train configs/sums_teacher.py
jdistill train configs/seqkd_sums.py

30 % of the documents have a wrong answer. The student learns by cross entropy
the answers that the teacher writes to their prompts, each prompt always the
same one. Arms: the documents as they are (`--rollout.parts.teacher.share 0
--rollout.parts.dataset.share 1`), and with that the teacher's distributions on
them (`--method.parts.ce.weight 0 --method.parts.kd.weight 1`). `own/reward` is
the share of right greedy answers to prompts that nobody has seen.
"""

from jdistill import beds, config, methods, optim, rollout, schedules

SUMS = beds.Arithmetic(label_noise=0.3)
LESSON = beds.Lesson(
  SUMS, prompt_tokens=6, max_new_tokens=4, num_documents=6_000, batch_size=64
)


def get_config() -> config.Config:
  student = beds.small_decoder(SUMS.vocab_size, width=48, num_layers=2)
  writers = {
    "teacher": rollout.Part(
      rollout.Teacher(LESSON.greedy, anew=False), share=1.0
    ),
    "dataset": rollout.Part(rollout.Dataset(), share=0.0),
  }
  parts = {
    "ce": methods.Part(methods.CrossEntropy(), 1.0),
    "kd": methods.Part(methods.KD(), 0.0),
  }
  return config.Config(
    student=config.Fresh(student),
    teachers={"teacher": config.Teacher("runs/sums_teacher@last")},
    method=methods.Sum(parts),
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
