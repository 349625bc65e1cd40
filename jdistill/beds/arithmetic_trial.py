# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""KD and cross entropy on sums, judged by the verifier.

python -m jdistill.beds.arithmetic_trial

A teacher learns sums of two numbers from right answers; smaller students learn
from documents whose answers are partly wrong, by cross entropy or from the
teacher. Prints one JSON object: exact matches of greedy answers to prompts
that nobody has seen.
"""

import json
from typing import Any

from jdistill import methods
from jdistill.beds import arithmetic, trial
from jdistill.sampling import generate

CLEAN = arithmetic.Arithmetic()
NOISY = arithmetic.Arithmetic(label_noise=0.3)
SEEDS = (0, 1, 2)
PROMPTS = CLEAN.prompts(7, 300, "heldout")
TEACHER = trial.small_decoder(arithmetic.VOCAB_SIZE, width=64, num_layers=2)
STUDENT = trial.small_decoder(arithmetic.VOCAB_SIZE, width=48, num_layers=2)
TEACHER_BUDGET = trial.Budget(steps=1500, batch_size=128, seq_len=9)
BUDGET = trial.Budget(steps=800, batch_size=128, seq_len=9)
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
  return CLEAN.accuracy(PROMPTS, answers)


def main() -> None:
  """Trains the teacher and all arms, and prints the result."""
  school = trial.Trial(TEACHER, methods.CrossEntropy(), TEACHER_BUDGET)
  params = school.run(CLEAN.documents(0, 20_000), seed=0)
  result: dict[str, Any] = {"teacher": accuracy(TEACHER, params)}
  for name, method in ARMS.items():
    needed = method.needs().teachers
    arm = trial.Trial(
      STUDENT, method, BUDGET, {k: (TEACHER, params) for k in needed}
    )
    scores = [
      accuracy(STUDENT, arm.run(NOISY.documents(seed, 6_000), seed=seed))
      for seed in SEEDS
    ]
    result[name] = trial.summary(scores)
  print(json.dumps(result))


if __name__ == "__main__":
  main()
