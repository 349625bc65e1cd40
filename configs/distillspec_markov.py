# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""DistillSpec: a draft learns to guess what its target will accept.

jdistill train configs/markov_reader.py
jdistill train configs/distillspec_markov.py

Target and text are a Markov chain; the draft has read the text and is too small
for all of it. `eval/acceptance` is the share of the draft's guesses that the
target accepts, 1 - TVD, on the target's text; `eval/block_efficiency` the
tokens of a pass with four guesses. Arms: one of the objectives forward_kl,
reverse_kl, jsd and total_variation by `--method.parts.NAME.weight` 1, the
others 0; one of the writers dataset, target and draft by
`--rollout.parts.NAME.share`, or several.
"""

from jdistill import beds, config, methods, optim, rollout, schedules

CHAIN = beds.MarkovChain(vocab_size=16, order=2, concentration=0.1)
LESSON = beds.Lesson(CHAIN, prompt_tokens=4, max_new_tokens=20)


def get_config() -> config.Config:
  objectives = {
    "forward_kl": methods.Part(methods.KD("forward_kl"), 1.0),
    "reverse_kl": methods.Part(methods.KD("reverse_kl"), 0.0),
    "jsd": methods.Part(methods.JSD(), 0.0),
    "total_variation": methods.Part(methods.KD("total_variation"), 0.0),
  }
  writers = {
    "dataset": rollout.Part(rollout.Dataset(), share=0.0),
    "target": rollout.Part(rollout.Teacher(LESSON.sampling), share=0.0),
    "draft": rollout.Part(rollout.Student(LESSON.sampling), share=1.0),
  }
  return config.Config(
    student=config.Pretrained("runs/markov_reader@last"),
    teachers={"teacher": config.Teacher(architecture=CHAIN)},
    method=methods.Sum(objectives),
    data=LESSON.prompts(),
    rollout=rollout.Mixture(writers),
    evals={"eval": LESSON.heldout(), "own": LESSON.heldout()},
    eval_rollouts={"own": rollout.Student(LESSON.sampling)},
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=1e-2, warmup=20)),
    steps=200,
    eval_every=200,
    save_every=200,
  )
