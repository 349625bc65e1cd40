# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Three teachers that err each in its own way, as one.

jdistill train configs/ensemble_markov.py
jdistill train configs/ensemble_markov.py --method.average log_prob
jdistill train configs/ensemble_markov.py --method.weights learned
jdistill train configs/ensemble_markov.py --method.teachers.second 0 --method.teachers.third 0

The truth is a Markov chain and each teacher that chain mixed with another one,
the third to a larger share. `eval/kl` is the distance to the truth, which no
student hears; `eval/kl_first` that to the first teacher.
"""  # noqa: E501

import dataclasses

from jdistill import beds, config, methods, optim, schedules

TRUTH = beds.MarkovChain(vocab_size=16, order=2, concentration=0.3)
DATA = beds.BedData(TRUTH, num_documents=8192, seq_len=64, batch_size=16)
SHARES = {"first": 0.3, "second": 0.3, "third": 0.6}


def get_config() -> config.Config:
  teachers = {
    name: dataclasses.replace(TRUTH, noise=share, noise_seed=seed)
    for seed, (name, share) in enumerate(SHARES.items(), 1)
  }
  return config.Config(
    student=config.Fresh(
      beds.small_decoder(TRUTH.vocab_size, width=64, num_layers=2)
    ),
    teachers={
      name: config.Teacher(architecture=chain)
      for name, chain in {"truth": TRUTH, **teachers}.items()
    },
    method=methods.Ensemble(methods.KD(), dict.fromkeys(SHARES, 1.0)),
    data=DATA,
    evals={
      "eval": dataclasses.replace(DATA, part="heldout", num_documents=128)
    },
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=5e-3, warmup=20)),
    steps=400,
    eval_every=400,
    save_every=400,
  )
