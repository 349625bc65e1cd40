# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Teachers of whom a few ids per position are known."""

from experiments import Arm, Experiment, parts

_TOP, _DRAWN = "runs/cache/top_8", "runs/cache/sampled_17"


def _cached(directory: str, rest: str | None = None) -> str:
  """Flags for a teacher who has spoken before."""
  flags = f"--teachers.teacher.cache {directory}"
  return flags if rest is None else f"{flags} --teachers.teacher.rest {rest}"


SPARSE = Experiment(
  name="sparse",
  title="Sparse logits (RS-KD)",
  paper="Anshumann et al., 2025, arXiv:2503.16870",
  methods=("KD",),
  claim=(
    "Of a teacher's likeliest ids, renormalised, a student learns to be too "
    "sure; of as many bytes of ids drawn from the teacher it learns the "
    "teacher."
  ),
  config="configs/cached_markov.py",
  arms={
    "whole teacher": Arm(),
    "top 8, renormalised": Arm(_cached(_TOP, "renormalise")),
    "top 8, both renormalised": Arm(_cached(_TOP, "renormalise_both")),
    "top 8, rest to the target": Arm(_cached(_TOP, "gold")),
    "top 8 and a bucket": Arm(_cached(_TOP, "bucket")),
    "17 draws": Arm(_cached(_DRAWN)),
  },
  control="whole teacher",
  metrics={"eval/kl": "lower", "eval/ece": "lower", "eval/accuracy": "higher"},
  budget="400 updates of 32 texts of 32 tokens; 44 bytes a token in each cache",
  first=(
    "cache configs/cached_markov.py --teacher teacher --format top_k:8 --to "
    + _TOP,
    "cache configs/cached_markov.py --teacher teacher --format sampled:17 --to "
    + _DRAWN,
  ),
  rates=(3e-3, 1e-2),
  verdict="Holds. At equal bytes the likeliest ids alone, renormalised, "
  "make a student too sure (calibration error 0.085 against 0.004) and 2.35 "
  "nats away from the teacher; draws leave 0.008 nats and no error of "
  "calibration. A bucket keeps the calibration but not the distribution "
  "inside it; the rest given to the target is in between; both sides "
  "renormalised leave the mass elsewhere to chance.",
)

_FIRST = "first kd ce"
_LIVE = "--teachers.teacher.cache None --teachers.teacher.rest None"
FIRST = Experiment(
  name="first",
  title="FIRST",
  paper="Shum et al., 2024, arXiv:2408.12168",
  methods=("FIRST",),
  claim=(
    "Five ids of a teacher who is too sure, recalibrated, give a student who "
    "is as often right and better calibrated than one of the whole teacher."
  ),
  config="configs/first_markov.py",
  arms={
    "KD, whole teacher": Arm(f"{parts('kd', _FIRST)} {_LIVE}"),
    "KD, top 5": Arm(parts("kd", _FIRST), rate_of="FIRST"),
    "KD, top 5 and the rest": Arm(
      f"{parts('kd', _FIRST)} --teachers.teacher.rest bucket", rate_of="FIRST"
    ),
    "FIRST": Arm(),
    "FIRST and the rest": Arm(
      "--method.parts.first.method.other "
      "--method.parts.first.method.temperature 1.297 "
      "--teachers.teacher.rest bucket",
      rate_of="FIRST",
    ),
    "cross entropy": Arm(parts("ce", _FIRST)),
  },
  control="KD, whole teacher",
  metrics={
    "eval/trust": "higher",
    "eval/ece": "lower",
    "eval/accuracy": "higher",
    "eval/ce": "lower",
  },
  budget="400 updates of 32 texts of 32 tokens",
  first=(
    "train configs/first_teacher.py",
    "cache configs/first_markov.py --format top_k:5 --to runs/cache/first",
  ),
  rates=(3e-3, 1e-2),
  verdict="Does not hold here. The student, which is smaller, does not take "
  "over its teacher's sureness (calibration error 0.017, the teacher's is "
  "0.081), so recalibration makes it too unsure (0.077). Five ids are as "
  "good as the whole teacher if the rest counts as one more; without it "
  "nothing says how much mass they have together, and the student is far "
  "off.",
)

_SUM = "--method.power 0"
GRAD_MAG = Experiment(
  name="grad_mag",
  title="GradMag",
  paper="Minixhofer et al., 2025, arXiv:2503.20083",
  methods=("GradMag",),
  claim=(
    "Two losses of different scales, each divided by its gradient at the last "
    "layer, teach as well as the best weights chosen by hand."
  ),
  config="configs/grad_mag_markov.py",
  arms={
    "KD alone": Arm(f"{_SUM} --method.parts.hidden.weight 0"),
    "sum, 0.01 x hidden": Arm(f"{_SUM} --method.parts.hidden.weight 0.01"),
    "sum, 1 x hidden": Arm(f"{_SUM} --method.parts.hidden.weight 1"),
    "sum, 100 x hidden": Arm(f"{_SUM} --method.parts.hidden.weight 100"),
    "GradMag": Arm(),
  },
  control="KD alone",
  metrics={"eval/kl": "lower", "eval/kl_teacher": "lower"},
  budget="400 updates of 32 texts of 32 tokens",
  first=("train configs/first_teacher.py",),
  rates=(3e-3, 1e-2),
  verdict="Holds: GradMag is nearer to the truth (0.118) than KD alone (0.193) "
  "and than the best of three weights (0.143 at 1). At 100 the hidden states "
  "drown the rest (1.34). All arms took the higher of two learning rates.",
)
