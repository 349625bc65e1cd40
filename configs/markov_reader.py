# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A small decoder reads a Markov chain's text: the start of other runs.

jdistill train configs/markov_reader.py

The chain looks back two tokens. configs/gkd_markov.py and others go on from
here with the chain as their teacher.
"""

from jdistill import beds, config, methods, optim, schedules

CHAIN = beds.MarkovChain(vocab_size=16, order=2, concentration=0.1)
LESSON = beds.Lesson(
  CHAIN, prompt_tokens=4, max_new_tokens=28, num_documents=16_384, batch_size=64
)


def get_config() -> config.Config:
  student = beds.small_decoder(CHAIN.vocab_size, width=16, num_layers=1)
  return config.Config(
    student=config.Fresh(student),
    teachers={"teacher": config.Teacher(architecture=CHAIN)},
    method=methods.CrossEntropy(),
    data=LESSON.prompts(),
    evals={"eval": LESSON.heldout()},
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=1e-2, warmup=20)),
    steps=2000,
    eval_every=2000,
    save_every=2000,
  )
