# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Teacher hacking: near the teacher, away from the truth."""

from experiments import Arm, Experiment


def _writer(name: str) -> str:
  """Flags that let another one write than the teacher, once for all."""
  where = "--distilled.rollout.parts"
  return f"{where}.offline.share 0 {where}.{name}.share 1"


_TWO_ANSWERS = "--distilled.data.batch-size 15 --distilled.group-size 2"


HACKING = Experiment(
  name="hacking",
  title="Teacher hacking",
  paper="Tiapkin et al., 2025, arXiv:2502.02671",
  methods=("KD",),
  claim=(
    "On fixed answers of the teacher a student leaves the truth while it goes "
    "on nearing the teacher; answers written anew, by either, prevent it."
  ),
  config="configs/teacher_hacking.py",
  arms={
    "offline": Arm(),
    "online_teacher": Arm(_writer("online_teacher")),
    "online_student": Arm(_writer("online_student")),
    "half the prompts, two answers": Arm(
      f"--distilled.data.of.num-documents 240 {_TWO_ANSWERS}"
    ),
    "two answers, half the epochs": Arm(_TWO_ANSWERS),
  },
  control="offline",
  metrics={
    "eval/kl_oracle": "lower",
    "eval/kl": "lower",
    "own/kl_oracle": "lower",
    "own/kl": "lower",
  },
  budget="960 updates of 30 answers of 29 tokens to 480 prompts, after a "
  "teacher and a start that have read 256 documents",
  rates=(),
  verdict="Half of it. On fixed answers the distance to the truth is least "
  "after 380 to 520 of 960 updates and 0.03 to 0.04 more at the end, in all "
  "three seeds, but the distance to the teacher on held-out text does not "
  "fall any more either: the answers are learnt by heart, and the detector, "
  "which asks for a proxy that goes on falling, stays silent. Answers "
  "written anew, by either, end 0.11 to 0.12 nearer to the truth. Of the "
  "diversity of prompts little is seen: half of the prompts with two answers "
  "each are as good as all with one, within the seeds' spread; two fixed "
  "answers to all of them, each read half as often, end 0.083 nearer, which "
  "is most of what new answers give.",
)
