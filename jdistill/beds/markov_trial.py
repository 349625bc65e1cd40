# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""KD, adaptive KL and cross entropy on a Markov chain, judged by the oracle.

python -m jdistill.beds.markov_trial

Few documents, written by the oracle, are learnt by a small decoder from the
documents alone or from a teacher that is mistaken to a chosen degree. Prints
one JSON object: "golden" is KL(oracle || student), "proxy" KL(teacher ||
student), both exact, in nats per token on documents that nobody has seen.
"""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdistill import losses, methods, types
from jdistill.beds import trial
from jdistill.beds.documents import Rows
from jdistill.beds.markov import MarkovChain

ORACLE = MarkovChain(vocab_size=16, order=2, concentration=0.3)
NOISES = (0.0, 0.2)
ARMS = {
  "ce": methods.CrossEntropy(),
  "forward_kl": methods.KD(),
  "adaptive_kl": methods.AdaptiveKL(),
}
SEEDS = (0, 1, 2)
LENGTH, TRAIN, HELDOUT = 65, 128, 128
BUDGET = trial.Budget(steps=400, batch_size=16)


def judge(student, teacher, params, batch) -> dict[str, float]:
  """Golden and proxy distance on a batch."""
  view = batch["student"]
  logits = student.bind(params)(view).logits
  said = teacher.bind(teacher.init(jax.random.key(0)))(view).logits
  values = {
    "golden": ORACLE.golden_kl(logits, view.tokens, view.positions),
    "proxy": losses.forward_kl(logits, said),
  }
  share = view.mask / view.mask.sum()
  return {name: (value * share).sum() for name, value in values.items()}


def main() -> None:
  """Runs all arms and prints the result."""
  student = trial.small_decoder(ORACLE.vocab_size, width=32, num_layers=2)
  unseen = Rows(ORACLE.documents(1000, HELDOUT, length=LENGTH), LENGTH - 1)
  rows = [unseen[i] for i in range(HELDOUT)]
  held = trial.to_batch({k: np.stack([r[k] for r in rows]) for k in rows[0]})
  view = held["student"]
  assert isinstance(view, types.Tokens)
  result: dict[str, Any] = {}
  for noise in NOISES:
    teacher = dataclasses.replace(ORACLE, noise=noise)
    frozen = teacher.init(jax.random.key(0))
    truth = ORACLE.golden_kl(
      teacher.bind(frozen)(held["student"]).logits,
      jnp.asarray(view.tokens),
      jnp.asarray(view.positions),
    )
    row: dict[str, Any] = {"teacher_golden": round(float(truth.mean()), 4)}
    judged = jax.jit(lambda p, t=teacher: judge(student, t, p, held))
    for name, method in ARMS.items():
      if name == "ce" and noise:
        continue  # it has no teacher: the same as above
      needed = method.needs().teachers
      arm = trial.Trial(
        student,
        method,
        BUDGET,
        {k: (teacher, frozen) for k in needed},
      )
      scores = [
        jax.device_get(
          judged(
            arm.run(ORACLE.documents(seed, TRAIN, length=LENGTH), seed=seed)
          )
        )
        for seed in SEEDS
      ]
      row[name] = {
        k: trial.summary([s[k] for s in scores]) for k in ("golden", "proxy")
      }
    result[f"noise {noise}"] = row
  print(json.dumps(result))


if __name__ == "__main__":
  main()
