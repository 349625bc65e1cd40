# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Written text on a Markov chain, which is teacher and truth at once."""

from experiments import Arm, Experiment, parts, writers

OWN = {"own/reverse_kl": "lower", "own/kl": "lower", "eval/kl": "lower"}
READER = ("train configs/markov_reader.py",)
CHAIN = "200 updates of 32 answers of 20 tokens, from the same start"

GKD = Experiment(
  name="gkd",
  title="GKD",
  paper="Agarwal et al., 2023, arXiv:2306.13649",
  methods=("JSD",),
  claim=(
    "A student that learns from what it writes itself is closer to the "
    "teacher there than one that learns from fixed text alone."
  ),
  config="configs/gkd_markov.py",
  arms={
    "dataset's text": Arm(writers("dataset", "student dataset")),
    "half and half": Arm(),
    "student's text": Arm(
      writers("student", "student dataset"), rate_of="half and half"
    ),
    "JSD(0.9), dataset's text": Arm(
      f"--method.beta 0.9 {writers('dataset', 'student dataset')}",
      rate_of="dataset's text",
    ),
    "JSD(0.9), half and half": Arm(
      "--method.beta 0.9", rate_of="half and half"
    ),
  },
  control="dataset's text",
  metrics=OWN,
  budget=CHAIN,
  rates=(1e-3, 3e-3, 1e-2, 3e-2),
  first=READER,
  verdict="Not told apart by reverse KL: half of the text its own gives "
  "0.784 against 0.795; forward KL there falls from 0.372 to 0.352. The "
  "divergence matters more: JSD(0.9), which is near to reverse KL, gains "
  "0.07 on the dataset's text, and 0.02 more with half of the text its own.",
)

_SAMPLED = "sampled reverse_kl forward_kl"
ON_POLICY = Experiment(
  name="on_policy",
  title="On-policy distillation",
  paper="Lu & Thinking Machines Lab, 2025; Agarwal et al., 2023, "
  "arXiv:2306.13649; Xu et al., 2025, arXiv:2506.02208 (k2)",
  methods=("OnPolicyDistillation", "KD"),
  claim=(
    "Reverse KL on the student's own text beats supervised KD there; the "
    "whole vocabulary says more than one number for each token."
  ),
  config="configs/on_policy_markov.py",
  arms={
    "supervised KD": Arm(
      f"{parts('forward_kl', _SAMPLED)} {writers('dataset', 'student dataset')}"
    ),
    "reverse KL, dataset's text": Arm(
      f"{parts('reverse_kl', _SAMPLED)} "
      f"{writers('dataset', 'student dataset')}",
      rate_of="supervised KD",
    ),
    "importance": Arm(),
    "k2": Arm("--method.parts.sampled.method.kind k2", rate_of="importance"),
    "reverse KL, full vocabulary": Arm(parts("reverse_kl", _SAMPLED)),
  },
  control="supervised KD",
  metrics=OWN,
  budget=CHAIN,
  rates=(1e-3, 3e-3, 1e-2, 3e-2),
  first=READER,
  verdict="Holds, but most of it is the divergence: reverse KL on the "
  "student's own text is 30 % nearer to the teacher there than supervised "
  "KD, of which reverse KL on the dataset's text reaches three quarters. One "
  "number for each token gains about half as much as the whole vocabulary. "
  "On the dataset's text supervised KD stays ahead.",
)

_DISTILLM = "adaptive student dataset"
DISTILLM = Experiment(
  name="distillm",
  title="DistiLLM",
  paper="Ko, Kim, Chen & Yun, 2024, arXiv:2402.03898",
  methods=("SkewKL",),
  claim=(
    "Skewed reverse KL beats forward KL, and replayed answers do as well as "
    "fresh ones in less time."
  ),
  config="configs/distillm_markov.py",
  arms={
    "forward KL, dataset's text": Arm(
      f"{parts('forward_kl', 'skew forward_kl')} "
      f"{writers('dataset', _DISTILLM)}"
    ),
    "skewed KL, dataset's text": Arm(
      writers("dataset", _DISTILLM), rate_of="skewed KL, adaptive replay"
    ),
    "skewed KL, student's text": Arm(
      writers("student", _DISTILLM), rate_of="skewed KL, adaptive replay"
    ),
    "skewed KL, adaptive replay": Arm(),
  },
  control="forward KL, dataset's text",
  metrics=OWN,
  budget=CHAIN,
  first=READER,
  verdict="The first half holds: skewed reverse KL gains 0.18 on the "
  "dataset's text already, the student's own text 0.02 more. Replayed "
  "answers do as well as fresh ones, but save no time here, where writing "
  "costs next to nothing.",
)

_SWAPPED = (
  writers("teacher", "student teacher", "--rollout.writer.parts")
  + " "
  + writers("student", "student teacher", "--rollout.other.parts")
)
DISTILLM2 = Experiment(
  name="distillm2",
  title="DistiLLM-2",
  paper="Ko et al., 2025, arXiv:2503.07067",
  methods=("DistiLLM2",),
  claim=(
    "Forward KL belongs to the teacher's answers and reverse KL to the "
    "student's: the roles swapped are worse, and so is either text alone."
  ),
  config="configs/distillm2_markov.py",
  arms={
    "roles swapped": Arm(_SWAPPED),
    "teacher's and student's": Arm(),
    "teacher's alone": Arm(
      "--method.beta 0", rate_of="teacher's and student's"
    ),
    "student's alone": Arm(
      "--method.beta 2", rate_of="teacher's and student's"
    ),
  },
  control="roles swapped",
  metrics=OWN,
  budget=CHAIN + ", twice as many answers where two texts are learnt",
  first=READER,
  verdict="Roles swapped are not told apart (0.731 against 0.713). Two "
  "texts are better than the teacher's alone (0.854); the student's alone is "
  "as near on its own text and further off on the data's (0.536 against "
  "0.365).",
)

_MINILLM = "minillm reverse_kl forward_kl"
_BLEND = "blend student dataset"
MINILLM = Experiment(
  name="minillm",
  title="MiniLLM",
  paper="Gu, Dong, Wei & Huang, 2023, arXiv:2306.08543",
  methods=("MiniLLM",),
  claim=(
    "Policy gradient on reverse KL to come, with a single-step part and the "
    "teacher's help in writing, beats supervised KD on the student's text."
  ),
  config="configs/minillm_markov.py",
  arms={
    "supervised KD": Arm(
      f"{parts('forward_kl', _MINILLM)} {writers('dataset', _BLEND)}"
    ),
    "MiniLLM": Arm(),
    "without the single-step part": Arm(
      "--method.parts.minillm.method.single-step 0", rate_of="MiniLLM"
    ),
    "single-step part alone": Arm(
      parts("reverse_kl", _MINILLM), rate_of="MiniLLM"
    ),
    "student writes alone": Arm(writers("student", _BLEND), rate_of="MiniLLM"),
  },
  control="supervised KD",
  metrics=OWN,
  budget=CHAIN,
  rates=(1e-3, 3e-3, 1e-2),
  first=READER,
  verdict="Holds on the student's own text: reverse KL falls from 0.925 to "
  "0.543, without the teacher's help in writing even to 0.448, and the "
  "data's text pays for it (0.318 becomes 0.60 to 0.73). The single-step "
  "part is worth having: without it 0.606, and far off on the data's text; "
  "alone it reaches 0.650 in half the time.",
)

_KINDS = "kl dac span"
_REVISED = ("revised student", "--rollout.writer.parts")
REVISION = Experiment(
  name="revision",
  title="Multi-granularity revision",
  paper="Liu et al., 2024, arXiv:2407.10068",
  methods=("DACKL", "SpanLoss"),
  claim=(
    "Corrected answers (SCRG), the gated KL (DAC) and span relations each add "
    "to forward KL on the student's own text."
  ),
  config="configs/revision_markov.py",
  arms={
    "forward KL": Arm(f"{parts('kl', _KINDS)} {writers('student', *_REVISED)}"),
    "+ SCRG": Arm(parts("kl", _KINDS), rate_of="forward KL"),
    "+ DAC": Arm(
      f"{parts('dac', _KINDS)} {writers('student', *_REVISED)}",
      rate_of="all three",
    ),
    "+ span": Arm(
      f"{parts('kl span', _KINDS)} {writers('student', *_REVISED)}",
      rate_of="forward KL",
    ),
    "all three": Arm(),
  },
  control="forward KL",
  metrics={"eval/kl": "lower", "own/kl": "lower", "own/reverse_kl": "lower"},
  budget=CHAIN,
  first=READER,
  verdict="None of the three adds anything here. Corrected answers and span "
  "relations are not told apart from forward KL on the student's own text; "
  "the gated KL is worse by 0.06 nats, which was not looked into.",
)
