# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""KD and cross entropy on sums, judged by the verifier.

python -m jdistill.beds.arithmetic_trial

A teacher learns sums of two numbers from right answers; smaller students learn
from documents whose answers are right or partly wrong, by cross entropy or
from the teacher. Prints one JSON object: exact matches of greedy answers to
prompts that nobody has seen.
"""

import dataclasses
import json
from typing import Any

from jdistill import methods
from jdistill.beds import arithmetic, trial
from jdistill.beds.documents import BedData
from jdistill.sampling import generate

BED = arithmetic.Arithmetic()
NOISES = (0.0, 0.3)
SEEDS = (0, 1, 2)
PROMPTS = BED.prompts(7, 300, "heldout")
TEACHER = trial.small_decoder(arithmetic.VOCAB_SIZE, width=64, num_layers=2)
STUDENT = trial.small_decoder(arithmetic.VOCAB_SIZE, width=48, num_layers=2)
LESSONS = BedData(BED, 20_000, seq_len=BED.max_length - 1, batch_size=128)
TEACHER_BUDGET = trial.Budget(steps=1500)
BUDGET = trial.Budget(steps=800)
ARMS = {"ce": methods.CrossEntropy(), "kd": methods.KD()}


def accuracy(architecture, params) -> float:
  """Share of held-out prompts that are answered right."""
  answers = generate(
    architecture,
    params,
    [arithmetic.encode(prompt) for prompt in PROMPTS],
    max_new_tokens=4,
    temperature=0,
    eos_id=arithmetic.EOS,
  )
  return BED.accuracy(PROMPTS, answers)


def main() -> None:
  """Trains the teacher and all arms, and prints the result."""
  school = trial.Trial(TEACHER, methods.CrossEntropy(), TEACHER_BUDGET)
  params = school.run(LESSONS, seed=0)
  result: dict[str, Any] = {"teacher": accuracy(TEACHER, params)}
  trial.tell("teacher", result["teacher"])
  for name, method in ARMS.items():
    needed = method.needs().teachers
    taught = trial.Trial(
      STUDENT, method, BUDGET, {k: (TEACHER, params) for k in needed}
    )
    result[name] = {}
    for noise in NOISES:
      bed = dataclasses.replace(BED, label_noise=noise)
      scores = []
      for seed in SEEDS:
        learnt = dataclasses.replace(
          LESSONS, bed=bed, num_documents=6_000, seed=seed + 1
        )
        scores.append(accuracy(STUDENT, taught.run(learnt, seed=seed)))
      result[name][f"label noise {noise}"] = trial.summary(scores)
      trial.tell(f"{name}, label noise {noise}", scores)
  print(json.dumps(result))


if __name__ == "__main__":
  main()
