# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""DistiLLM: skewed reverse KL on the data's, fresh and kept answers.

jdistill train configs/markov_reader.py
jdistill train configs/distillm_markov.py

How often the student writes grows when an evaluation gets worse
(`AdaptiveReplay`; `margin` and `increment` suit a run of ten evaluations); what
it wrote is learnt from again. `generate_seconds` of the metrics is the time
that writing takes, which replay is to save. Arms: forward KL on the data's text
(`--method.parts.skew.weight 0 --method.parts.forward_kl.weight 1` and
`--rollout.parts.adaptive.share 0 --rollout.parts.dataset.share 1`), skewed KL
on the data's text, and on the student's alone (`student`).
"""

from jdistill import beds, config, methods, optim, rollout, schedules

CHAIN = beds.MarkovChain(vocab_size=16, order=2, concentration=0.1)
LESSON = beds.Lesson(CHAIN, prompt_tokens=4, max_new_tokens=20)


def get_config() -> config.Config:
  student = rollout.Student(LESSON.sampling)
  adaptive = rollout.AdaptiveReplay(
    student, capacity=320, metric="eval/ce", margin=0.0, increment=0.2
  )
  writers = {
    "adaptive": rollout.Part(adaptive, share=1.0),
    "student": rollout.Part(student, share=0.0),
    "dataset": rollout.Part(rollout.Dataset(), share=0.0),
  }
  parts = {
    "skew": methods.Part(methods.SkewKL("reverse", skew=0.1), 1.0),
    "forward_kl": methods.Part(methods.KD("forward_kl"), 0.0),
  }
  return config.Config(
    student=config.Pretrained("runs/markov_reader@last"),
    teachers={"teacher": config.Teacher(architecture=CHAIN)},
    method=methods.Sum(parts),
    data=LESSON.prompts(),
    rollout=rollout.Mixture(writers),
    evals={"eval": LESSON.heldout(), "own": LESSON.heldout()},
    eval_rollouts={"own": rollout.Student(LESSON.sampling)},
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=1e-2, warmup=20)),
    steps=200,
    eval_every=20,
    save_every=200,
  )
