# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Two specialists teach one student, each on the text of its own domain.

jdistill train configs/specialists_markov.py
jdistill train configs/specialists_markov.py --data.batches pure
jdistill train configs/specialists_markov.py --method.parts.routed.weight 0 --method.parts.averaged.weight 1

Two Markov chains write the text of two domains, and nothing says which but the
text. Each is a perfect teacher of its own and knows nothing of the other.
`a/kl` and `b/kl_b` are the distances to the truth of both domains.
"""  # noqa: E501

import dataclasses

from jdistill import beds, config, data, methods, optim, schedules

CHAINS = {
  name: beds.MarkovChain(vocab_size=16, order=1, concentration=0.3, seed=seed)
  for seed, name in enumerate(("a", "b"))
}
TEXTS = {
  name: beds.BedData(chain, num_documents=4096, seq_len=64, batch_size=16)
  for name, chain in CHAINS.items()
}


def get_config() -> config.Config:
  return config.Config(
    student=config.Fresh(beds.small_decoder(16, width=64, num_layers=2)),
    teachers={
      name: config.Teacher(architecture=chain) for name, chain in CHAINS.items()
    },
    method=methods.Sum(
      {
        "routed": methods.Part(methods.Routed(methods.KD(), ("a", "b"))),
        "averaged": methods.Part(
          methods.Ensemble(methods.KD(), {"a": 1.0, "b": 1.0}), 0.0
        ),
      }
    ),
    data=data.Domains({**TEXTS}, batch_size=16),
    evals={
      name: dataclasses.replace(text, part="heldout", num_documents=128)
      for name, text in TEXTS.items()
    },
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=5e-3, warmup=20)),
    steps=400,
    eval_every=400,
    save_every=400,
  )
