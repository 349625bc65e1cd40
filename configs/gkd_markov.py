# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""GKD where everything is known: half of the batches are the student's own.

jdistill train configs/markov_reader.py
jdistill train configs/gkd_markov.py

Teacher and text are a Markov chain; the student has read the text and is too
small for all of it. `own/reverse_kl` is the reverse KL on what the student
writes itself to held-out prompts, `eval/kl` the forward KL on the chain's text.
Arms: the dataset's answers alone (supervised KD),
`--rollout.parts.student.share 0`; the student's alone,
`--rollout.parts.dataset.share 0`.
"""

from jdistill import beds, config, methods, optim, rollout, schedules

CHAIN = beds.MarkovChain(vocab_size=16, order=2, concentration=0.1)
LESSON = beds.Lesson(CHAIN, prompt_tokens=4, max_new_tokens=20)


def get_config() -> config.Config:
  writers = {
    "student": rollout.Part(rollout.Student(LESSON.sampling), share=0.5),
    "dataset": rollout.Part(rollout.Dataset(), share=0.5),
  }
  return config.Config(
    student=config.Pretrained("runs/markov_reader@last"),
    teachers={"teacher": config.Teacher(architecture=CHAIN)},
    method=methods.JSD(beta=0.5),
    data=LESSON.prompts(),
    rollout=rollout.Mixture(writers),
    evals={"eval": LESSON.heldout(), "own": LESSON.heldout()},
    eval_rollouts={"own": rollout.Student(LESSON.sampling)},
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=1e-2, warmup=20)),
    steps=200,
    eval_every=200,
    save_every=200,
  )
