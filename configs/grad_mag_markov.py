# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""GradMag: a loss of logits and one of hidden states, whose scales differ.

jdistill train configs/first_teacher.py
jdistill train configs/grad_mag_markov.py

The teacher is a decoder that has learnt a Markov chain; `eval/kl` is the KL to
the first teacher, the chain itself: 0.118, and 0.193 by KD alone. A plain sum
is `--method.power 0`, its weights are `--method.parts.hidden.weight`; 0 is KD
alone. Two CPU cores: half a minute.
"""

import dataclasses

from jdistill import beds, config, methods, optim, schedules

CHAIN = beds.MarkovChain(vocab_size=16, order=2, concentration=0.1)
DATA = beds.BedData(CHAIN, num_documents=1024, seq_len=32, batch_size=32)


def get_config() -> config.Config:
  student = beds.small_decoder(CHAIN.vocab_size, width=32, num_layers=1)
  hidden = methods.Features((("layers/0/out", "layers/1/out"),))
  return config.Config(
    student=config.Fresh(student),
    teachers={
      "oracle": config.Teacher(architecture=CHAIN),
      "teacher": config.Teacher("runs/first_teacher"),
    },
    method=methods.GradMag(
      {"kd": methods.Part(methods.KD()), "hidden": methods.Part(hidden)},
      preserve=True,
    ),
    data=DATA,
    evals={"eval": dataclasses.replace(DATA, part="heldout", batch_size=128)},
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=1e-2, warmup=20)),
    steps=400,
    eval_every=400,
    save_every=400,
  )
