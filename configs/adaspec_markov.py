# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""AdaSPEC: the draft learns the tokens that a reference has shown to learn.

jdistill train configs/markov_reader.py
jdistill train configs/adaspec_markov.py

First a reference of the draft's size is distilled from the target; then the
draft learns the 40 % of tokens where the reference is furthest ahead of it.
`eval/acceptance` and `eval/block_efficiency` as in
configs/distillspec_markov.py. Arms: `--draft.method.keep` lowest, largest_loss
or random, and DistillSpec with `--draft.method.fraction 1`. Those that use no
reference have its updates too: `--reference.steps 1 --draft.steps 400`.
"""

import dataclasses

from jdistill import beds, config, methods, optim, schedules

CHAIN = beds.MarkovChain(vocab_size=16, order=2, concentration=0.1)
LESSON = beds.Lesson(CHAIN, prompt_tokens=4, max_new_tokens=20)


def get_config() -> config.Stages:
  target = config.Teacher(architecture=CHAIN)
  reference = config.Config(
    student=config.Pretrained("runs/markov_reader@last"),
    teachers={"teacher": target},
    method=methods.KD(),
    data=LESSON.prompts(),
    evals={"eval": LESSON.heldout()},
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=1e-2, warmup=20)),
    steps=200,
    eval_every=400,
    save_every=400,
  )
  draft = dataclasses.replace(
    reference,
    teachers={
      "teacher": target,
      "reference": config.Teacher("stage:reference"),
    },
    method=methods.AdaSPEC(fraction=0.4),
  )
  return config.Stages({"reference": reference, "draft": draft})
