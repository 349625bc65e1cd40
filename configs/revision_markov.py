# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Multi-granularity revision: corrected answers, a gate, relations in spans.

jdistill train configs/markov_reader.py
jdistill train configs/revision_markov.py

The student writes; of each answer the teacher corrects the token where they
differ most, and the student writes on from there. DAC-KL learns from the part
of the vocabulary that a gate lets through; the span loss compares neighbours in
a word, words being what stands between the symbols 0 and 1. Arms: forward KL on
the student's text (`--rollout.writer.parts.revised.share 0
--rollout.writer.parts.student.share 1`, `--method.parts.NAME.weight` 1 for kl
and 0 for dac and span), and each of the three added to it alone.
"""

from jdistill import beds, config, methods, optim, rollout, schedules

CHAIN = beds.MarkovChain(vocab_size=16, order=2, concentration=0.1)
LESSON = beds.Lesson(CHAIN, prompt_tokens=4, max_new_tokens=20)


def get_config() -> config.Config:
  student = rollout.Student(LESSON.sampling)
  writers = {
    "revised": rollout.Part(rollout.Revised(student), share=1.0),
    "student": rollout.Part(student, share=0.0),
  }
  parts = {
    "kl": methods.Part(methods.KD("forward_kl"), 0.0),
    "dac": methods.Part(methods.DACKL(top=16), 1.0),
    "span": methods.Part(methods.SpanLoss(), 1.0),
  }
  return config.Config(
    student=config.Pretrained("runs/markov_reader@last"),
    teachers={"teacher": config.Teacher(architecture=CHAIN)},
    method=methods.Sum(parts),
    data=LESSON.prompts(),
    rollout=rollout.Spanned(rollout.Mixture(writers), between=(0, 1)),
    evals={"eval": LESSON.heldout(), "own": LESSON.heldout()},
    eval_rollouts={"own": rollout.Student(LESSON.sampling)},
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=1e-2, warmup=20)),
    steps=200,
    eval_every=200,
    save_every=200,
  )
