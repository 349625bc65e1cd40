# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""On-policy distillation by sampled tokens, and by whole distributions.

jdistill train configs/markov_reader.py
jdistill train configs/on_policy_markov.py

The student goes on from what it writes itself: by policy gradient from one
number of the teacher for each token (importance; k2 by
`--method.parts.sampled.method.kind k2`), or by reverse KL over the vocabulary,
which has the same gradient on average without the noise of the draw
(`--method.parts.sampled.weight 0 --method.parts.reverse_kl.weight 1`). The
control is supervised: forward KL on the data's text (`forward_kl` alone and
`--rollout.parts.student.share 0 --rollout.parts.dataset.share 1`).
`own/reverse_kl` is what is to be small, on text that the student writes.
"""

from jdistill import beds, config, methods, optim, rollout, schedules

CHAIN = beds.MarkovChain(vocab_size=16, order=2, concentration=0.1)
LESSON = beds.Lesson(CHAIN, prompt_tokens=4, max_new_tokens=20)


def get_config() -> config.Config:
  writers = {
    "student": rollout.Part(rollout.Student(LESSON.sampling), share=1.0),
    "dataset": rollout.Part(rollout.Dataset(), share=0.0),
  }
  parts = {
    "sampled": methods.Part(methods.OnPolicyDistillation("importance"), 1.0),
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
