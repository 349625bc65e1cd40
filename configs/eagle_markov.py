# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A target and two drafts that go by its features: EAGLE's and FSPAD's.

jdistill train configs/eagle_markov.py
jdistill train configs/eagle_markov.py --eagle.steps 800 --seed 1

The target learns a mixture of Markov chains from the truth. `eval/kl` of a
draft is KL(target || draft) where it hears the target's own features; what
drafts are worth below their own guesses `python -m jdistill.beds.draft_trial`
measures, which has more arms. Of a target with a tokenizer that is
`jdistill speculate TARGET RUN` and `jdistill generate TARGET --draft RUN`.
"""

import dataclasses

from jdistill import beds, config, methods, models, optim, schedules

CHAINS = beds.ChainMixture(num_chains=8)
DATA = beds.BedData(CHAINS, num_documents=8000, seq_len=64, batch_size=16)
LAYERS = {
  "vocab_size": CHAINS.vocab_size,
  "width": 64,
  "mlp_width": 256,
  "num_heads": 4,
  "num_kv_heads": 4,
  "head_dim": 16,
  "ropes": (models.Rope(theta=10_000.0),),
}


def get_config() -> config.Stages:
  target = config.Config(
    student=config.Fresh(
      models.DecoderConfig(**LAYERS, segments=(models.Segment.uniform(4),))
    ),
    teachers={"teacher": config.Teacher(architecture=CHAINS)},
    method=methods.KD(),
    data=DATA,
    evals={
      "eval": dataclasses.replace(DATA, part="heldout", num_documents=256)
    },
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=5e-3, warmup=30)),
    steps=600,
    eval_every=200,
    save_every=200,
  )
  eagle = dataclasses.replace(
    target,
    student=config.Fresh(models.FeatureDraft(**LAYERS)),
    teachers={"teacher": config.Teacher("stage:target")},
    method=methods.EAGLE(),
    steps=400,
  )
  fspad = dataclasses.replace(
    eagle,
    student=config.Fresh(
      models.FeatureDraft(**LAYERS, sampling=2, unaligned=32)
    ),
  )
  return config.Stages({"target": target, "eagle": eagle, "fspad": fspad})
