# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""KD, adaptive KL and cross entropy on a Markov chain, judged by the oracle.

python -m jdistill.beds.markov_trial

A small decoder learns from documents that the oracle wrote, few of them again
and again or many of them once: from the documents alone, or from a teacher
that is mistaken to a chosen degree. Prints one JSON object: "golden" is
KL(oracle || student), "proxy" KL(teacher || student), both exact, in nats per
token on documents that nobody has seen.
"""

import dataclasses
import json
from typing import Any

import jax

from jdistill import data, losses, methods, types
from jdistill.beds import trial
from jdistill.beds.documents import BedData
from jdistill.beds.markov import MarkovChain

ORACLE = MarkovChain(vocab_size=16, order=2, concentration=0.3)
NOISES = (0.0, 0.2)
ARMS = {
  "ce": methods.CrossEntropy(),
  "forward_kl": methods.KD(),
  "adaptive_kl": methods.AdaptiveKL(),
}
SEEDS = (0, 1, 2)
STUDENT = trial.small_decoder(ORACLE.vocab_size, width=64, num_layers=2)
BUDGET = trial.Budget(steps=400, lr=5e-3)
LEARNT = BedData(ORACLE, seq_len=64, batch_size=16)
DOCUMENTS = (128, BUDGET.steps * LEARNT.batch_size)
HELDOUT = BedData(
  ORACLE, 128, "heldout", batch_size=128, shuffle=False, epochs=1
)


def held_out() -> types.Tokens:
  """The one batch of held-out documents."""
  [batch] = [trial.to_batch(arrays) for arrays in data.load(HELDOUT, seed=0)]
  view = batch["student"]
  assert isinstance(view, types.Tokens)
  return view


def distances(
  logits: jax.Array, teacher: MarkovChain, view: types.Tokens
) -> dict[str, jax.Array]:
  """Mean golden and proxy distance of a model's logits [B, T, V]."""
  said = teacher.log_probs(view.tokens, view.positions)
  values = {
    "golden": ORACLE.golden_kl(logits, view.tokens, view.positions),
    "proxy": losses.forward_kl(logits, said),
  }
  share = view.mask / view.mask.sum()
  return {name: (value * share).sum() for name, value in values.items()}


def arm(
  name: str, teacher: MarkovChain, view: types.Tokens
) -> dict[str, dict[str, Any]]:
  """What a method reaches, by number of documents and by distance."""
  method = ARMS[name]
  params = teacher.init(jax.random.key(0))
  taught = trial.Trial(
    STUDENT,
    method,
    BUDGET,
    {k: (teacher, params) for k in method.needs().teachers},
  )
  judge = jax.jit(
    lambda p: distances(STUDENT.bind(p)(view).logits, teacher, view)
  )
  found = {}
  for number in DOCUMENTS:
    scores = []
    for seed in SEEDS:
      learnt = dataclasses.replace(LEARNT, num_documents=number, seed=seed)
      scores.append(jax.device_get(judge(taught.run(learnt, seed=seed))))
    found[f"{number} documents"] = {
      kind: trial.summary([score[kind] for score in scores])
      for kind in ("golden", "proxy")
    }
  return found


def main() -> None:
  """Runs all arms and prints the result."""
  view = held_out()
  result: dict[str, Any] = {"ce": arm("ce", ORACLE, view)}
  for noise in NOISES:
    teacher = dataclasses.replace(ORACLE, noise=noise)
    said = teacher.log_probs(view.tokens, view.positions)
    row: dict[str, Any] = {
      "teacher_golden": round(
        float(distances(said, teacher, view)["golden"]), 4
      )
    }
    for name, method in ARMS.items():
      if method.needs().teachers:
        row[name] = arm(name, teacher, view)
        trial.tell(f"noise {noise}, {name}", row[name])
    result[f"noise {noise}"] = row
  print(json.dumps(result))


if __name__ == "__main__":
  main()
