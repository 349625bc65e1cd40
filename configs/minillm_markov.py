# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""MiniLLM: reverse KL of whole answers, from a student that has read the text.

jdistill train configs/markov_reader.py
jdistill train configs/minillm_markov.py

Answers are drawn from 0.2 p + 0.8 q. Arms: without the single-step term
(`--method.parts.minillm.method.single-step 0`), without the teacher's help in
writing (`--rollout.parts.blend.share 0 --rollout.parts.student.share 1`), the
single-step term alone (`--method.parts.minillm.weight 0
--method.parts.reverse_kl.weight 1`), and supervised KD (`forward_kl` alone and
the writer `dataset` alone).
"""

from jdistill import beds, config, methods, optim, rollout, schedules

CHAIN = beds.MarkovChain(vocab_size=16, order=2, concentration=0.1)
LESSON = beds.Lesson(CHAIN, prompt_tokens=4, max_new_tokens=20)


def get_config() -> config.Config:
  writers = {
    "blend": rollout.Part(rollout.Blend(LESSON.sampling), share=1.0),
    "student": rollout.Part(rollout.Student(LESSON.sampling), share=0.0),
    "dataset": rollout.Part(rollout.Dataset(), share=0.0),
  }
  parts = {
    "minillm": methods.Part(methods.MiniLLM(), 1.0),
    "reverse_kl": methods.Part(methods.KD("reverse_kl"), 0.0),
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
    eval_every=200,
    save_every=200,
  )
