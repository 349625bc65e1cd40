# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""DistiLLM-2: forward on the teacher's answers, reverse on the student's.

jdistill train configs/markov_reader.py
jdistill train configs/distillm2_markov.py

Each update has two answers to each prompt. Arms: the roles swapped, so that the
teacher's answers are learnt by the reverse divergence
(`--rollout.writer.parts.student.share 0 --rollout.writer.parts.teacher.share 1
--rollout.other.parts.student.share 1 --rollout.other.parts.teacher.share 0`);
the teacher's answers alone (`--method.beta 0`), or the student's
(`--method.beta 2`).
"""

from jdistill import beds, config, methods, optim, rollout, schedules

CHAIN = beds.MarkovChain(vocab_size=16, order=2, concentration=0.1)
LESSON = beds.Lesson(CHAIN, prompt_tokens=4, max_new_tokens=20)


def get_config() -> config.Config:
  student = rollout.Student(LESSON.sampling)
  teacher = rollout.Teacher(LESSON.sampling, anew=False)
  own = {
    "student": rollout.Part(student, share=1.0),
    "teacher": rollout.Part(teacher, share=0.0),
  }
  theirs = {
    "student": rollout.Part(student, share=0.0),
    "teacher": rollout.Part(teacher, share=1.0),
  }
  pairs = rollout.Beside(rollout.Mixture(own), rollout.Mixture(theirs))
  return config.Config(
    student=config.Pretrained("runs/markov_reader@last"),
    teachers={"teacher": config.Teacher(architecture=CHAIN)},
    method=methods.DistiLLM2(),
    data=LESSON.prompts(),
    rollout=pairs,
    evals={"eval": LESSON.heldout(), "own": LESSON.heldout()},
    eval_rollouts={"own": rollout.Student(LESSON.sampling)},
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=1e-2, warmup=20)),
    steps=200,
    eval_every=200,
    save_every=200,
  )
