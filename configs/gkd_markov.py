# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""GKD where everything is known: half of the batches are the student's own.

jdistill train configs/gkd_markov.py

Teacher and text are a Markov chain. `own/reverse_kl` is the reverse KL on what
the student writes itself to held-out prompts, `eval/kl` the forward KL on the
chain's text. Only the dataset's answers: `--rollout.parts.student.share 0`.
"""

import dataclasses

from jdistill import (
  beds,
  config,
  data,
  methods,
  models,
  optim,
  rollout,
  schedules,
)
from jdistill import sampling as sampling_lib

CHAIN = beds.MarkovChain(vocab_size=16, order=2, concentration=0.3)
TEXT = beds.BedData(CHAIN, num_documents=512, seq_len=64)
ANSWERS = sampling_lib.Sampling(max_new_tokens=57)


def get_config() -> config.Config:
  student = models.DecoderConfig(
    vocab_size=CHAIN.vocab_size,
    width=32,
    mlp_width=128,
    num_heads=2,
    num_kv_heads=2,
    head_dim=16,
    segments=(models.Segment.uniform(2),),
    ropes=(models.Rope(theta=10_000.0),),
  )
  heldout = dataclasses.replace(TEXT, part="heldout", num_documents=256)
  writers = {
    "student": rollout.Part(rollout.Student(ANSWERS), share=0.5),
    "dataset": rollout.Part(rollout.Dataset(), share=0.5),
  }
  return config.Config(
    student=config.Fresh(student),
    teachers={"teacher": config.Teacher(architecture=CHAIN)},
    method=methods.JSD(beta=0.5),
    data=data.Prompts(TEXT, prompt_tokens=8, batch_size=16),
    rollout=rollout.Mixture(writers),
    evals={
      "eval": data.Prompts(heldout, prompt_tokens=8, batch_size=64),
      "own": data.Prompts(heldout, prompt_tokens=8, batch_size=64),
    },
    eval_rollouts={"own": rollout.Student(ANSWERS)},
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=3e-3, warmup=20)),
    steps=400,
    eval_every=100,
    save_every=200,
  )
