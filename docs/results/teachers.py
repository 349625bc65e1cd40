# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Several teachers on Markov chains, whose errors are known."""

from experiments import Arm, Experiment, parts

_ALONE = "--method.teachers.second 0 --method.teachers.third 0"
ENSEMBLE = Experiment(
  name="ensemble",
  title="Ensembles of teachers",
  paper="Hinton, Vinyals & Dean, 2015, arXiv:1503.02531",
  methods=("Ensemble",),
  claim=(
    "The average of teachers that err each in its own way teaches better than "
    "the best of them, and learned weights count the worst for less."
  ),
  config="configs/ensemble_markov.py",
  arms={
    "best teacher alone": Arm(_ALONE),
    "mixture": Arm(rate_of="best teacher alone"),
    "mixture, learned weights": Arm(
      "--method.weights learned", rate_of="best teacher alone"
    ),
    "product": Arm("--method.average log_prob", rate_of="best teacher alone"),
    "product, learned weights": Arm(
      "--method.average log_prob --method.weights learned",
      rate_of="best teacher alone",
    ),
  },
  control="best teacher alone",
  metrics={"eval/kl": "lower", "eval/ce": "lower"},
  budget="400 updates of 16 documents of 64 tokens",
  rates=(3e-3, 1e-2),
  verdict="It depends on the average. With equal weights a mixture is worse "
  "than the best teacher alone (0.229 against 0.183 nats from the truth): it "
  "says what the worst of them says; a product reaches 0.120. Learned weights "
  "help both, to 0.162 and 0.098.",
)

_HOW = "routed averaged"
ROUTED = Experiment(
  name="routed",
  title="A teacher for each domain",
  paper="Tan et al., 2019, arXiv:1902.10461",
  methods=("Routed",),
  claim=(
    "Specialists that teach each its own domain teach both; their average "
    "teaches neither."
  ),
  config="configs/specialists_markov.py",
  arms={
    "best teacher alone": Arm(
      f"{parts('averaged', _HOW)} --method.parts.averaged.method.teachers.b 0",
      rate_of="routed",
    ),
    "averaged": Arm(parts("averaged", _HOW), rate_of="routed"),
    "product": Arm(
      f"{parts('averaged', _HOW)} "
      "--method.parts.averaged.method.average log_prob",
      rate_of="routed",
    ),
    "routed": Arm(),
    "routed, pure batches": Arm("--data.batches pure", rate_of="routed"),
  },
  control="best teacher alone",
  metrics={"b/kl_b": "lower", "a/kl": "lower"},
  budget="400 updates of 16 documents of 64 tokens",
  rates=(3e-3, 1e-2),
  verdict="Holds: routed specialists leave the student 0.02 nats from either "
  "truth, their mixture 0.40 and 0.37, their product 0.63 and 0.83. Pure "
  "batches, which cost one teacher each, do as well as mixed ones.",
)
